"""Which frames make a clip: pure functions of times in seconds, so that a file's own frame rate never matters.

Dense sampling takes frames out of a window: 64 frames at 30 fps are 2.133 s of any video. Within these functions a
"nominal frame" is 1/window_rate seconds; the rules below are those of the tools they are named after, restated in
nominal frames. Segment sampling takes one frame out of each of as many equal parts of the whole video.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pvnas.config import ClipConfig
from pvnas.data.video.segment import EPSILON_SECONDS

EPSILON_FRAMES = 1e-6
STRIDED_RULES = frozenset({"mmaction2", "tsm"})

Seconds = NDArray[np.float64]


def window_seconds(clip: ClipConfig) -> float:
    """Return the length of a clip in seconds."""
    return clip.window / clip.window_rate


def training_start(duration: float, clip: ClipConfig, u: float) -> float:
    """Return the start in seconds of a training clip, for u uniform in [0, 1); 0 where the video is too short."""
    return u * max(0.0, duration - window_seconds(clip))


def centre_start(duration: float, clip: ClipConfig) -> float:
    """Return the start in seconds of the clip in the middle of the video."""
    return training_start(duration, clip, 0.5)


def test_starts(duration: float, clip: ClipConfig, views: int, rule: str) -> Seconds:
    """Return the starts (views,) in seconds of the test clips; a single view is the centre one.

    With N the video's length in nominal frames and W the window: `slowfast` i (N - W) / views; `slowfast_offset`
    i floor((N - W) / (views - 1)); `mmaction2` round(i (N - L) / (views - 1)), L the frames from the first to the last
    of a strided clip; `tsm` linspace(0, N - W, views), truncated. Negative room counts as none.
    """
    if views == 1:
        return np.array([centre_start(duration, clip)])
    length, index = duration * clip.window_rate, np.arange(views, dtype=np.float64)
    room = max(0.0, length - clip.window)
    if rule == "slowfast":
        starts = index * room / views
    elif rule == "slowfast_offset":
        starts = index * math.floor(room / (views - 1) + EPSILON_FRAMES)
    elif rule == "mmaction2":
        stride = clip.window // clip.frames
        covered = (clip.frames - 1) * stride + 1
        starts = np.round(index * max(0.0, length - covered) / (views - 1))
    else:
        starts = np.floor(np.linspace(0.0, room, views) + EPSILON_FRAMES)
    return np.asarray(starts, dtype=np.float64) / clip.window_rate


def frame_offsets(clip: ClipConfig, rule: str = "slowfast") -> Seconds:
    """Return the instants (frames,) of a clip's frames in seconds after its start.

    At even distances from the first to the last frame of the window, or (mmaction2, tsm) every window/frames-th frame.
    """
    if rule in STRIDED_RULES:
        return np.arange(clip.frames) * (clip.window // clip.frames) / clip.window_rate
    return np.linspace(0.0, clip.window - 1, clip.frames) / clip.window_rate


def frame_indices(
    times_T: Seconds, duration: float, start: float, clip: ClipConfig, rule: str = "slowfast"
) -> NDArray[np.int64]:
    """Return the indices (frames,) of a dense clip's frames: for each instant the last frame that has begun by then.

    ``times_T``: when each frame begins, in seconds, rising. In a video shorter than the window, `clamp` repeats its
    last frame, `loop` starts again from its first and `fit` shrinks the window to the video.
    """
    wanted = start + frame_offsets(clip, rule)
    short_by = duration / window_seconds(clip)
    if short_by < 1.0 and clip.short_videos == "fit":
        wanted = frame_offsets(clip, rule) * short_by
    elif clip.short_videos == "loop":
        # The epsilon keeps an instant at the very end of the video from rounding back before it.
        wanted = np.where(wanted + EPSILON_SECONDS >= duration, np.mod(wanted + EPSILON_SECONDS, duration), wanted)
    return shown_at(times_T, wanted)


def shown_at(times_T: Seconds, instants: Seconds) -> NDArray[np.int64]:
    """Return the index of the frame that is shown at each instant: the last one that has begun by then."""
    index = np.searchsorted(times_T, instants + EPSILON_SECONDS, side="right") - 1
    return np.clip(index, 0, len(times_T) - 1)


def segment_instants(duration: float, segments: int, u: Seconds | float) -> Seconds:
    """Return one instant (segments,) in seconds out of each equal part of a video, ``u`` in [0, 1) of the way in."""
    return np.asarray((np.arange(segments) + u) * (duration / segments), dtype=np.float64)


def segment_centres(n_frames: int, duration: float, segments: int, rule: str) -> Seconds:
    """Return the instants (segments,) of the test's segment clip in a video of ``n_frames``.

    `slowfast` and `slowfast_offset`: frame (round(s i) + round(s (i + 1))) // 2 with s = (N - 1) / segments;
    `mmaction2` and `tsm`: frame floor(t / 2 + t i) with t = N / segments. In a video of uneven rate, what is shown at
    the same share of its length.
    """
    if rule in STRIDED_RULES:
        return segment_instants(duration, segments, 0.5)
    bounds = [round((n_frames - 1) / segments * i) for i in range(segments + 1)]
    frames = np.array([(a + b) // 2 for a, b in pairwise(bounds)], dtype=np.float64)
    return (frames + 0.5) * (duration / n_frames)


def whole_instants(times_T: Seconds, clip: ClipConfig, length: float = 1.0, start: float = 0.0) -> Seconds:
    """Return instants (frames,) in seconds at even distances over a video, the first and the last frame among them.

    ``length``, ``start``: the part of the video that is looked at, as shares of it. Where motion is seen the last one
    leaves room for its later frame.
    """
    room = clip.motion_seconds if clip.input != "rgb" else 0.0
    last = max(0.0, float(times_T[-1]) - room)
    return np.linspace(start * last, min(1.0, start + length) * last, clip.frames)


SHORT_VIDEOS = {
    "clamp": "their clips repeat the last {unit} (clip.short_videos clamp; loop and fit are the other ways)",
    "loop": "their clips begin again with the first frame (clip.short_videos loop; clamp and fit are the other ways)",
    "fit": "their clips take all of the video, in less time (clip.short_videos fit; clamp and loop are the other ways)",
}


def repetition_notes(frames_V: NDArray[np.int64], seconds_V: Seconds, clip: ClipConfig) -> list[str]:
    """Return what clips of videos with so many frames and seconds hold where these do not give what the config asks.

    A line on videos that are too short, one on those whose frames are too few for a clip without repetition, and where
    motion is seen one on those whose frames are too far apart for it.
    """
    n, repeat = len(frames_V), "frames repeat in their clips"
    rates_V = frames_V / np.maximum(seconds_V, EPSILON_SECONDS)
    lines = [] if clip.input == "rgb" else _motion_notes(frames_V, rates_V, clip)
    if clip.sampling != "dense":
        later = 0.0 if clip.input == "rgb" else clip.motion_seconds
        few = int((frames_V < clip.frames + later * rates_V).sum())
        what = f"{clip.frames} frames" + (f" and {later:.3g} s" if later else "")
        return [*lines, f"{few} of {n} videos have fewer than {what}: {repeat}"] if few else lines
    window = window_seconds(clip)
    short_V = seconds_V < window - EPSILON_SECONDS
    needed = 1.0 / np.diff(frame_offsets(clip)).min() if clip.frames > 1 else 0.0  # frames a second
    slow_V = ~short_V & (rates_V < needed - EPSILON_FRAMES)
    if short_V.any():
        what = f"{short_V.sum()} of {n} videos are shorter than a clip's window ({window:.3g} s)"
        unit = "frame" if clip.input == "rgb" else "motion"
        lines.append(f"{what}: {SHORT_VIDEOS[clip.short_videos].format(unit=unit)}")
    if slow_V.any():
        what = f"{slow_V.sum()} of {n} videos have fewer than {needed:.3g} frames a second"
        lines.append(f"{what}, the slowest {rates_V[slow_V].min():.3g}: {repeat}")
    return lines


def _motion_notes(frames_V: NDArray[np.int64], rates_V: Seconds, clip: ClipConfig) -> list[str]:
    """Return what is said of videos in which no frame is so soon after another one as motion is to be seen."""
    n, single_V, lines = len(frames_V), frames_V == 1, []
    slow_V = ~single_V & (rates_V * clip.motion_seconds < 1.0 - EPSILON_FRAMES)
    if single_V.any():
        lines.append(f"{single_V.sum()} of {n} videos have a single frame: nothing moves in their clips")
    if slow_V.any():
        slowest = f"up to {1 / rates_V[slow_V].min():.3g} s instead of {clip.motion_seconds:.3g} s"
        what = f"{slow_V.sum()} of {n} videos have fewer than {1 / clip.motion_seconds:.3g} frames a second"
        lines.append(f"{what}: their motion is that between one frame and the next, {slowest}")
    return lines


def draws(clip: ClipConfig) -> int:
    """Return how many numbers in [0, 1) decide which frames a training clip has."""
    return {"dense": 1, "segment": clip.frames, "whole": 0}[clip.sampling]


def training_indices(
    times_T: Seconds, duration: float, clip: ClipConfig, u: Sequence[float], length: float = 1.0, u_start: float = 0.0
) -> NDArray[np.int64]:
    """Return the indices (frames_read,) of a training clip, for ``draws(clip)`` numbers uniform in [0, 1).

    ``length``: of the window as a share of the config's, where the video reaches so far; without a window, of the part
    of the video that is looked at, which ``u_start``, uniform in [0, 1), places in the video.
    """
    if clip.sampling == "dense":
        clip = _with_window(clip, duration, length)
        chosen = frame_indices(times_T, duration, training_start(duration, clip, u[0]), clip)
    else:
        length = min(1.0, length)
        start = u_start * (1.0 - length)
        if clip.sampling == "segment":
            instants = segment_instants(duration * length, clip.frames, np.asarray(u)) + start * duration
        else:
            instants = whole_instants(times_T, clip, length, start)
        chosen = shown_at(times_T, instants)
    return _with_later(chosen, times_T, clip)


def _with_window(clip: ClipConfig, duration: float, length: float) -> ClipConfig:
    """Return the clip with a window of so many times its seconds, but no longer than the video where it was not.

    Where the window shrinks to a short video (`fit`), it is a share of the video.
    """
    reach = duration / window_seconds(clip)
    if reach < 1.0 and clip.short_videos == "fit" and length != 1.0:
        length = reach * min(1.0, length)
    elif length > 1.0:
        length = min(length, max(1.0, reach))
    return replace(clip, window_rate=clip.window_rate / length)


def centre_indices(times_T: Seconds, duration: float, clip: ClipConfig) -> NDArray[np.int64]:
    """Return the indices (frames_read,) of the one clip that validation looks at."""
    return test_indices(times_T, duration, clip, 1, "slowfast")[0]


def test_indices(times_T: Seconds, duration: float, clip: ClipConfig, views: int, rule: str) -> NDArray[np.int64]:
    """Return the indices (views, frames_read) of the test's clips.

    Segment sampling has one clip of the segments' middles; more views are spread evenly over each segment. Of the whole
    video more views are later, by equal parts of the distance between two frames; all end with the last frame.
    """
    if clip.sampling == "segment":
        if views == 1:
            chosen = shown_at(times_T, segment_centres(len(times_T), duration, clip.frames, rule))[None]
        else:
            shares = (np.arange(views) + 0.5) / views
            chosen = np.stack([shown_at(times_T, segment_instants(duration, clip.frames, share)) for share in shares])
    elif clip.sampling == "whole":
        instants = whole_instants(times_T, clip)
        shifts = np.arange(views) / views * (instants[-1] / max(1, clip.frames - 1))
        chosen = np.stack([shown_at(times_T, instants + shift) for shift in shifts])
    else:
        starts = test_starts(duration, clip, views, rule)
        chosen = np.stack([frame_indices(times_T, duration, start, clip, rule) for start in starts])
    return _with_later(chosen, times_T, clip)


def _with_later(indices: NDArray[np.int64], times_T: Seconds, clip: ClipConfig) -> NDArray[np.int64]:
    """Return indices (..., frames) with, where motion is seen, those of as many later frames behind them.

    The later frame is the one that begins nearest to ``motion_seconds`` later, another one in any case. Where the video
    ends before that, the pair is its last frame and the one nearest to ``motion_seconds`` earlier: a clip that repeats
    the last frame repeats the last motion. A video of a single frame has none.
    """
    if clip.input == "rgb":
        return indices
    last, seconds = len(times_T) - 1, clip.motion_seconds - EPSILON_SECONDS  # half a frame more is the nearer frame
    wanted = times_T[indices] + seconds
    later = np.minimum(np.maximum(nearest(times_T, wanted), indices + 1), last)
    before_last = min(int(nearest(times_T, times_T[last] - seconds)), max(0, last - 1))
    ends = (wanted > times_T[last]) | (indices == last)
    now, later = np.where(ends, np.minimum(indices, before_last), indices), np.where(ends, last, later)
    return np.concatenate([now, later], axis=-1)


def nearest(times_T: Seconds, instants: Seconds | float) -> NDArray[np.int64]:
    """Return the index of the frame that begins nearest to each instant."""
    return np.searchsorted((times_T[1:] + times_T[:-1]) / 2, instants)
