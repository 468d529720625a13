"""Every ending that is listed as a video's is read as one, and so is the same file without an ending."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numbered import write_dav, write_numbered

from pvnas.data.listing.first_bytes import COMPANIONS, begins_as_video
from pvnas.data.listing.registry import VIDEO_ENDINGS
from pvnas.data.video.decode import open_video
from pvnas.data.video.pictures import PICTURE_ENDINGS

# The container of each ending, by FFmpeg's name, and a codec that it takes.
CONTAINERS = {
    ("mp4", "mpeg4"): ".3g2 .3gp .3gp2 .3gpp .f4v .insv .ismv .lrv .m4v .mj2 .mov .mp4 .mp4v .mqv .qt",
    ("matroska", "mpeg4"): ".mk3d .mkv .webm",
    ("avi", "mpeg4"): ".amv .avi .divx .xvid",
    ("mpeg", "mpeg1video"): ".m2p .mod .mpe .mpeg .mpg .tod .vob .vro",
    ("mpegts", "mpeg2video"): ".m2t .m2ts .mts .tp .trp .ts",
    ("mpeg1video", "mpeg1video"): ".m1v .mpv",
    ("mpeg2video", "mpeg2video"): ".m2v .mp2v",
    ("h264", "libx264"): ".264 .avc .h264",
    ("hevc", "libx265"): ".265 .h265 .hevc",
    ("asf", "mpeg4"): ".asf .dvr-ms .wm .wmv",
    ("flv", "flv1"): ".flv",
    ("gif", "gif"): ".gif",
    ("apng", "apng"): ".apng",
    ("ivf", "libvpx"): ".ivf",
    ("mxf", "mpeg2video"): ".mxf",
    ("ogg", "libtheora"): ".ogm .ogv",
    ("dhav", "libx264"): ".dav",
    ("yuv4mpegpipe", "rawvideo"): ".y4m",
    ("dv", "dvvideo"): ".dif .dv",
    ("obu", "libsvtav1"): ".obu",
    ("rm", "rv10"): ".rm .rmvb",
    ("wtv", "mpeg2video"): ".wtv",
}
SIZES = {"dvvideo": (720, 576), "rv10": (176, 144)}
PIXELS = {"gif": "rgb8", "apng": "rgb24"}


def write_video(path: Path, format: str, codec: str) -> None:
    """Write five frames of noise, or skip where this FFmpeg has no such encoder."""
    if format == "dhav":
        write_dav(path, write_numbered(path.with_suffix(".mp4"), 5, rate=25))
        return
    width, height = SIZES.get(codec, (64, 48))
    try:
        with av.open(str(path), "w", format=format) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, PIXELS.get(codec, "yuv420p")
            for number in range(5):
                picture = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        pytest.skip(f"this FFmpeg writes no {codec}: {error}")


@pytest.mark.parametrize(("format", "codec"), CONTAINERS)
def test_each_ending_is_one_that_is_read(tmp_path: Path, format: str, codec: str) -> None:
    bare = tmp_path / "no_ending"
    write_video(bare, format, codec)
    assert begins_as_video(bare)
    for ending in CONTAINERS[format, codec].split():
        file = tmp_path / f"video{ending}"
        file.write_bytes(bare.read_bytes())
        with open_video(file) as (container, stream):
            assert sum(1 for _ in container.decode(stream)) == 5


def test_no_ending_is_forgotten_and_none_is_two_things() -> None:
    assert sorted(" ".join(CONTAINERS.values()).split()) == sorted(VIDEO_ENDINGS)
    assert not COMPANIONS & set(VIDEO_ENDINGS)
    assert set(PICTURE_ENDINGS) <= COMPANIONS
