"""What a catalogue names, read as one video whatever it is: a file, a folder of pictures, or a segment of either."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pvnas.data.catalog import Catalog, Video
from pvnas.data.video.decode import (
    DEFAULT_RATE,
    DecodedVideo,
    InOrder,
    OnLength,
    Painter,
    channels_first,
    claimed_size,
    decode_in_order,
    stacked,
)
from pvnas.data.video.pictures import picture_files, read_picture_items, size_of_first
from pvnas.data.video.seek import Make, read_items
from pvnas.data.video.segment import Choose, within

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Footage:
    """Where a video lies, and which part of it is meant."""

    path: Path
    start: float = 0.0  # of the segment, in seconds from the first frame
    end: float = math.inf
    frame_rate: float = DEFAULT_RATE  # of a folder of pictures, in pictures a second

    @classmethod
    def of(cls, catalog: Catalog, video: Video, frame_rate: float) -> Self:
        """Return the footage of a catalogue's video."""
        return cls(catalog.root / video.path, video.start, video.end, frame_rate)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is meant."""
        return self.start <= 0 and self.end == math.inf

    @property
    def is_pictures(self) -> bool:
        """Whether it lies as a folder of pictures."""
        return self.path.is_dir()

    def claimed_size(self) -> tuple[int, int, int]:
        """Return number of frames, height and width of the whole file, as its header says. Raises VideoError."""
        if not self.is_pictures:
            return claimed_size(self.path)
        files = picture_files(self.path)
        width, height = size_of_first(files)
        return len(files), height, width

    def frames(self, choose: Choose, *, short_side: int | None = None) -> "Tensor":
        """Return what ``pictures`` does as a tensor (T, C, H, W)."""
        return channels_first(self.pictures(choose, short_side=short_side))

    def pictures(
        self, choose: Choose, *, short_side: int | None = None, on_length: OnLength = lambda seconds: None
    ) -> NDArray[np.uint8]:
        """Return the (T, H, W, C) RGB frames, upright, at the indices that ``choose(times_T, duration)`` returns.

        Times and indices are those of the segment. ``on_length`` is told how many seconds the file is long. See
        ``seek.read_frames``. Raises VideoError.
        """
        painter = Painter(short_side)
        return np.stack(self._items(choose, painter.paint, painter, on_length))

    def whole(self, *, short_side: int | None = None) -> DecodedVideo:
        """Return all frames; of a segment no other is decoded, but for those that they refer to. Raises VideoError."""
        painter = Painter(short_side)
        decoded = self.in_order(painter.paint, painter)
        return DecodedVideo(stacked(decoded.items), *decoded[1:])

    def in_order(self, make: Make, painter: Painter, on_length: OnLength = lambda seconds: None) -> InOrder:
        """Return what ``make`` makes of each frame, from the first to the last, and their times.

        ``on_length`` is told how many seconds the file is long. Raises VideoError.
        """
        if self.is_whole and not self.is_pictures:
            return decode_in_order(self.path, make, painter, on_length)
        shown = []

        def choose_all(times_T: NDArray[np.float64], duration: float) -> NDArray[np.int64]:
            shown.append((times_T, duration))
            return np.arange(len(times_T))

        items = self._items(choose_all, make, painter, on_length)
        times_T, duration = shown[-1]
        return InOrder(items, times_T, duration, frames_bad=0)

    def _items(self, choose: Choose, make: Make, painter: Painter, on_length: OnLength) -> list[Any]:
        if self.is_pictures:
            inside = choose if self.is_whole else within(choose, self.start, self.end)
            return read_picture_items(self.path, self.frame_rate, inside, make, painter)
        return read_items(self.path, choose, make, painter, self.start, self.end, on_length)
