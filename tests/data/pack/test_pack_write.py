"""Packing: the same bytes whoever packs and however often it is interrupted; what is left out is named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pvnas.data.catalog import Catalog, Video
from pvnas.data.pack import open_pack, pack_videos, verify_pack
from pvnas.data.pack.shard import encode_video
from pvnas.data.pack.write import list_digest, plan_shards, spread_order
from pvnas.data.video.decode import decode_video
from pvnas.data.video.footage import Footage
from pvnas.errors import UserError

OPTIONS: dict[str, Any] = {"short_side": 48, "videos_per_shard": 10}


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a pack, the lock apart."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def some(shapes: Catalog, tmp_path: Path) -> Catalog:
    """Two videos of each of two classes in a folder of their own, and two test videos."""
    videos = []
    for number, row in enumerate([0, 1, 6, 7, 4, 10]):
        video = shapes.videos[row]
        name = f"{number}.mp4"
        (tmp_path / "videos").mkdir(exist_ok=True)
        shutil.copy(shapes.root / video.path, tmp_path / "videos" / name)
        videos.append(Video(name, int(row >= 6), "train" if number < 4 else "test"))
    return Catalog.of(tmp_path / "videos", ("left", "right"), videos)


# The plan


def test_every_video_is_in_one_shard_of_its_split(shapes: Catalog) -> None:
    plans = plan_shards(shapes, 10, 0)
    assert [plan.name for plan in plans] == [
        *(f"train-0000{i}.tar" for i in range(4)),
        "val-00000.tar",
        "test-00000.tar",
    ]
    assert sorted(np.concatenate([plan.catalog.videos.rows for plan in plans]).tolist()) == list(range(48))
    for plan in plans:
        assert {video.split for video in plan.catalog.videos} == {plan.name.partition("-")[0]}


def test_the_plan_depends_on_the_names_and_the_seed_alone(shapes: Catalog) -> None:
    turned = shapes.take(list(range(48))[::-1])
    for seed in (0, 1):
        paths = [[v.path for p in plan_shards(c, 10, seed) for v in p.catalog.videos] for c in (shapes, turned)]
        assert paths[0] == paths[1]
    assert list_digest(shapes) == list_digest(turned) != list_digest(shapes.take(range(47)))
    other = [video.path for plan in plan_shards(shapes, 10, 0) for video in plan.catalog.videos]
    assert other != paths[0]


def test_neighbours_differ_in_class_and_group() -> None:
    videos = [Video(f"{c}/{g}/{i}", c, "train", f"{c}{g}") for c in range(10) for g in range(5) for i in range(8)]
    order = spread_order(videos, 3).tolist()
    labels = np.array([videos[i].label for i in order])
    assert (labels[1:] == labels[:-1]).mean() < 0.03  # a plain shuffle has 0.1
    # Each tenth of the order has about a tenth of each class: a shard is a fair sample.
    assert all(2 <= n <= 6 for part in np.split(labels, 10) for n in np.bincount(part, minlength=10))
    for label in range(10):
        groups = [videos[i].group for i in order if videos[i].label == label]
        assert sum(a == b for a, b in pairwise(groups)) < 3  # of 39; a plain shuffle has 7


# What is written


def test_a_shard_is_a_plain_tar_file_in_the_webdataset_convention(shapes: Catalog, pack: Path) -> None:
    videos = {video.path: video for video in shapes.videos}
    seen = 0
    for path in sorted(pack.glob("*.tar")):
        with tarfile.open(path, "r|") as file:  # in sequence, as from a pipe
            members = [(member, file.extractfile(member).read()) for member in file]  # type: ignore[union-attr]
        for (head, about), (body, frames) in zip(members[::2], members[1::2], strict=True):
            key = head.name.removesuffix(".json")
            assert "." not in key
            assert (head.name, body.name) == (f"{key}.json", f"{key}.mjpeg")
            assert (head.mtime, head.uid, head.uname, head.mode) == (0, 0, "", 0o644)
            found = json.loads(about)
            video = videos[found["path"]]
            assert (found["label"], found["split"], found["group"]) == (video.label, video.split, video.group)
            assert found["class"] == shapes.classes[video.label]
            assert len(frames) == sum(found["sizes"])
            seen += 1
    assert seen == 48


def test_the_frames_of_a_sample_are_a_motion_jpeg_stream(pack: Path) -> None:
    with tarfile.open(pack / "val-00000.tar") as file:
        content = file.extractfile(file.getnames()[1]).read()  # type: ignore[union-attr]
    with av.open(io.BytesIO(content), format="mjpeg") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 32
    assert frames[0].shape == (48, 48, 3)


def test_times_and_frames_are_those_of_a_full_decode(shared_data: Path) -> None:
    clips = shared_data / "clips"
    for name, size in (
        ("torchcodec_var_fps_video.mp4", None),
        ("decord_video_90.mov", None),
        ("mmaction2_test.avi", 64),
    ):
        encoded, (height, width) = encode_video(Footage(clips / name), short_side=64, quality=90)
        decoded = decode_video(clips / name, short_side=64)
        assert (encoded.times_T == decoded.times_T).all()
        assert encoded.duration == decoded.duration
        assert (len(encoded.items), height, width) == (
            len(decoded.frames_TCHW),
            *decoded.frames_TCHW.shape[2:],
        )
        assert min(height, width) == (size or 64)


def test_a_smaller_video_is_not_blown_up(shapes: Catalog) -> None:
    _, size = encode_video(Footage(shapes.root / shapes.videos[0].path), short_side=200, quality=90)
    assert size == (64, 64)


# Another pack in the folder


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"short_side": 32}, "short_side"),
        ({"quality": 80}, "quality"),
        ({"videos_per_shard": 9}, "videos_per_shard"),
        ({"seed": 1}, "seed"),
    ],
)
def test_other_options_are_refused(
    some: Catalog, tmp_path: Path, change: dict[str, int], field: str, finished: bool
) -> None:
    pack_videos(some, tmp_path / "out", **OPTIONS, workers=0)
    if not finished:
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "videos" / "0.mp4").write_bytes(b"noise")
        with pytest.raises(UserError, match="more than max_bad_share"):
            pack_videos(some, tmp_path / "out", **OPTIONS, workers=0)
    before = digests(tmp_path / "out")
    with pytest.raises(UserError, match=rf"holds a pack that differs in {field} \(\d+ there, \d+ asked for\)"):
        pack_videos(some, tmp_path / "out", **{**OPTIONS, **change}, workers=0)
    assert digests(tmp_path / "out") == before


def test_another_list_is_refused(some: Catalog, tmp_path: Path) -> None:
    pack_videos(some, tmp_path / "out", **OPTIONS, workers=0)
    for other, field in (
        (some.take([0, 1, 2, 3, 4]), "number of videos"),
        (replace(some, classes=("up", "down")), "classes"),
        (replace(some, format="list"), "source format"),
        (Catalog.of(some.root, some.classes, [replace(v, group="g") for v in some.videos]), "list of videos"),
    ):
        with pytest.raises(UserError, match=f"differs in {field}"):
            pack_videos(other, tmp_path / "out", **OPTIONS, workers=0)


def test_a_folder_of_other_things_is_refused(some: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds '0\.mp4' and is no pack"):
        pack_videos(some, some.root, **OPTIONS, workers=0)
    (tmp_path / "home" / ".git").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds '\.git' and is no pack"):
        pack_videos(some, tmp_path / "home", **OPTIONS, workers=0)


@pytest.mark.parametrize("wrong", [{"short_side": 0}, {"quality": 101}, {"videos_per_shard": 0}, {"seed": -1}])
def test_options_out_of_range_are_refused(some: Catalog, tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="give a number from"):
        pack_videos(some, tmp_path / "out", **{**OPTIONS, **wrong}, workers=0)


# Bad videos


def test_a_bad_video_is_left_out_and_named(some: Catalog, tmp_path: Path) -> None:
    (some.root / "1.mp4").write_bytes(b"\0" * 5000)
    (some.root / "4.mp4").unlink()
    with pytest.raises(
        UserError, match=r"2 of 6 videos cannot be read, more than max_bad_share=0\.01.*0\.334"
    ) as caught:
        pack_videos(some, tmp_path / "out", **OPTIONS, workers=0)
    assert "\n" not in str(caught.value)
    listed = json.loads((tmp_path / "out" / "left_out.json").read_text())
    assert sorted(row["path"] for row in listed) == ["1.mp4", "4.mp4"]
    info = pack_videos(some, tmp_path / "out", **OPTIONS, workers=0, max_bad_share=0.334)
    assert info.counts == {"train": 3, "val": 0, "test": 1}
    assert {video.path: video.reason for video in info.left_out}["4.mp4"] == "unreadable: there is no such regular file"
    assert not (tmp_path / "out" / "left_out.json").exists()
    assert verify_pack(tmp_path / "out") == []
    assert sorted(open_pack(tmp_path / "out").catalog.videos.paths) == ["0.mp4", "2.mp4", "3.mp4", "5.mp4"]


def test_a_video_that_was_mended_is_taken_when_packing_goes_on(some: Catalog, tmp_path: Path) -> None:
    good = (some.root / "1.mp4").read_bytes()
    (some.root / "1.mp4").write_bytes(b"\0" * 5000)
    with pytest.raises(UserError, match="cannot be read"):
        pack_videos(some, tmp_path / "out", **OPTIONS, workers=0)
    (some.root / "1.mp4").write_bytes(good)
    assert pack_videos(some, tmp_path / "out", **OPTIONS, workers=0).left_out == ()


def test_a_class_without_training_videos_is_refused(some: Catalog, tmp_path: Path) -> None:
    for name in ("2.mp4", "3.mp4"):
        (some.root / name).write_bytes(b"")
    with pytest.raises(UserError, match="no training video of class 'right' can be read"):
        pack_videos(some, tmp_path / "out", **OPTIONS, workers=0, max_bad_share=0.9)
    assert not (tmp_path / "out" / "pack.json").exists()


def test_a_shard_may_lose_all_its_videos(some: Catalog, tmp_path: Path) -> None:
    for name in ("4.mp4", "5.mp4"):
        (some.root / name).write_bytes(b"")
    info = pack_videos(some, tmp_path / "out", **OPTIONS, workers=0, max_bad_share=0.9)
    assert [item.videos for item in info.shards] == [4, 0]
    assert verify_pack(tmp_path / "out") == []


def test_a_video_of_too_many_bytes_is_left_out_with_the_reason(shapes: Catalog) -> None:
    from pvnas.data.video.decode import VideoError

    with pytest.raises(VideoError, match="refused: its frames take more than 0 MiB as JPEG"):
        encode_video(Footage(shapes.root / shapes.videos[0].path), short_side=48, quality=90, limit=5000)


def test_names_of_any_bytes_survive(some: Catalog, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n<b>=1+1.mp4")
    (some.root / "0.mp4").rename(some.root / name)
    videos = [replace(video, path=name) if video.path == "0.mp4" else video for video in some.videos]
    pack_videos(Catalog.of(some.root, some.classes, videos), tmp_path / "out", **OPTIONS, workers=0)
    assert name in list(open_pack(tmp_path / "out").catalog.videos.paths)
    assert verify_pack(tmp_path / "out") == []
