"""Windows out of a video of any length, cut as its frames come: never more frames are held than a window has.

A window is read as if it were a video of its own, by the rules of the test's clips; so it has the frames that a segment
of the same seconds has. None reaches over a cut from one shot to the next: a network that was trained on single shots
takes a cut for a motion larger than any other. Nothing here imports torch.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvnas.config import ClipConfig
from pvnas.data.clips.sampling import test_indices
from pvnas.data.video.segment import EPSILON_SECONDS, segment_of

Picture = NDArray[np.uint8]

# A cut changes the picture, averaged over a few squares, by this share of all grey levels, and by so many times the
# usual change; shots of fewer seconds are left out.
SQUARES, LEAST_CHANGE, TIMES_USUAL, SHORTEST_SHOT = 12, 0.08, 4.0, 0.25
REMEMBERED = 12  # changes that tell what is usual


@dataclass(frozen=True)
class Pace:
    """How long windows are, and how far apart they begin."""

    window: float  # seconds
    stride: float  # seconds
    ends_at_cuts: bool = True


class Window(NamedTuple):
    """A stretch of a video, with the frames of its one clip."""

    number: int  # from 0 on
    start: float  # seconds from the first frame
    end: float
    frames_FHWC: Picture  # uint8, as many as ``network_input.frames_read``


class WindowCutter:
    """Takes frames in the order they are shown, and gives windows as soon as they are whole.

    Of each shot the windows begin with it, and the last one ends with it; of a short one it is all of it.
    """

    def __init__(self, clip: ClipConfig, rule: str, pace: Pace) -> None:
        self.clip, self.rule, self.pace = clip, rule, pace
        self._shot = _Shot(clip, rule, pace, 0.0)
        self._changes = _Changes()
        self._count = 0

    def add(self, time: float, picture: Picture) -> Iterator[Window]:
        """Take the frame that is shown from ``time`` on, in seconds from the first one; yield what ends by then.

        Times rise. A window in which no frame begins shows what the one before it has shown, and is left out.
        """
        if self.pace.ends_at_cuts and self._changes.is_cut(picture):
            if time - self._shot.begun >= SHORTEST_SHOT:  # else a flash, of which there is nothing to see
                yield from self._numbered(self._shot.finish(time))
            self._shot = _Shot(self.clip, self.rule, self.pace, time)
        yield from self._numbered(self._shot.add(time, picture))

    def finish(self, duration: float) -> Iterator[Window]:
        """Yield the last windows of a video of so many seconds."""
        yield from self._numbered(self._shot.finish(duration))

    def _numbered(self, windows: Iterator[tuple[float, float, Picture]]) -> Iterator[Window]:
        for start, end, frames_FHWC in windows:
            self._count += 1
            yield Window(self._count - 1, start, end, frames_FHWC)


class _Changes:
    """By how much a video usually changes from one frame to the next."""

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None
        self._usual: deque[float] = deque(maxlen=REMEMBERED)

    def is_cut(self, picture: Picture) -> bool:
        """Take the next frame, and return whether it begins another shot."""
        squares, before = _squares(picture), self._before
        self._before = squares
        if before is None or before.shape != squares.shape:
            return before is not None
        change = float(np.abs(squares - before).mean()) / 255
        usual = float(np.median(self._usual)) if self._usual else 0.0
        self._usual.append(change)  # a cut, too: where all frames differ so much, none of them is one
        return change > max(LEAST_CHANGE, TIMES_USUAL * usual)


def _squares(picture: Picture) -> NDArray[np.float32]:
    """Return the means over squares of a picture, about SQUARES along its shorter side, (h, w, C)."""
    side = max(1, min(picture.shape[:2]) // SQUARES)
    height, width = (size // side for size in picture.shape[:2])
    whole = picture[: height * side, : width * side]
    means: NDArray[np.float32] = whole.reshape(height, side, width, side, -1).mean((1, 3), dtype=np.float32)
    return means


class _Shot:
    """Cuts the windows of one shot that begins at a second."""

    def __init__(self, clip: ClipConfig, rule: str, pace: Pace, begun: float) -> None:
        self.clip, self.rule, self.pace, self.begun = clip, rule, pace, begun
        self._times: deque[float] = deque()
        self._pictures: deque[Picture] = deque()
        self._next = 0  # number of the next window
        self._covered = begun  # up to which second windows were cut

    def add(self, time: float, picture: Picture) -> Iterator[tuple[float, float, Picture]]:
        """Yield start, end and frames of what ends by a time, and take the frame that begins then."""
        while self._times and self._start(self._next) + self.pace.window <= time + EPSILON_SECONDS:
            if self._start(self._next) > self._times[-1] + EPSILON_SECONDS:
                skipped = (time - self.begun - self.pace.window + EPSILON_SECONDS) / self.pace.stride
                self._next = math.floor(skipped) + 1
                break
            start = self._start(self._next)
            yield self._cut(start, start + self.pace.window)
            self._forget()
        self._times.append(time)
        self._pictures.append(picture)

    def finish(self, end: float) -> Iterator[tuple[float, float, Picture]]:
        """Yield the last windows of a shot that ends then; the very last ends with it, or is all of it."""
        if not self._times:
            return
        while (start := self._start(self._next)) + self.pace.window <= end + EPSILON_SECONDS:
            if start > self._times[-1] + EPSILON_SECONDS:
                return
            yield self._cut(start, start + self.pace.window)
        if self._covered < end - EPSILON_SECONDS:
            yield self._cut(max(self.begun, end - self.pace.window), end)

    def _start(self, number: int) -> float:
        return self.begun + number * self.pace.stride

    def _cut(self, start: float, end: float) -> tuple[float, float, Picture]:
        segment = segment_of(np.array(self._times) - self.begun, end - self.begun, start - self.begun, end - self.begun)
        indices = segment.first + test_indices(segment.times_T, segment.duration, self.clip, 1, self.rule)[0]
        self._next, self._covered = self._next + 1, end
        return start, end, np.stack([self._pictures[index] for index in indices])

    def _forget(self) -> None:
        """Drop what neither the next window nor a last one before it shows."""
        first = self._start(self._next - 1)
        while len(self._times) > 1 and self._times[1] <= first + EPSILON_SECONDS:
            self._times.popleft()
            self._pictures.popleft()
