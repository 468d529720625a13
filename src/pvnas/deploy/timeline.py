"""What a trained network sees over the time of long videos: windows of a clip's length, and the segments they join to.

Legend: N views, C channels, T frames, H and W pixels, K classes, W windows, S stretches between the starts of windows.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pvnas.config import TestConfig
from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.clips.loader import cropped_views
from pvnas.data.clips.mirrored_views import mirrored_labels
from pvnas.data.clips.sampling import window_seconds
from pvnas.data.clips.window_frames import decode_windows
from pvnas.data.clips.windows import Pace, Picture, Window
from pvnas.data.video.decode import VideoError, channels_first, in_colours
from pvnas.deploy.answers import Answer, why_none
from pvnas.deploy.inputs import Paths, find_videos
from pvnas.deploy.model import Model, load_model
from pvnas.deploy.predictions import scores_of_views
from pvnas.errors import UserError
from pvnas.fast.inference import for_inference
from pvnas.runtime.device import choose_device
from pvnas.runtime.signals import StopRequest

PICTURES = 12  # of a video that are kept, up to twice as many


class Segment(NamedTuple):
    """A stretch of a video in which one class is seen."""

    start: float  # seconds
    end: float
    name: str
    score: float  # of the class, averaged over the stretch


class Seen(NamedTuple):
    """What is seen in one window."""

    start: float  # seconds
    end: float
    scores_K: NDArray[np.float64]  # of all classes, which add up to 1


@dataclass(frozen=True)
class Joining:
    """How windows are joined to segments.

    A class is held until another one is seen more clearly by ``margin``, or it is seen less clearly than ``least``.
    """

    margin: float = 0.1
    least: float = 0.0

    def __post_init__(self) -> None:
        for name in ("margin", "least"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is in parts of the scores, from 0 to below 1, not {getattr(self, name):g}")


@dataclass(frozen=True)
class Timeline(Answer):
    """What is seen over the time of one video; or why nothing is."""

    seconds: float = 0.0
    windows: tuple[Seen, ...] = ()
    segments: tuple[Segment, ...] = ()
    classes: tuple[str, ...] = field(default=(), repr=False)
    pictures: tuple[tuple[float, Picture], ...] = field(default=(), repr=False)
    """Some frames (H, W, 3), with their seconds, evenly over the video."""


def timelines(
    videos: Paths,
    run_dir: str | Path,
    *,
    window: float | None = None,
    stride: float | None = None,
    ends_at_cuts: bool = True,
    joining: Joining | None = None,
    device: str = "auto",
    workers: int = 2,
    deadline: float = 60.0,
) -> list[Timeline]:
    """Return what a run's network sees over the time of each video; see ``timeline_of_each``.

    ``window`` and ``stride``: seconds, see ``pace_of``; other arguments as of ``predictions``. Raises UserError for the
    first video that cannot be read, and for a run without a model.
    """
    model = load_model(Path(run_dir))
    pace = pace_of(model, window, stride, ends_at_cuts=ends_at_cuts)
    limits = Limits(workers, deadline)
    found = find_videos(videos)
    answers = _numbered(model, found, pace, joining or Joining(), Watcher(model, device), limits)
    in_order: dict[int, Timeline] = {}
    with closing(answers):
        for number, answer in answers:
            if answer.error:
                raise UserError(f"{answer.name}: {answer.error}")
            in_order[number] = answer
    return [in_order[number] for number in range(len(found))]


def pace_of(
    model: Model, window: float | None = None, stride: float | None = None, *, ends_at_cuts: bool = True
) -> Pace:
    """Return how windows follow each other: as long as the clips that a network was trained on, half of that apart.

    Of clips without a window of their own that is the middle length of the videos. ``ends_at_cuts``: whether none
    reaches from one shot into the next. Raises UserError.
    """
    usual = window_seconds(model.config.clip)
    if model.config.clip.sampling != "dense" and model.video_seconds:
        usual = model.video_seconds
    window = usual if window is None else window
    stride = window / 2 if stride is None else stride
    for name, value in (("window", window), ("stride", stride)):
        if not 0.01 <= value <= 3600:
            raise UserError(f"the {name} is in seconds, from 0.01 to 3600, not {value:g}")
    if model.config.clip.sampling == "dense" and window > usual * (1 + 1e-9):
        raise UserError(f"the network sees {usual:.4g} s at once, no more; name a shorter window than {window:g} s")
    if stride > window:
        raise UserError(f"windows of {window:g} s that begin {stride:g} s apart leave seconds out; name a lower stride")
    return Pace(window, stride, ends_at_cuts)


def timeline_of_each(
    model: Model,
    videos: Sequence[Video],
    pace: Pace,
    joining: Joining,
    device: str,
    limits: Limits,
    stop: StopRequest | None = None,
    export: nn.Module | None = None,
) -> Generator[Timeline, None, None]:
    """Yield the timeline of each video, in the order in which they end; no more where ``stop`` is requested.

    A video is decoded once, and never more of it is held than a window of each that is decoded at the time. ``export``:
    as of ``predict_each``.
    """
    for _, timeline in _numbered(model, videos, pace, joining, Watcher(model, device, export), limits, stop):
        yield timeline


def _numbered(
    model: Model,
    videos: Sequence[Video],
    pace: Pace,
    joining: Joining,
    watcher: Watcher,
    limits: Limits,
    stop: StopRequest | None = None,
) -> Generator[tuple[int, Timeline], None, None]:
    """Yield the number and the timeline of each video."""
    config = model.config
    seen: dict[int, list[Seen]] = {}
    glimpses: dict[int, Glimpses] = {}
    failed: dict[int, VideoError] = {}
    decoded = decode_windows(videos, config.clip, watcher.test, pace, limits, config.data.frame_rate)
    with closing(decoded):
        for item in decoded:
            if stop is not None and stop.requested:
                return
            if item is None:
                continue
            number, said = item
            if isinstance(said, Window):
                offset = videos[number].start  # seconds are those of the file
                said = said._replace(start=said.start + offset, end=said.end + offset)
                glimpses.setdefault(number, Glimpses()).add(said)
                try:
                    seen.setdefault(number, []).append(watcher.look(said))
                except VideoError as error:
                    failed[number] = error
                continue
            video, windows = videos[number], seen.pop(number, [])
            about = Path(video.path), "", video.start, video.end
            pictures = tuple(glimpses.pop(number, Glimpses()).kept)
            bad = said if isinstance(said, VideoError) else failed.pop(number, None)
            if bad is not None:
                yield number, replace(Timeline(*about), error=why_none(bad, video))
            elif isinstance(said, float):
                segments = joined(windows, model.classes, joining, video.start + said)
                yield number, Timeline(*about, said, tuple(windows), tuple(segments), model.classes, pictures)


class Glimpses:
    """Keeps a few frames of a video of any length, at even distances."""

    def __init__(self) -> None:
        self.kept: list[tuple[float, Picture]] = []
        self._every, self._count = 1, 0

    def add(self, window: Window) -> None:
        """Keep the window's first frame, if its turn is come."""
        if self._count % self._every == 0:
            self.kept.append((window.start, window.frames_FHWC[0].copy()))
            if len(self.kept) == 2 * PICTURES:
                self.kept, self._every = self.kept[::2], 2 * self._every
        self._count += 1


class Watcher:
    """A network that looks at windows, in the spatial views of its test."""

    def __init__(self, model: Model, device: str = "auto", export: nn.Module | None = None) -> None:
        self.model = model
        self.network = export or for_inference(model.network.to(choose_device(device)))
        self.test: TestConfig = replace(model.config.test, temporal_views=1)
        self.mirrored = mirrored_labels(model.classes, self.test.flip) is not None

    def look(self, window: Window) -> Seen:
        """Return what is seen. Raises VideoError where scores are not numbers."""
        clip = self.model.config.clip
        frames_TCHW = in_colours(channels_first(window.frames_FHWC), clip.colours)
        views_NCTHW = cropped_views(frames_TCHW, clip, self.test, mirrored=self.mirrored)
        with torch.inference_mode():
            scores_K = scores_of_views(self.model, self.network, views_NCTHW)
        return Seen(window.start, window.end, scores_K.numpy())


# ---- from windows to segments


def joined(
    windows: Sequence[Seen], classes: Sequence[str], joining: Joining, end: float | None = None
) -> list[Segment]:
    """Return the segments of a video's windows, in their order; what shows no class clearly is in none.

    ``end``: of the video, in seconds, where it goes on behind the last window.
    """
    bounds_S1, scores_SK = stretches(windows, end)
    segments, held, begun = list[Segment](), None, 0

    def finish(stop: int) -> None:
        if held is not None:
            score = float(np.average(scores_SK[begun:stop, held], weights=np.diff(bounds_S1[begun : stop + 1])))
            segments.append(Segment(float(bounds_S1[begun]), float(bounds_S1[stop]), classes[held], score))

    for number, scores_K in enumerate(scores_SK):
        best = int(scores_K.argmax())
        stays = held is not None and scores_K[best] <= scores_K[held] + joining.margin
        clearest = held if stays and held is not None and scores_K[held] >= joining.least else best
        wanted = clearest if scores_K[clearest] >= joining.least else None
        if wanted != held:
            finish(number)
            held, begun = wanted, number
    finish(len(scores_SK))
    return segments


def stretches(windows: Sequence[Seen], end: float | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds (S + 1,) of the stretches between the starts of windows, and their scores (S, K).

    The last one ends with its window, or at ``end`` where that is later. Scores are the means of all windows that show
    the middle of a stretch; where nothing moves there is none, and those of the window before go on.
    """
    if not windows:
        return np.zeros(1), np.zeros((0, 0))
    starts_W, ends_W = (np.array([getattr(window, name) for window in windows]) for name in ("start", "end"))
    bounds_S1 = np.append(starts_W, max(ends_W[-1], end or 0.0))
    middles_S = (bounds_S1[:-1] + bounds_S1[1:]) / 2
    # Windows come in the order of their starts and of their ends: those that show an instant follow each other.
    behind_S = np.searchsorted(starts_W, middles_S, side="right")
    first_S = np.minimum(np.searchsorted(ends_W, middles_S, side="right"), behind_S - 1)
    scores_WK = np.stack([window.scores_K for window in windows])
    sums_W1K = np.concatenate([np.zeros_like(scores_WK[:1]), scores_WK.cumsum(0)])
    return bounds_S1, (sums_W1K[behind_S] - sums_W1K[first_S]) / (behind_S - first_S)[:, None]
