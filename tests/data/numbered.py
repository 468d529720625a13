"""Videos whose frames tell their numbers, by how bright they are."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pvnas.data.video.decode import DecodedVideo

DARKEST, STEP = 20, 5
MOST = 44  # frames that can be told apart


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return the (H, W, C) frame of a number, darker at its right side."""
    image = np.full((height, width, 3), DARKEST + STEP * number, np.uint8)
    image[:, width // 2 :] -= 10
    return image


def write_numbered(
    path: Path,
    frames: int = 40,
    *,
    rate: int = 10,
    stamps: Sequence[int] | None = None,
    codec: str = "libx264",
    b_frames: int = 2,
) -> Path:
    """Write a video of so many frames a second; ``stamps``: when each begins, in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"bf": str(b_frames), "g": "8", "qp": "10", "threads": "1"}
        stream = container.add_stream(codec, rate=1000 if stamps else rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = stamps[number] if stamps else number
            frame.time_base = Fraction(1, 1000 if stamps else rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_dav(path: Path, source: Path) -> Path:
    """Write the H.264 of a file in chunks as the recorders of cameras (DVRs) do, each with a time in milliseconds."""
    content = bytearray()
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        to_units = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [unit for packet in container.demux(stream) if packet.size for unit in to_units.filter(packet)]
        for number, packet in enumerate(packets):
            extension = bytes([0x80, 0, stream.width // 8, stream.height // 8, 0x81, 0, 2, 25])  # size, H.264, rate
            length = 24 + len(extension) + packet.size + 8
            milliseconds = int(packet.pts * stream.time_base * 1000)
            date = 26 << 26 | 11 << 22 | 29 << 17 | 10 << 12 | milliseconds // 1000
            kind = 0xFD if packet.is_keyframe else 0xFC
            numbers = struct.pack("<IIIHBB", number, length, date, milliseconds % 65536, len(extension), 0)
            end = b"dhav" + struct.pack("<I", length)
            content += b"DHAV" + bytes([kind, 0, 0, 0]) + numbers + extension + bytes(packet) + end
    path.write_bytes(content)
    return path


def numbers_of(frames_TCHW: object) -> list[int]:
    """Return the number that each frame tells."""
    means_T = np.asarray(frames_TCHW).astype(np.float64).mean((1, 2, 3)) + 5
    return np.rint((means_T - DARKEST) / STEP).astype(int).tolist()


def told(video: DecodedVideo) -> list[tuple[float, int]]:
    """Return when each frame begins, in seconds, and its number."""
    numbers = numbers_of(video.frames_TCHW)
    return [(round(time, 6), number) for time, number in zip(video.times_T.tolist(), numbers, strict=True)]
