"""The check of all videos: a golden table of bad files, its lists, and when it refuses to go on."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pvnas.data.catalog import Catalog
from pvnas.data.prepare import Verdict, check_videos, inert, read_verdicts, summary, usable, write_verdicts
from pvnas.data.readers import read_catalog
from pvnas.data.shapes import draw_video, encode
from pvnas.data.table import Video
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress


def good(path: Path, frames: int = 32) -> None:
    encode(path, draw_video("grow", np.random.default_rng(0), frames=frames))


def long_coded(path: Path) -> None:
    """Write 60 noisy frames with the index at the front, so that what is cut off are frames alone."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), np.uint8)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "20", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 10
        for image in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def truncated(path: Path) -> None:
    long_coded(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def without_index(path: Path) -> None:
    good(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def audio_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def playlist(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile good.mp4\n")


# name -> (how it is made, verdict)
GOLDEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "audio.mp4": (audio_only, "no-video"),
    "cut.mp4": (truncated, "partial"),
    "empty.mp4": (Path.touch, "unreadable"),
    "good.mp4": (good, "ok"),
    "missing.mp4": (lambda path: None, "unreadable"),
    "no_index.mp4": (without_index, "unreadable"),
    "noise.mp4": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "unreadable"),
    "one_frame.mp4": (lambda path: good(path, frames=1), "short"),
    "playlist.mp4": (playlist, "refused"),
}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("golden")
    for name, (make, _) in GOLDEN.items():
        make(root / name)
    return Catalog.of(root, ("a", "b"), tuple(Video(name, number % 2, "train") for number, name in enumerate(GOLDEN)))


def digests(catalog: Catalog) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(catalog.root.iterdir())}


def test_the_golden_table_of_bad_videos(golden: Catalog) -> None:
    before = digests(golden)
    verdicts = check_videos(golden, workers=2)
    assert {each.path: each.verdict for each in verdicts} == {name: kind for name, (_, kind) in GOLDEN.items()}
    assert all(each.detail for each in verdicts if each.verdict != "ok")
    assert digests(golden) == before  # no video was touched


def test_what_is_known_of_each_video(golden: Catalog) -> None:
    verdicts = {each.path: each for each in check_videos(golden, workers=1)}
    assert verdicts["good.mp4"] == Verdict("good.mp4", "ok", "", 32, 30.0, 64, 64, pytest.approx(32 / 30, abs=1e-4))
    assert 20 <= verdicts["cut.mp4"].frames < 57
    assert "60" in verdicts["cut.mp4"].detail
    assert (verdicts["cut.mp4"].width, verdicts["cut.mp4"].height) == (96, 64)
    assert verdicts["one_frame.mp4"].frames == 1
    assert verdicts["noise.mp4"].frames == 0


def test_verdicts_come_in_the_order_of_the_catalog_whatever_the_threads(golden: Catalog) -> None:
    with Progress(io.StringIO()) as progress:  # what the program uses, so that the two fit each other
        first = check_videos(golden, workers=1, progress=progress)
    assert [each.path for each in first] == list(GOLDEN)
    assert check_videos(golden, workers=4) == first


def test_a_video_below_the_asked_length_is_short(golden: Catalog) -> None:
    only_good = golden.without(set(GOLDEN) - {"good.mp4"})
    assert check_videos(only_good, workers=1, shortest_seconds=32 / 30)[0].verdict == "ok"
    verdict = check_videos(only_good, workers=1, shortest_seconds=64 / 30)[0]
    assert verdict.verdict == "short"
    assert verdict.usable


def test_the_lists_are_written_and_inert(tmp_path: Path) -> None:
    verdicts = [
        Verdict('=cmd("x").mp4', "unreadable", "@sum\x1b[31m\nred"),
        Verdict("a,b.mp4", "ok", "", 3, 29.97, 4, 6, 0.1),
        Verdict("name\udcff.mp4", "empty", "-1"),
    ]
    write_verdicts(verdicts, tmp_path / "run")
    assert read_verdicts(tmp_path / "run" / "verdicts.json") == verdicts
    with (tmp_path / "run" / "verdicts.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "verdict", "detail", "frames", "rate", "width", "height", "seconds"]
    assert rows[1][:3] == ['\'=cmd("x").mp4', "unreadable", "'@sum\\x1b[31m\\x0ared"]
    assert rows[2] == ["a,b.mp4", "ok", "", "3", "29.97", "4", "6", "0.1"]
    assert rows[3][:3] == ["name\\udcff.mp4", "empty", "'-1"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["verdicts.csv", "verdicts.json"]
    write_verdicts(verdicts, tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_bytes() == (tmp_path / "run" / "verdicts.json").read_bytes()


@pytest.mark.parametrize("text", ["", "[1]", '[{"path": "a"}]', "{}x", '[{"path": "a", "verdict": "fine"}]'])
def test_a_list_that_is_not_ours_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "verdicts.json").write_text(text)
    with pytest.raises(UserError, match="delete it"):
        read_verdicts(tmp_path / "verdicts.json")


@pytest.mark.parametrize(
    "cell, shown", [("=1+1", "'=1+1"), ("+1", "'+1"), ("\t=1", "\\x09=1"), (-1.5, "-1.5"), ("a-b", "a-b"), ("", "")]
)
def test_cells(cell: object, shown: str) -> None:
    assert inert(cell) == shown


def catalog_of(videos: int) -> Catalog:
    return Catalog.of(
        Path("set"),
        ("run", "jump"),
        tuple(Video(f"{n}.mp4", n % 2, "train" if n < videos // 2 else "test") for n in range(videos)),
    )


def verdicts_of(catalog: Catalog, **bad: str) -> list[Verdict]:
    return [Verdict(v.path, bad.get(f"v{v.path.removesuffix('.mp4')}", "ok"), "why") for v in catalog.videos]


def test_bad_videos_are_dropped_and_partial_ones_kept() -> None:
    catalog = catalog_of(100)
    verdicts = verdicts_of(catalog, v3="unreadable", v4="partial", v5="short")
    remaining = usable(catalog, verdicts, 0.01)
    assert {v.path for v in catalog.videos} - {v.path for v in remaining.videos} == {"3.mp4"}
    assert remaining.classes == catalog.classes
    assert summary(verdicts) == "97 ok, 1 short, 1 partial, 1 unreadable"


def test_too_many_bad_videos_are_refused_with_what_to_type() -> None:
    catalog = catalog_of(100)
    verdicts = verdicts_of(catalog, v3="empty", v7="refused")
    with pytest.raises(UserError, match=r"2 of 100 .*'3.mp4' \(empty: why\).*--data.max_bad_share 0.02$"):
        usable(catalog, verdicts, 0.01)
    assert len(usable(catalog, verdicts, 0.02).videos) == 98


def test_a_class_without_any_usable_training_video_is_refused() -> None:
    catalog = catalog_of(8)  # the training videos of 'run' are 0 and 2
    verdicts = verdicts_of(catalog, v0="empty", v2="no-video")
    with pytest.raises(UserError, match="no training video of class 'run'"):
        usable(catalog, verdicts, 1.0)


def test_the_generated_set_is_all_ok(tiny_shapes: Path) -> None:
    catalog = read_catalog(tiny_shapes)
    verdicts = check_videos(catalog, workers=2)
    assert summary(verdicts) == "48 ok"
    assert usable(catalog, verdicts, 0.0) == catalog


def test_real_files_with_known_faults(shared_data: Path) -> None:
    expected = {
        "decord_corrupted.mp4": ("partial", 49),  # of 50: what follows the corrupt packets is read on
        "decord_video_90.mov": ("ok", 3),
        "ssv2_id_166766.mp4": ("ok", 49),
        "mmaction2_part_0.mp4": ("ok", 32),
        "jhmdb_RATRACE_wave_f_nm_np1_ri_med_10.avi": ("partial", 18),
    }
    root = shared_data / "clips"
    catalog = Catalog.of(root, ("a", "b"), tuple(Video(name, 0, "train") for name in expected))
    verdicts = {each.path: each for each in check_videos(catalog, workers=2)}
    assert {name: (each.verdict, each.frames) for name, each in verdicts.items()} == expected
    assert (verdicts["decord_video_90.mov"].width, verdicts["decord_video_90.mov"].height) == (320, 568)
