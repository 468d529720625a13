"""Containers beyond the usual ones: each frame of a clip is that of the full decode, segments and checks alike."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import numbers_of, picture, write_dav, write_numbered

from pvnas.data.check.examine import examine
from pvnas.data.video.decode import decode_video
from pvnas.data.video.footage import Footage

FORMATS = {
    "a.y4m": ("yuv4mpegpipe", "rawvideo", (64, 48)),
    "a.dv": ("dv", "dvvideo", (720, 576)),
    "a.obu": ("obu", "libsvtav1", (64, 48)),
    "a.rm": ("rm", "rv10", (176, 144)),
    "a.wtv": ("wtv", "mpeg2video", (64, 48)),
    "a.h264": ("h264", "libx264", (64, 48)),
    "a.hevc": ("hevc", "libx265", (64, 48)),
    "a.dav": ("dhav", "", (64, 48)),
    "reordered.dav": ("dhav", "bf", (64, 48)),
}


def write(path: Path) -> Path:
    format, codec, (width, height) = FORMATS[path.name]
    if format == "dhav":
        source = write_numbered(path.with_suffix(".mp4"), 20, rate=25, b_frames=2 if codec else 0)
        return write_dav(path, source)
    if codec not in av.codec.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_clips_segments_and_checks_agree(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert numbers_of(decode_video(path).frames_TCHW) == list(range(20))
    clip = Footage(path).frames(lambda times_T, duration: np.array([len(times_T) - 1, 3, 11]))
    assert numbers_of(clip) == [19, 3, 11]
    assert numbers_of(Footage(path, 0.2, 0.4).whole().frames_TCHW) == [5, 6, 7, 8, 9]
    found = examine(path)
    assert (found.verdict, found.frames, round(found.seconds, 2)) == ("ok", 20, 0.8)
