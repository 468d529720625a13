"""Single clips out of a file, bit for bit those of a full decode: encoders of every kind, true files, damage."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pvnas.data.video import seek
from pvnas.data.video.decode import DecodedVideo, VideoError, decode_video
from pvnas.data.video.seek import PacketTable, read_frames

SIDE = 32


def moving(frames: int) -> NDArray[np.uint8]:
    """Return (T, H, W, C) frames of a texture that moves and changes: each differs from its neighbours."""
    texture = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    for _ in range(2):
        texture = (texture // 2 + np.roll(texture, 1, 0) // 4 + np.roll(texture, 1, 1) // 4).astype(np.uint8)
    return np.stack([np.roll(texture, (n, 2 * n), (0, 1))[:48, :64] // 2 + 2 * (n % 40) for n in range(frames)])


def encode(
    path: Path, codec: str, options: dict[str, str], *, frames: int = 70, stamps: list[int] | None = None
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number, image in enumerate(moving(frames).astype(np.uint8)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (stamps or range(10**6))[number], Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def assert_same_at(path: Path, whole: DecodedVideo, draws: int = 10, seed: int = 0) -> None:
    """Compare clips of three frames at random times with the frames of the full decode that are shown then."""
    draw = np.random.default_rng(seed)
    for _ in range(draws):
        instants = np.sort(draw.uniform(0, whole.duration, 3))

        def choose(
            times_T: NDArray[np.float64], duration: float, at: NDArray[np.float64] = instants
        ) -> NDArray[np.int64]:
            return np.searchsorted(times_T, at, side="right") - 1

        found = read_frames(path, choose, short_side=SIDE)
        assert torch.equal(found, whole.frames_TCHW[choose(whole.times_T, whole.duration)]), (path.name, instants)


X264 = "threads=1:log-level=none"
ENCODERS = {
    "gop12.mp4": ("libx264", {"g": "12"}),
    "one_key.mp4": ("libx264", {"g": "250"}),
    "pyramid.mkv": ("libx264", {"g": "30", "bf": "8", "x264-params": "b-pyramid=normal:b-adapt=0:ref=6"}),
    "strict_pyramid.mp4": ("libx264", {"g": "30", "bf": "3", "x264-params": "b-pyramid=strict"}),
    "open_gop.mp4": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}),
    "open_gop.ts": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}),
    "intra_refresh.mp4": ("libx264", {"g": "15", "x264-params": "intra-refresh=1:scenecut=0"}),
    "intra_refresh.mkv": ("libx264", {"g": "15", "x264-params": "intra-refresh=1:scenecut=0"}),
    "weighted.mp4": ("libx264", {"g": "20", "x264-params": "weightp=2:weightb=1:direct=temporal"}),
    "cavlc.mov": ("libx264", {"g": "10", "profile": "baseline"}),
    "hevc_open.mkv": ("libx265", {"x265-params": "open-gop=1:keyint=12:min-keyint=12:log-level=none:pools=none"}),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=20:bframes=4:log-level=none:pools=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"}),
    "vp8.webm": ("libvpx", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "av1.mkv": ("libsvtav1", {"g": "20", "preset": "12", "svtav1-params": "lp=1"}),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "plain.avi": ("mpeg4", {"g": "12", "bf": "0"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}),
    "mpeg1.mpg": ("mpeg1video", {"g": "12", "bf": "2"}),
    "mjpeg.avi": ("mjpeg", {}),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_any_frame_of_any_encoder_is_that_of_the_full_decode(tmp_path: Path, name: str) -> None:
    codec, options = ENCODERS[name]
    if codec not in av.codec.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    path = encode(tmp_path / name, codec, {**options, "threads": "1"})
    whole = decode_video(path, short_side=SIDE)
    assert len(whole.times_T) >= 68
    assert_same_at(path, whole)
    everything = read_frames(path, lambda times_T, duration: np.arange(len(times_T)), short_side=SIDE)
    assert torch.equal(everything, whole.frames_TCHW)


def test_an_avi_without_reordered_frames_is_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.avi", "mpeg4", {"g": "12", "bf": "0", "threads": "1"})
    whole = decode_video(path, short_side=SIDE).frames_TCHW
    monkeypatch.setattr(seek, "decode_in_order", None)
    assert torch.equal(
        read_frames(path, lambda times_T, duration: np.array([30, 50]), short_side=SIDE), whole[[30, 50]]
    )


def test_memory_stays_where_it_is_over_500_clips(tmp_path: Path) -> None:
    paths = [
        encode(tmp_path / name, codec, {**options, "threads": "1"})
        for name, (codec, options) in ENCODERS.items()
        if name in ("gop12.mp4", "mpeg4.avi", "vp9.webm")
    ]

    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc, which is not here")
    held = []
    for number in range(500):
        read_frames(paths[number % 3], lambda times_T, duration: np.array([5, 40]), short_side=SIDE)
        if number in (99, 499):
            held.append(pages())
    assert (held[1] - held[0]) * 4096 < 8 << 20


def test_uneven_stamps_rule_not_counts(tmp_path: Path) -> None:
    stamps = np.cumsum([1, 1, 5, 2, 9, 1, 30] * 10).tolist()
    path = encode(tmp_path / "vfr.mp4", "libx264", {"g": "12", "threads": "1"}, stamps=stamps)
    whole = decode_video(path, short_side=SIDE)
    assert len(np.unique(np.diff(whole.times_T).round(4))) > 3
    assert_same_at(path, whole, draws=20)


def test_repeated_and_unordered_indices_are_taken_as_they_come(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", {"g": "12", "threads": "1"})
    whole = decode_video(path, short_side=SIDE).frames_TCHW
    indices = np.array([40, 0, 7, 7, 33, 69, 1])
    assert torch.equal(read_frames(path, lambda times_T, duration: indices, short_side=SIDE), whole[indices])


def test_little_more_than_what_is_wanted_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", {"g": "12", "bf": "0", "sc_threshold": "0", "threads": "1"})
    runs: list[list[tuple[int, int]]] = []
    decode_runs = seek.decode_runs

    def spy(container, stream, packets, table, wanted, which, painter):  # type: ignore[no-untyped-def]
        runs.append(which)
        return decode_runs(container, stream, packets, table, wanted, which, painter)

    monkeypatch.setattr(seek, "decode_runs", spy)
    read_frames(path, lambda times_T, duration: np.array([2, 14, 17, 40]))
    assert runs == [[(0, 3), (12, 18), (36, 41)]]


def test_a_file_too_large_to_hold_is_sought_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seek, "HELD_BYTES", 1000)
    for name in ("gop12.mp4", "open_gop.mp4", "pyramid.mkv", "vp9.webm"):
        codec, options = ENCODERS[name]
        path = encode(tmp_path / name, codec, {**options, "threads": "1"})
        assert_same_at(path, decode_video(path, short_side=SIDE))


def test_pictures_too_many_to_hold_are_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seek, "HELD_PICTURES", 20_000)
    path = encode(tmp_path / "a.avi", "mpeg4", {"g": "12", "bf": "2", "threads": "1"})
    assert_same_at(path, decode_video(path, short_side=SIDE))


def test_in_a_damaged_file_the_last_frame_before_takes_the_place_of_what_does_not_decode(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", "libx264", {"g": "12", "threads": "1"})
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 900] = bytes(900)
    path.write_bytes(raw)
    whole = decode_video(path, short_side=SIDE)
    assert whole.frames_bad > 0 or len(whole.times_T) < 70
    assert_same_at(path, whole)


def test_a_file_cut_off_gives_what_is_left(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", "libx264", {"g": "12", "threads": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert_same_at(path, decode_video(path, short_side=SIDE))


def test_a_file_without_a_frame_says_so(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(VideoError, match="unreadable"):
        read_frames(tmp_path / "noise.mp4", lambda times_T, duration: np.array([0]))


def test_every_true_file_gives_the_frames_of_its_full_decode(shared_data: Path) -> None:
    files = [
        path for path in sorted((shared_data / "clips").iterdir()) if path.suffix not in (".md", ".txt", ".json", "")
    ]
    assert len(files) == 48
    for path in files:
        assert_same_at(path, decode_video(path, short_side=SIDE), draws=4)


# Which packets


@given(st.data())
def test_runs_begin_at_key_packets_and_hold_what_is_wanted(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 60))
    keys = sorted({0, *data.draw(st.sets(st.integers(0, n - 1), max_size=6))})
    stamps = np.arange(n) * 10
    for key in keys[1:]:  # some frames behind a key packet are shown before it
        for packet in range(key + 1, min(n, key + 1 + data.draw(st.integers(0, 2)))):
            if packet not in keys:
                stamps[packet] = key * 10 - 5 - (packet - key)
    wanted = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=8))
    table = PacketTable(stamps, np.array(keys), np.argsort(stamps), np.sort(stamps) / 10, n)
    runs = table.runs(wanted)
    assert all(first in keys for first, _ in runs)
    assert all(a_end <= b_first for (_, a_end), (b_first, _) in pairwise(runs))
    for packet in wanted:
        (run,) = [(first, end) for first, end in runs if first <= packet < end]
        if stamps[packet] < max(stamps[key] for key in keys if key <= packet):
            assert run[0] < max(key for key in keys if key <= packet)
    assert {end - 1 for _, end in runs} <= wanted
