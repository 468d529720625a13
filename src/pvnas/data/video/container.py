"""A video file opened without opening anything else, and its frames one by one, however damaged it is.

A file's name and content come from anywhere: the path is opened as `file:`, only the file protocol and a list of video
formats are allowed, and pictures of an absurd size are refused before memory is taken for them. No torch here: the
processes that check videos start quickly and stay small.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


class FrameReader:
    """Decoded frames of a stream; counts what does not decode and goes on."""

    def __init__(self, container: Any, stream: Any) -> None:
        self.container, self.stream = container, stream
        self.bad = 0
        """Packets and frames that did not decode or are marked corrupt."""
        self.hidden = 0
        """Packets that an edit list says not to show."""

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
            yield from self._decoded(packet)
            if packet is None:
                return

    def _decoded(self, packet: Any) -> Iterator[Any]:
        import av

        self.hidden += packet is not None and packet.is_discard
        try:
            decoded = self.stream.decode(packet)
        except av.FFmpegError:
            self.bad += 1
            return
        for frame in decoded:
            self.bad += bool(frame.is_corrupt)
            yield frame


def average_rate(stream: Any) -> float:
    """Return the header's frames per second, or a usual rate where it says nothing sensible."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if math.isfinite(rate) and rate > 0 else DEFAULT_RATE


def reason(error: Exception) -> str:
    """Return FFmpeg's words for an error, without the file's name."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
