"""Segments: a stretch of a video that is read as if it were a video of its own.

Frame k is shown from its own time to the next one's. A segment [start, end) has the frame that is shown at its start,
from then on, and every frame that begins after that and before its end. Seconds are counted from the first frame.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvnas.data.video.decode import VideoError

Choose = Callable[[NDArray[np.float64], float], NDArray[np.int64]]
"""Given when each frame begins and the duration, in seconds: the indices of the frames that are wanted."""

# Rounding in time stamps: a frame that begins a microsecond after the wanted instant is the wanted frame.
EPSILON_SECONDS = 1e-6


class Segment(NamedTuple):
    """The frames of a segment, and when they are shown."""

    first: int  # index of its first frame in the video
    times_T: NDArray[np.float64]  # when each of its frames begins, in seconds of the segment; the first at 0
    duration: float  # seconds


def segment_of(times_T: NDArray[np.float64], duration: float, start: float, end: float) -> Segment:
    """Return the segment from ``start`` to ``end`` or the end of the video, in seconds of a video of these times.

    The whole of it for 0 and infinity. Raises VideoError (empty) where the video has no frame there.
    """
    if start >= duration - EPSILON_SECONDS:
        raise VideoError("empty", f"the segment begins at {start:.10g} s, but the video ends at {duration:.6g} s")
    if end <= start:
        raise VideoError("empty", f"the segment begins at {start:.10g} s and ends at {end:.10g} s")
    first = int(np.searchsorted(times_T, start + EPSILON_SECONDS, side="right")) - 1
    stop = max(first + 1, int(np.searchsorted(times_T, end - EPSILON_SECONDS, side="left")))
    shown_T = times_T[first:stop] - start
    shown_T[0] = 0.0
    return Segment(first, shown_T, min(end, duration) - start)


def within(choose: Choose, start: float, end: float) -> Choose:
    """Return what chooses in a whole video the frames that ``choose`` chooses in a segment of it."""

    def choose_in_video(times_T: NDArray[np.float64], duration: float) -> NDArray[np.int64]:
        segment = segment_of(times_T, duration, start, end)
        return segment.first + choose(segment.times_T, segment.duration)

    return choose_in_video
