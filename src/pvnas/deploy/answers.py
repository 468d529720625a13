"""What is made of videos by a trained network, one after another, whatever becomes of single videos."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.clips.loader import cropped_views
from pvnas.data.clips.mirrored_views import mirrored_labels
from pvnas.data.clips.view_frames import decode_views
from pvnas.data.video.decode import VideoError, channels_first, in_colours
from pvnas.deploy.inputs import why_missing
from pvnas.deploy.model import Model
from pvnas.errors import UserError
from pvnas.runtime.signals import StopRequest

CLIPS = 8  # that the network is given at once, at least


@dataclass(frozen=True)
class Answer:
    """Of which video it is, and why there is none."""

    path: Path
    error: str = ""  # why the video has no answer; then what else there is is empty
    start: float = 0.0  # of the segment that is meant, in seconds of the file
    end: float = math.inf

    @property
    def video(self) -> Video:
        """The video that was asked for."""
        return Video(str(self.path), 0, "test", None, self.start, self.end)

    @property
    def name(self) -> str:
        """The path, and for a segment its seconds."""
        return self.video.name


Given = TypeVar("Given", bound=Answer)


def all_of(answers: Generator[Given, None, None]) -> list[Given]:
    """Return all answers. Raises UserError for the first video that cannot be read."""
    found = []
    with closing(answers):
        for answer in answers:
            if answer.error:
                raise UserError(f"{answer.name}: {answer.error}")
            found.append(answer)
    return found


Made = TypeVar("Made")


def made_of(
    model: Model,
    videos: Sequence[Video],
    make: Callable[[Tensor], Made],
    limits: Limits,
    stop: StopRequest | None = None,
) -> Generator[tuple[Video, Made | None, str], None, None]:
    """Yield each video, in their order, with what is made of it, or with None and why; no more where ``stop`` is asked.

    ``make``: of the views of a video (N, C, T, H, W) that the test would see, uint8; may raise VideoError.
    """
    waiting: dict[int, tuple[Video, Made | None, str]] = {}  # what was decoded before a video in front of it
    due, config = 0, model.config
    mirrored = mirrored_labels(model.classes, config.test.flip) is not None
    with closing(decode_views(videos, config.clip, config.test, limits, config.data.frame_rate)) as decoded:
        for item in decoded:
            if stop is not None and stop.requested:
                return
            if item is None:
                continue
            number, frames = item
            video = videos[number]
            try:
                if isinstance(frames, VideoError):
                    raise frames
                frames_TCHW = in_colours(channels_first(frames), config.clip.colours)
                views_NCTHW = cropped_views(frames_TCHW, config.clip, config.test, mirrored=mirrored)
                waiting[number] = video, make(views_NCTHW), ""
            except VideoError as bad:
                waiting[number] = video, None, why_none(bad, video)
            while due in waiting:
                yield waiting.pop(due)
                due += 1


def why_none(error: VideoError, video: Video) -> str:
    """Return why there is no answer for a video."""
    return why_missing(video.path) if error.kind == "missing" else str(error)


def batches_of(model: Model, network: nn.Module, views_NCTHW: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the numbers of some views and the views, on the network's device, until all were."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))  # of an export
    for some_N in torch.arange(len(views_NCTHW)).split(max(CLIPS, model.config.train.batch.clips_per_shard)):
        yield some_N, views_NCTHW[some_N].to(device)
