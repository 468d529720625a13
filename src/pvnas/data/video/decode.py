"""A video file opened without opening anything else, and decoded whole, however damaged it is.

A file's name and content come from anywhere: the path is opened as `file:`, only the file protocol and a list of video
formats are allowed, and pictures of an absurd size are refused before memory is taken for them. Whole videos are
tensors: frames in the order they are shown, upright, with their times. torch is imported for those alone: the processes
that check videos start quickly and stay small.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# None of them opens another file.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,asf,flv,ogg,m4v,h264,hevc,ivf,mxf,apng,"
    "dhav,yuv4mpegpipe,dv,obu,rm,wtv"
)
MAX_PIXELS = 8192 * 4352  # an 8K picture; a larger one is taken for an attack
DEFAULT_RATE = 25.0
LONGER_SECONDS = 60.0


class VideoError(Exception):
    """A video that cannot be read. ``kind``: unreadable, refused, no-video or empty; ``text``: why, in one line."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, " ".join(text.split())

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.kind, self.text)  # so that a worker process can hand it on


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Yield PyAV's (container, best video stream). Raises VideoError.

    Damage that claims a table of gigabytes is FFmpeg's "Cannot allocate memory", and unreadable as any other.
    """
    import av

    if not Path(path).is_file():  # opening a pipe would wait for ever
        raise VideoError("refused" if Path(path).exists() else "unreadable", "there is no such regular file")
    # max_pixels here guards the first frames, which FFmpeg decodes while it opens a file; the decoder's own is below.
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS)}
    try:
        # Titles in old encodings are none of our business, and must not make a video unreadable.
        container = av.open("file:" + os.fspath(Path(path).absolute()), options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        kind = "refused" if is_playlist(path) else "unreadable"
        raise VideoError(kind, reason(error)) from None
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


def is_playlist(path: str | Path) -> bool:
    """Return whether a file is a text that sends FFmpeg to other files: playlists and concatenation scripts."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return False
    return head.startswith((b"ffconcat", b"#EXTM3U", b"<?xml", b"<MPD", b"v=0", b"[playlist]", b"file "))


OnLength = Callable[[float], None]
"""Told how many seconds a video is long before it is decoded, and again for each minute that it goes on after that."""


class FrameReader:
    """Decoded frames of a stream; counts what does not decode and goes on."""

    def __init__(self, container: Any, stream: Any, on_length: OnLength = lambda seconds: None) -> None:
        self.container, self.stream, self.on_length = container, stream, on_length
        self.bad = 0  # packets and frames that did not decode or are marked corrupt
        self.hidden = 0  # packets that an edit list says not to show

    def frames(self) -> Iterator[Any]:
        """Yield frames in the decoder's output order, which is the order they are shown in."""
        import av

        length, rate, shown = longest_claim(self.container, self.stream), average_rate(self.stream), 0
        self.on_length(length)
        packets, ended = self.container.demux(self.stream), False
        while not ended:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # the file ends in the middle of a packet
                self.bad += 1
                packet = None
            except IndexError:  # PyAV's answer to a packet of a stream that begins later, or of damage that looks so
                packets = self.container.demux(self.stream)
                continue
            ended = packet is None
            if packet is not None:
                if not packet.size:
                    continue  # it would tell the decoder that the video ends here
                self.hidden += packet.is_discard
            try:
                decoded = self.stream.decode(packet)
            except av.FFmpegError:
                self.bad += 1
                continue
            for frame in decoded:
                self.bad += bool(frame.is_corrupt)
                shown += 1
                if shown > (length + LONGER_SECONDS) * rate:
                    length = shown / rate
                    self.on_length(length)
                yield frame


def average_rate(stream: Any) -> float:
    """Return the header's frames per second, or a usual rate where it says nothing sensible."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if math.isfinite(rate) and rate > 0 else DEFAULT_RATE


def longest_claim(container: Any, stream: Any) -> float:
    """Return how many seconds the video is long, 0 where the header does not say: the longest of what it says."""
    own = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    counted = stream.frames / average_rate(stream)
    return max(own, counted, (container.duration or 0) / 1e6, 0.0)


def reason(error: Exception) -> str:
    """Return FFmpeg's words for an error, without the file's name."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


# ---- whole videos


@dataclass(frozen=True)
class DecodedVideo:
    """Frames of a video in the order they are shown."""

    frames_TCHW: "Tensor"  # uint8, upright; RGB, or grey levels alone
    times_T: NDArray[np.float64]  # when each frame begins, in seconds; the first at 0
    duration: float  # seconds from the first frame to the end of the last
    frames_bad: int = 0  # packets and frames that did not decode or are marked corrupt

    @property
    def rate(self) -> float:
        """Average frames per second."""
        return actual_rate(self.times_T, 1.0 / self.duration)

    def to(self, device: "torch.device") -> Self:
        """Return the video with its frames on a device."""
        return replace(self, frames_TCHW=self.frames_TCHW.to(device))


def claimed_size(path: str | Path) -> tuple[int, int, int]:
    """Return the number of frames, 0 where the header has none, and their height and width before rotation.

    Headers lie, only decoding tells. Raises VideoError.
    """
    with open_video(path) as (container, stream):
        frames = stream.frames or round((container.duration or 0) / 1e6 * average_rate(stream))
        return frames, stream.codec_context.height, stream.codec_context.width


def decode_video(path: str | Path, *, short_side: int | None = None) -> DecodedVideo:
    """Return all frames of the best video stream.

    ``short_side`` scales the frames so that the shorter side has this many pixels. Times are the file's time stamps
    where they rise, else the count of frames over the average rate. Raises VideoError.
    """
    painter = Painter(short_side)
    decoded = decode_in_order(path, painter.paint, painter)
    return DecodedVideo(stacked(decoded.items), *decoded[1:])


class InOrder(NamedTuple):
    """What a decode from the first frame to the last has shown: what was made of each frame, and a `DecodedVideo`'s."""

    items: list[Any]
    times_T: NDArray[np.float64]
    duration: float
    frames_bad: int


def decode_in_order(
    path: str | Path,
    make: Callable[[Any], Any],
    painter: "Painter",
    on_length: OnLength = lambda seconds: None,
) -> InOrder:
    """Decode a file from its first frame to its last; ``make`` makes an item of each frame. Raises VideoError."""
    items: list[Any] = []
    stamps: list[int | None] = []
    with open_video(path) as (container, stream):
        reader = FrameReader(container, stream, on_length)
        for frame in reader.frames():
            if not stamps:
                painter.fit(frame.width, frame.height)
            stamps.append(frame.pts)
            items.append(make(frame))
        rate, base = average_rate(stream), float(stream.time_base or 0)
    if not stamps:
        raise VideoError("empty", "no frame decodes")
    times_T = shown_times(stamps, base, rate)
    duration = float(times_T[-1]) + 1.0 / actual_rate(times_T, rate)
    return InOrder(items, times_T, duration, reader.bad)


def stacked(pictures: list[NDArray[np.uint8]]) -> "Tensor":
    """Return pictures (H, W, C) as (T, C, H, W), a view of (T, H, W, C) in memory: what resizing is fastest on."""
    return channels_first(np.stack(pictures))


def channels_first(frames_THWC: NDArray[np.uint8]) -> "Tensor":
    """Return frames as a tensor (T, C, H, W), a view of the array."""
    import torch

    return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)


def in_colours(frames_TCHW: "Tensor", colours: int) -> "Tensor":
    """Return RGB frames as they are, with ``colours`` 1 the means (T, 1, H, W) of red, green and blue, rounded."""
    if colours == 3:
        return frames_TCHW
    import torch

    sums = frames_TCHW.sum(1, keepdim=True, dtype=torch.int16)
    return sums.add_(1).div_(3, rounding_mode="floor").to(torch.uint8)


class Painter:
    """Converts frames to upright RGB arrays of one size, (H, W, 3) uint8.

    ``enlarges``: whether a video whose shorter side has fewer pixels than ``short_side`` is scaled up to it.
    """

    def __init__(self, short_side: int | None, *, enlarges: bool = True) -> None:
        from av.video.reformatter import VideoReformatter

        self.short_side, self.enlarges = short_side, enlarges
        self.size = (0, 0)
        self.turns: int | None = None  # quarters, counter-clockwise
        self.reformatter = VideoReformatter()

    def fit(self, width: int, height: int) -> None:
        """Take the size of the video's first frame: a later one of another size is scaled to it."""
        short_side, self.turns = self.short_side, None
        if short_side is None or (not self.enlarges and short_side > min(width, height)):
            self.size = width, height
            return
        factor = short_side / min(width, height)
        self.size = max(1, round(width * factor)), max(1, round(height * factor))
        if math.prod(self.size) > MAX_PIXELS:  # a line of pixels, blown up
            scaled = "{}x{}".format(*self.size)
            raise VideoError("refused", f"{width}x{height} scaled to {scaled} pixels, more than {MAX_PIXELS}")

    def paint(self, frame: Any) -> NDArray[np.uint8]:
        """Return one frame upright, scaled and turned as the first one is, whatever it says of itself."""
        width, height = self.size
        rgb = self.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BILINEAR", threads=1
        )
        if self.turns is None:
            self.turns = round((frame.rotation or 0) / 90) % 4
        return np.rot90(rgb.to_ndarray(), self.turns)


def shown_times(stamps: list[int | None], base: float, rate: float) -> NDArray[np.float64]:
    """Return the stamps, in units of ``base`` seconds, from 0 on where all are there and rise, else counted frames.

    Counted frames are those of the average ``rate``.
    """
    if base > 0 and all(stamp is not None for stamp in stamps):
        ticks_T = np.array(stamps, dtype=np.int64)
        if (np.diff(ticks_T) > 0).all():
            return (ticks_T - ticks_T[0]) * base
    return np.arange(len(stamps)) / rate


def actual_rate(times_T: NDArray[np.float64], rate: float) -> float:
    """Return the average rate of the frames that are there; the header's for a single one."""
    return (len(times_T) - 1) / float(times_T[-1]) if len(times_T) > 1 else rate
