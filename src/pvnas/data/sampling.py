"""Which frames make a clip: pure functions of times in seconds, so that a file's own frame rate never matters.

A window of 64 frames at 30 fps is 2.133 s of any video. Within these functions a "nominal frame" is 1/window_rate
seconds; the rules below are those of the tools they are named after, restated in nominal frames.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pvnas.config import ClipConfig

# Rounding in time stamps: a frame that begins a microsecond after the wanted instant is the wanted frame.
EPSILON_SECONDS = 1e-6
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
    """Return the indices (frames,) of a clip's frames: for each instant the last frame that has begun by then.

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
    index = np.searchsorted(times_T, wanted + EPSILON_SECONDS, side="right") - 1
    return np.clip(index, 0, len(times_T) - 1)
