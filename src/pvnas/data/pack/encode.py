"""One video, decoded once from its first frame to its last, as JPEG frames and the times they begin at.

Frames are coded as they come, so that memory holds one picture, however long the video is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pvnas.data.video.container import VideoError
from pvnas.data.video.decode import Painter, decode_in_order, measured_rate
from pvnas.errors import UserError

# JPEG frames of a single video, which are held in memory: more than an hour of 170x128 pixels.
VIDEO_BYTES_LIMIT = 1 << 30
JPEG_SIDE_LIMIT = 65500


@dataclass(frozen=True)
class EncodedVideo:
    """A video as it goes into a shard."""

    frames: list[bytes]
    """JPEG files, upright, all of one size."""
    times_T: NDArray[np.float64]
    """When each frame begins, in seconds; the first at 0."""
    duration: float
    """Seconds from the first frame to the end of the last."""
    height: int
    width: int
    frames_bad: int
    """Packets and frames of the source that did not decode or are marked corrupt."""

    @property
    def rate(self) -> float:
        """Average frames per second."""
        return measured_rate(self.times_T, 1.0 / self.duration)


def encode_video(path: Path, *, short_side: int, quality: int, limit: int = VIDEO_BYTES_LIMIT) -> EncodedVideo:
    """Return all frames of a video, its shorter side scaled down to ``short_side`` pixels, never up.

    Frames and times are those of ``decode_video``. Raises VideoError, also where the JPEG frames are more than
    ``limit`` bytes, and UserError where the computer has too little memory, which is no fault of the video.
    """
    painter = _ShrinkingPainter(short_side)
    encoder = _Encoder(painter, quality, limit)
    try:
        decoded = decode_in_order(path, encoder.encode, painter)
    except MemoryError:
        raise UserError(
            f"too little memory to decode {str(path)!r}; type the command again, with fewer --workers"
        ) from None
    except (OSError, ValueError) as error:
        raise VideoError("unreadable", f"{type(error).__name__}: {error}") from None
    height, width = encoder.shape[:2]
    return EncodedVideo(decoded.kept, decoded.times_T, decoded.duration, height, width, decoded.frames_bad)


class _ShrinkingPainter(Painter):
    """Keeps the size of videos that are smaller: blowing them up is cheaper after reading than in every byte read."""

    def fit(self, width: int, height: int) -> None:
        assert self.short_side is not None
        self.short_side = min(self.short_side, width, height)
        super().fit(width, height)


class _Encoder:
    """Makes JPEG files of frames, all of the first one's size."""

    def __init__(self, painter: Painter, quality: int, limit: int) -> None:
        self.painter, self.quality, self.limit = painter, quality, limit
        self.shape: tuple[int, ...] = ()
        self.bytes = 0

    def encode(self, frame: Any) -> bytes:
        """Return a frame of PyAV's as a JPEG file."""
        picture_HWC = np.ascontiguousarray(self.painter.paint(frame))
        self.shape = self.shape or picture_HWC.shape
        if picture_HWC.shape != self.shape:
            raise VideoError("refused", "its pictures are turned in the middle of the video")
        if max(self.shape) > JPEG_SIDE_LIMIT:
            raise VideoError("refused", f"{self.shape[1]}x{self.shape[0]} pixels are more than a JPEG file can hold")
        # The fast transform differs between processors; the slow one gives the same bits everywhere.
        content: bytes = simplejpeg.encode_jpeg(
            picture_HWC, quality=self.quality, colorspace="RGB", colorsubsampling="420", fastdct=False
        )
        self.bytes += len(content)
        if self.bytes > self.limit:
            raise VideoError("refused", f"its frames take more than {self.limit >> 20} MiB as JPEG")
        return content
