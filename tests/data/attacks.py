"""What attacks are made of, and what catches them: bombs of pixels, and a watch on the files that anybody opens."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

import av
import pytest


class Watch:
    """Tells which files of some folders anybody has opened (inotify)."""

    def __init__(self, *folders: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK)
        if self._handle < 0:
            pytest.skip("this system does not tell who opens files")
        self._folders = {self._libc.inotify_add_watch(self._handle, os.fsencode(each), 0x20): each for each in folders}

    def opened(self) -> set[Path]:
        """Return what has been opened since the last question."""
        found = set()
        try:
            while data := os.read(self._handle, 1 << 16):
                at = 0
                while at < len(data):
                    number, _, _, length = struct.unpack_from("iIII", data, at)
                    name = data[at + 16 : at + 16 + length].rstrip(b"\0")
                    found.add(self._folders[number] / os.fsdecode(name))
                    at += 16 + length
        except BlockingIOError:
            return found

    def close(self) -> None:
        os.close(self._handle)


def huge_video(path: Path) -> Path:
    """Write a black H.264 picture of 8192 x 8192 pixels in less than 200 KB."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width = stream.height = 8192
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        frame = av.VideoFrame(8192, 8192, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert path.stat().st_size < 200_000
    return path


def lying_video(huge: Path, path: Path) -> Path:
    """Write the video again with a container that says 64 x 64; the stream inside does not."""
    raw = bytearray(huge.read_bytes())
    at = raw.index(b"avc1", raw.index(b"stsd")) + 28
    assert raw[at : at + 4] == b"\x20\x00\x20\x00"
    raw[at : at + 4] = b"\x00\x40\x00\x40"
    path.write_bytes(raw)
    return path
