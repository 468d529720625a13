"""The golden table of bad videos, each made here with one fault, and real ones with theirs."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pvnas.data.catalog import Catalog, Video
from pvnas.data.check import Limits, check_videos
from pvnas.data.check.results import CheckResult
from pvnas.data.video.decode import decode_video

WINDOW_SECONDS = 64 / 30
OK, SHORT, PARTIAL, UNREADABLE, REFUSED = "ok", "short", "partial", "unreadable", "refused"


def write(
    path: Path,
    *,
    frames: int = 64,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container_format: str | None = None,
    stamps: list[int] | None = None,
    front: bool = False,
) -> Path:
    """Write frames of noise, all of them key frames, in the order of decoding, 30 a second."""
    options = {"movflags": "faststart"} if front else {}
    with av.open(os.fspath(path), "w", format=container_format or path.suffix[1:], options=options) as container:
        stream = container.add_stream(codec, rate=30, options={"g": "1", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for number in range(frames):
            container.mux(stream.encode(picture(number, size, (stamps or range(frames))[number])))
        container.mux(stream.encode())
    return path


def picture(number: int, size: tuple[int, int], stamp: int) -> av.VideoFrame:
    image = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame.pts, frame.time_base = stamp, Fraction(1, 30)
    return frame


def places(path: Path) -> list[tuple[int, int]]:
    """Return where each packet of a video begins and how long it is, in bytes."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def cut_index_in_front(path: Path) -> None:
    at, _ = places(write(path, front=True))[40]
    path.write_bytes(path.read_bytes()[:at])


def cut_index_at_the_end(path: Path) -> None:
    at, _ = places(write(path))[40]
    path.write_bytes(path.read_bytes()[:at])


def cut_without_count(path: Path) -> None:
    """Matroska has no count of frames; its duration tells what is missing."""
    at, _ = places(write(path, container_format="matroska"))[32]
    path.write_bytes(path.read_bytes()[: at - 16])


def flipped(path: Path) -> None:
    raw = bytearray(write(path).read_bytes())
    for number in (20, 40):
        raw[places(path)[number][0]] ^= 0x80  # the length of what follows
    path.write_bytes(raw)


def no_frames(path: Path) -> None:
    """A video whose frames are all cut off; AVI says what it is before them."""
    at, _ = places(write(path))[0]
    path.write_bytes(path.read_bytes()[:at])


def rotated(degrees: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        raw = bytearray(write(path).read_bytes())
        one = 1 << 16
        turn = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
        at = raw.index(b"tkhd") + 4 + 40
        assert struct.unpack_from(">9i", raw, at) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
        struct.pack_into(">9i", raw, at, turn[0], turn[1], 0, turn[2], turn[3], 0, 0, 0, 1 << 30)
        path.write_bytes(raw)

    return make


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def two_streams(path: Path) -> None:
    with av.open(str(path), "w") as container:
        streams = []
        for size in ((32, 32), (96, 64)):
            stream = container.add_stream("libx264", rate=30, options={"threads": "1"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            streams.append(stream)
        streams[1].disposition = av.stream.Disposition.default
        for number in range(64):
            for stream in streams:
                container.mux(stream.encode(picture(number, (stream.width, stream.height), number)))
        for stream in streams:
            container.mux(stream.encode())


def resized(path: Path) -> None:
    parts = [
        write(path.with_name(f"part{number}.h264"), frames=32, size=size)
        for number, size in enumerate([(64, 48), (96, 96)])
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def lying(path: Path) -> None:
    """An AVI whose header claims 100 of its 64 frames."""
    raw = bytearray(write(path).read_bytes())
    stream = raw.index(b"strh") + 8 + 32
    assert struct.unpack_from("<I", raw, stream) == (64,)
    struct.pack_into("<I", raw, stream, 100)
    path.write_bytes(raw)


def not_utf8(path: Path) -> None:
    write(path, container_format="mp4")


def gif(path: Path, width: int = 1, height: int = 1) -> None:
    """Write a picture of nearly no bytes that claims to be of this size."""
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    head = b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0" + size
    path.write_bytes(head + b"\0\x02\x02\x4c\x01\0\x3b")


UNEVEN = [number + number // 7 for number in range(64)]
NOTHING: dict[str, Any] = {"frames": 0, "width": 0, "height": 0, "codec": ""}
WHOLE: dict[str, Any] = {
    "detail": "",
    "frames": 64,
    "rotation": 0,
    "width": 64,
    "height": 48,
    "variable_rate": False,
    "resized": False,
    "seconds": pytest.approx(WINDOW_SECONDS, abs=0.002),
}
# name -> (how it is made, verdict, what else must be said of it)
GOLDEN: dict[str, tuple[Callable[[Path], object], str, dict[str, Any]]] = {
    "whole.mp4": (write, OK, WHOLE | {"codec": "h264", "claimed": 64, "rate": 30.0}),
    "empty.mp4": (Path.touch, UNREADABLE, NOTHING),
    "noise.mp4": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), UNREADABLE, NOTHING),
    "cut_front.mp4": (cut_index_in_front, PARTIAL, {"frames": 40, "claimed": 64}),
    "cut_end.mp4": (cut_index_at_the_end, UNREADABLE, NOTHING),
    "cut.mkv": (cut_without_count, PARTIAL, {"frames": 32, "claimed": 64}),
    "flipped.mp4": (flipped, PARTIAL, {"frames": 62, "claimed": 64}),
    "no_frames.avi": (no_frames, "empty", NOTHING),
    "f1.mp4": (
        lambda path: write(path, frames=1),
        SHORT,
        WHOLE | {"frames": 1, "detail": "1 frame, 0.033 s", "seconds": pytest.approx(1 / 30, abs=1e-6)},
    ),
    "f63.mp4": (lambda path: write(path, frames=63), SHORT, {"frames": 63, "detail": "63 frames, 2.100 s"}),
    "f64.mp4": (lambda path: write(path, frames=64), OK, WHOLE),
    "uneven.mp4": (lambda path: write(path, stamps=UNEVEN), OK, {"frames": 64, "variable_rate": True, "claimed": 64}),
    "rounded.mkv": (lambda path: write(path, container_format="matroska"), OK, WHOLE),
    "odd.webm": (lambda path: write(path, size=(65, 49), codec="libvpx-vp9"), OK, WHOLE | {"width": 65, "height": 49}),
    "pixel.gif": (gif, SHORT, {"frames": 1, "width": 1, "height": 1}),
    "r90.mp4": (rotated(90), OK, WHOLE | {"rotation": 90, "width": 48, "height": 64}),
    "r180.mp4": (rotated(180), OK, WHOLE | {"rotation": 180}),
    "r270.mp4": (rotated(270), OK, WHOLE | {"rotation": 270, "width": 48, "height": 64}),
    "audio.mp4": (audio_only, "no-video", NOTHING),
    "two.mp4": (two_streams, OK, WHOLE | {"width": 96, "height": 64}),
    "resized.h264": (resized, OK, {"frames": 64, "width": 64, "height": 48, "resized": True}),
    "lying.avi": (lying, PARTIAL, {"frames": 64, "claimed": 100, "detail": "64 of 100 frames decode"}),
    "ten_bit.mp4": (lambda path: write(path, codec="libx265", pix_fmt="yuv420p10le"), OK, WHOLE | {"codec": "hevc"}),
    os.fsdecode(b"caf\xe9.mp4"): (not_utf8, OK, WHOLE),
    "12:30.mp4": (write, OK, WHOLE),
    "missing.mp4": (lambda path: None, "missing", NOTHING),
    "pipe.mp4": (os.mkfifo, REFUSED, NOTHING),
    "folder.mp4": (Path.mkdir, "empty", NOTHING),
    "playlist.mp4": (lambda path: path.write_text("ffconcat version 1.0\nfile whole.mp4\n"), REFUSED, NOTHING),
}


def catalog_of(root: Path, names: list[str]) -> Catalog:
    return Catalog.of(root, ("a", "b"), tuple(Video(name, number % 2, "train") for number, name in enumerate(names)))


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("golden")
    for name, (make, _, _) in GOLDEN.items():
        make(root / name)
    return catalog_of(root, list(GOLDEN))


@pytest.fixture(scope="module")
def found(golden: Catalog) -> list[CheckResult]:
    return check_videos(golden, Limits(workers=2), shortest_seconds=WINDOW_SECONDS)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_table_of_bad_videos(found: list[CheckResult], name: str) -> None:
    verdict = asdict(next(each for each in found if each.path == name))
    _, kind, facts = GOLDEN[name]
    print(verdict)
    assert verdict["verdict"] == kind
    assert {field: verdict[field] for field in facts} == facts
    assert verdict["detail"] or kind == OK
    if kind == PARTIAL:
        assert verdict["detail"].startswith(f"{verdict['frames']} of ")


def test_two_scans_are_identical_and_touch_no_video(golden: Catalog, found: list[CheckResult], tmp_path: Path) -> None:
    def contents() -> dict[str, tuple[str, int]]:
        files = [path for path in sorted(golden.root.iterdir()) if path.is_file()]
        return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}

    before = contents()
    for number, workers in enumerate((1, 3)):
        folder = tmp_path / str(number)
        assert check_videos(golden, Limits(workers), out=folder, shortest_seconds=WINDOW_SECONDS) == found
    for name in ("verdicts.json", "verdicts.csv"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    assert contents() == before


def test_the_check_counts_what_training_decodes(golden: Catalog, found: list[CheckResult]) -> None:
    for verdict in found:
        if verdict.usable:
            video = decode_video(golden.root / verdict.path)
            height, width = video.frames_TCHW.shape[2:]
            assert (len(video.frames_TCHW), width, height) == (verdict.frames, verdict.width, verdict.height)
            assert video.duration == pytest.approx(verdict.seconds, abs=1e-5)


# What is odd in the files of the shared set: name -> (verdict, frames).
ODD_CLIPS = {
    "decord_corrupted.mp4": (PARTIAL, 49),  # of 50: what follows the corrupt packets is read on
    "jhmdb_FOOT_2009_(REMI_GAILLARD)_kick_ball_f_cm_np1_ba_bad_2.avi": (PARTIAL, 40),
    "jhmdb_Golf_Swing_@6Iron_golf_f_cm_np1_fr_med_0.avi": (PARTIAL, 40),
    "jhmdb_RATRACE_wave_f_nm_np1_ri_med_10.avi": (PARTIAL, 18),
}
UNEVEN_CLIPS = {
    "imageio_newtonscradle.gif",
    "mmaction2_demo_skeleton.mp4",
    "mmaction2_part_0.mp4",
    "torchcodec_var_fps_video.mp4",
    "wlasl_sunday_55768.mp4",
    *ODD_CLIPS,  # each has a gap where frames are missing
}


def test_the_shared_files_are_what_their_table_says(shared_data: Path) -> None:
    root = shared_data / "clips"
    row = re.compile(r"^\| (\S.*?) \| \d+ \|[^|]*\| (\d+)x(\d+), [^|]*\| (\d+)/(\d+) \|", re.MULTILINE)
    table = {name: tuple(map(int, rest)) for name, *rest in row.findall((root / "README.md").read_text())}
    assert len(table) == 48
    turned = {"decord_video_90.mov": 90, "decord_video_180.mov": 180, "decord_video_270.mov": 270}
    verdicts = check_videos(catalog_of(root, list(table)), Limits(workers=2))
    for verdict in verdicts:
        width, height, claimed, frames = table[verdict.path]
        kind, frames = ODD_CLIPS.get(verdict.path, (OK, frames))
        rotation = turned.get(verdict.path, 0)
        shown = (height, width) if rotation % 180 else (width, height)
        assert (verdict.verdict, verdict.frames) == (kind, frames), verdict
        assert (verdict.claimed, verdict.rotation, verdict.width, verdict.height) == (
            claimed or frames,
            rotation,
            *shown,
        )
        assert verdict.variable_rate == (verdict.path in UNEVEN_CLIPS), verdict
