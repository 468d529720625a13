"""Frames and their times out of one video file, through PyAV, opening nothing but that file.

A file's name and content come from anywhere: the path is opened as `file:`, only the file protocol and a list of video
formats are allowed, and pictures of an absurd size are refused before memory is taken for them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,asf,flv,ogg,m4v,h264,hevc,ivf,mxf,apng"
MAX_PIXELS = 8192 * 4352  # an 8K picture; a larger one is taken for an attack
DEFAULT_RATE = 25.0


class VideoError(Exception):
    """A video that cannot be read. ``kind``: unreadable, refused, no-video or empty; ``text``: why, in one line."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, " ".join(text.split())

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return VideoError, (self.kind, self.text)  # so that a worker process can hand it on


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header claims; headers lie, only decoding tells."""

    frames: int
    """Number of frames, 0 where the header has none."""
    rate: float
    """Average frames per second."""
    width: int
    height: int
    """Stored size in pixels, before rotation."""
    seconds: float
    """Duration, 0 where the header has none."""
    codec: str


@dataclass(frozen=True)
class DecodedVideo:
    """Frames of a video in the order they are shown."""

    frames_TCHW: Tensor
    """uint8 RGB, upright."""
    times_T: NDArray[np.float64]
    """When each frame begins, in seconds; the first at 0."""
    rate: float
    """Average frames per second."""
    frames_bad: int = 0
    """Packets and frames that did not decode or are marked corrupt."""

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return float(self.times_T[-1]) + 1.0 / self.rate


def probe(path: str | Path) -> VideoInfo:
    """Return what the header says. Raises VideoError."""
    with _open(path) as (container, stream):
        context = stream.codec_context
        duration = container.duration / 1e6 if container.duration else 0.0
        return VideoInfo(stream.frames, _rate(stream), context.width, context.height, duration, context.name)


def decode_video(
    path: str | Path, *, short_side: int | None = None, wanted: Sequence[int] | None = None
) -> DecodedVideo:
    """Return all frames of the best video stream, or those at the ``wanted`` indices, in that order.

    ``short_side`` scales the frames so that the shorter side has this many pixels. A wanted frame beyond the last one
    that decodes is the last one, counted in ``frames_bad``. Times are the file's time stamps where they rise, else the
    count of frames over the average rate. Decoding stops at the last wanted frame, so the times of all frames are known
    only where all are asked for: see ``frame_times``. Raises VideoError.
    """
    needed = None if wanted is None else set(wanted)
    last = max(needed) if needed else None
    with _open(path) as (container, stream):
        reader = _Reader(container, stream)
        painter = _Painter(short_side)
        pictures: dict[int, NDArray[np.uint8]] = {}
        stamps: list[int | None] = []
        newest = None
        for index, frame in enumerate(reader.frames()):
            if newest is None:
                painter.fit(frame)
            stamps.append(frame.pts)
            newest = frame
            if needed is None or index in needed:
                pictures[index] = painter.paint(frame)
            if last is not None and index >= last:
                break
        if newest is None:
            raise VideoError("empty", "no frame decodes")
        rate, base = _rate(stream), float(stream.time_base or 0)
        bad, count = reader.bad, len(stamps)
        indices = list(range(count)) if wanted is None else [min(i, count - 1) for i in wanted]
        if count - 1 in indices and count - 1 not in pictures:
            pictures[count - 1] = painter.paint(newest)
    times_T = _times(stamps, base, rate)
    bad += sum(i >= count for i in wanted or ())
    frames_TCHW = torch.from_numpy(np.stack([pictures[i] for i in indices])).permute(0, 3, 1, 2).contiguous()
    return DecodedVideo(frames_TCHW, times_T[indices], _measured_rate(times_T, rate), bad)


def frame_times(path: str | Path) -> tuple[NDArray[np.float64], float]:
    """Return (times_T, duration) in seconds of all frames, without decoding where the time stamps allow it.

    Equal to those of ``decode_video`` for every sound file; a file with corrupt packets, where only decoding tells how
    many frames there are, may have more times than frames. Raises VideoError.
    """
    import av

    with _open(path) as (container, stream):
        try:
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        except (av.FFmpegError, IndexError):  # it ends in the middle of a packet, or one more stream begins
            packets = []
        stamps = [p.pts for p in packets if p.pts is not None]
        rate, base = _rate(stream), float(stream.time_base or 0)
        unique = bool(stamps) and len(set(stamps)) == len(packets)
        # A cut before a key frame leaves frames that refer to what is gone and are shown before it: HEVC drops them.
        whole = unique and stamps[0] == min(stamps)
        # In AVI the stamps are those of decoding, out of order where there are B-frames; VP8 has packets never shown.
        usable = whole and base > 0 and "avi" not in container.format.name and stream.codec_context.name != "vp8"
    if not usable:
        video = decode_video(path, short_side=16)
        return video.times_T, video.duration
    times_T = (np.sort(np.array(stamps, dtype=np.int64)) - min(stamps)) * base
    return times_T, float(times_T[-1]) + 1.0 / _measured_rate(times_T, rate)


@contextmanager
def _open(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Yield (container, best video stream), or raise VideoError."""
    import av

    if not Path(path).is_file():  # opening a pipe would wait for ever
        raise VideoError("refused" if Path(path).exists() else "unreadable", "there is no such regular file")
    # max_pixels here guards the first frames, which FFmpeg decodes while it opens a file; the decoder's own is below.
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS)}
    try:
        # Titles in old encodings are none of our business, and must not make a video unreadable.
        container = av.open("file:" + os.fspath(Path(path).absolute()), options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        kind = "refused" if _is_refusal(path) else "unreadable"
        raise VideoError(kind, _reason(error)) from None
    with container:
        stream = container.streams.best("video")
        if stream is not None and stream.disposition & av.stream.Disposition.attached_pic:  # the cover of a song
            stream = None
        context: Any = stream and stream.codec_context
        if context is None:
            raise VideoError("no-video", "the file holds no video stream that can be decoded")
        if context.width * context.height > MAX_PIXELS:
            raise VideoError("refused", f"{context.width}x{context.height} pixels are more than {MAX_PIXELS}")
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_count = 1
        yield container, stream


def _is_refusal(path: str | Path) -> bool:
    """Whether a file is a text that sends FFmpeg to other files: playlists and concatenation scripts."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return False
    return head.startswith((b"ffconcat", b"#EXTM3U", b"<?xml", b"<MPD", b"v=0", b"[playlist]", b"file "))


class _Reader:
    """Decoded frames of a stream; counts what does not decode and goes on."""

    def __init__(self, container: Any, stream: Any) -> None:
        self.container, self.stream, self.bad = container, stream, 0

    def frames(self) -> Iterator[Any]:
        """Yield frames in the decoder's output order, which is the order they are shown in."""
        import av

        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # the file ends in the middle of a packet
                self.bad += 1
                packet = None
            except IndexError:  # PyAV's answer to a packet of a stream that begins later, or of damage that looks so
                packets = self.container.demux(self.stream)
                continue
            if packet is not None and not packet.size:
                continue  # an empty packet would tell the decoder that the video ends here
            try:
                decoded = self.stream.decode(packet)
            except av.FFmpegError:
                self.bad += 1
                decoded = []
            for frame in decoded:
                self.bad += bool(frame.is_corrupt)
                yield frame
            if packet is None:
                return


class _Painter:
    """Converts frames to upright RGB arrays of one size, (H, W, 3) uint8."""

    def __init__(self, short_side: int | None) -> None:
        from av.video.reformatter import VideoReformatter

        self.short_side = short_side
        self.size = (0, 0)
        self.turns = 0
        self.reformatter = VideoReformatter()

    def fit(self, frame: Any) -> None:
        """Take size and rotation from the video's first frame, which need not be the first one that is wanted."""
        self.size = _scaled(frame.width, frame.height, self.short_side)
        self.turns = round((frame.rotation or 0) / 90) % 4  # quarters, counter-clockwise

    def paint(self, frame: Any) -> NDArray[np.uint8]:
        """Return one frame, scaled and turned as the first one is, whatever the size it is stored in."""
        width, height = self.size
        rgb = self.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BILINEAR", threads=1
        )
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), self.turns))


def _scaled(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    if short_side is None:
        return width, height
    factor = short_side / min(width, height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if math.prod(size) > MAX_PIXELS:  # a line of pixels, blown up
        raise VideoError("refused", f"{width}x{height} scaled to {size[0]}x{size[1]} pixels, more than {MAX_PIXELS}")
    return size


def _rate(stream: Any) -> float:
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if math.isfinite(rate) and rate > 0 else DEFAULT_RATE


def _times(stamps: list[int | None], base: float, rate: float) -> NDArray[np.float64]:
    """Return the stamps, in units of ``base`` seconds, from 0 on where all are there and rise, else counted frames.

    Counted frames are those of the average ``rate``.
    """
    if base > 0 and all(stamp is not None for stamp in stamps):
        ticks_T = np.array(stamps, dtype=np.int64)
        if (np.diff(ticks_T) > 0).all():
            return (ticks_T - ticks_T[0]) * base
    return np.arange(len(stamps)) / rate


def _measured_rate(times_T: NDArray[np.float64], rate: float) -> float:
    """Return the average rate of the frames that are there; the header's for a single one."""
    return (len(times_T) - 1) / float(times_T[-1]) if len(times_T) > 1 else rate


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
