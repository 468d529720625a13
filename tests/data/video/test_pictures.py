"""Folders of pictures as videos: order, formats, damage, limits, and the frames of the video they were cut from."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered import numbers_of, picture, told, write_numbered
from PIL import Image

from pvnas.config import DataConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.check import Limits, check_videos
from pvnas.data.check.examine import examine, file_stamp
from pvnas.data.dataset import VideoDataset
from pvnas.data.pack import open_pack, pack_videos
from pvnas.data.video.decode import VideoError, decode_video
from pvnas.data.video.footage import Footage
from pvnas.data.video.pictures import is_picture_folder, natural_order, picture_files, read_picture


def frames(folder: Path, count: int = 12, *, ending: str = "png") -> Path:
    """Write numbered pictures, named so that the order of letters is not theirs."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / f"img_{number}.{ending}")
    return folder


def test_the_natural_order_of_names() -> None:
    names = ["img_10.jpg", "img_2.jpg", "img_002.jpg", "a10b2", "a10b10", "a9b99", "0010", "7"]
    expected = ["7", "0010", "a9b99", "a10b2", "a10b10", "img_002.jpg", "img_2.jpg", "img_10.jpg"]
    assert sorted(names, key=natural_order) == expected


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "bmp"])
def test_pictures_are_frames_in_their_order(tmp_path: Path, ending: str) -> None:
    folder = frames(tmp_path / "clip.frames", ending=ending)
    for name in ("notes.txt", ".img_3.png", "img_4.gif", "Thumbs.db"):
        (folder / name).write_bytes(b"no picture")
    (folder / "more").mkdir()
    assert is_picture_folder(folder)
    assert numbers_of(Footage(folder).whole().frames_TCHW) == list(range(12))
    assert told(Footage(folder, frame_rate=10.0).whole())[:3] == [(0.0, 0), (0.1, 1), (0.2, 2)]
    assert told(Footage(folder, 0.25, 0.5, frame_rate=10.0).whole()) == [(0.0, 2), (0.05, 3), (0.15, 4)]
    video = Footage(folder, frame_rate=4.0).whole(short_side=24)
    assert (video.frames_TCHW.shape, video.duration, video.rate) == ((12, 3, 24, 32), 3.0, 4.0)
    assert Footage(folder).claimed_size() == (12, 48, 64)


def test_they_are_the_video_that_they_were_cut_from(tmp_path: Path) -> None:
    video = write_numbered(tmp_path / "a.mp4", rate=10)
    whole = decode_video(video)
    (tmp_path / "a").mkdir()
    for number, frame_CHW in enumerate(whole.frames_TCHW):
        Image.fromarray(frame_CHW.permute(1, 2, 0).numpy()).save(tmp_path / "a" / f"{number}.png")
    cut = Footage(tmp_path / "a", frame_rate=10.0).whole()
    assert torch.equal(cut.frames_TCHW, whole.frames_TCHW)
    assert (cut.times_T.tolist(), cut.duration) == (pytest.approx(whole.times_T.tolist()), whole.duration)
    smaller = Footage(tmp_path / "a").frames(lambda times_T, duration: np.array([30, 3, 30]), short_side=24)
    of_video = Footage(video).frames(lambda times_T, duration: np.array([30, 3, 30]), short_side=24)
    assert int((smaller.int() - of_video.int()).abs().max()) <= 4  # scaled from RGB, and from YUV


def test_only_what_is_wanted_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, opened = frames(tmp_path / "a"), []
    true_open = Image.open

    def spy(path: str, *args: object, **options: object) -> object:
        opened.append(os.path.basename(path))
        return true_open(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", spy)
    found = Footage(folder).frames(lambda times_T, duration: np.array([7, 5, 7]))
    assert numbers_of(found) == [7, 5, 7]
    assert opened == ["img_0.png", "img_5.png", "img_7.png"]  # of the first the size alone


KINDS = {
    "grey": (lambda rgb: rgb.convert("L"), "png"),
    "black and white": (lambda rgb: rgb.convert("1"), "png"),
    "palette": (lambda rgb: rgb.quantize(4), "png"),
    "transparent": (lambda rgb: rgb.convert("RGBA"), "png"),
    "grey and transparent": (lambda rgb: rgb.convert("LA"), "png"),
    "cmyk": (lambda rgb: rgb.convert("CMYK"), "jpg"),
    "16 bit": (lambda rgb: Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257), "png"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_rgb(tmp_path: Path, kind: str) -> None:
    change, ending = KINDS[kind]
    rgb = Image.fromarray(np.repeat(np.repeat([[250, 120], [60, 10]], 8, 0), 8, 1).astype(np.uint8)).convert("RGB")
    change(rgb).save(tmp_path / f"a.{ending}", quality=100) if ending == "jpg" else change(rgb).save(tmp_path / "a.png")
    found = read_picture(tmp_path / f"a.{ending}")
    assert found.shape == (16, 16, 3)
    if kind != "black and white":
        assert np.abs(found.astype(int) - np.asarray(rgb)).max() <= 6
    assert found[0, 0, 0] > 200


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:10, :20] = 255  # bright in the upper left corner
    for orientation, (row, column, size) in {1: (0, 0, (20, 40)), 3: (19, 39, (20, 40)), 6: (0, 19, (40, 20))}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        folder = tmp_path / str(orientation)
        folder.mkdir()
        Image.fromarray(image).save(folder / "a.jpg", exif=exif, quality=100)
        frames_TCHW = Footage(folder).whole().frames_TCHW
        assert tuple(frames_TCHW.shape[2:]) == size
        assert int(frames_TCHW[0, 0, row, column]) > 250
        assert Footage(folder).claimed_size() == (1, *size)


def test_pictures_of_other_sizes_are_scaled_to_the_first(tmp_path: Path) -> None:
    folder = frames(tmp_path / "a", 3)
    Image.fromarray(picture(1, 96, 80)).save(folder / "img_1.png")
    assert numbers_of(Footage(folder).whole().frames_TCHW) == [0, 1, 2]
    assert examine(folder).resized


def test_a_broken_picture_is_partial_and_the_one_before_is_shown(tmp_path: Path) -> None:
    folder = frames(tmp_path / "a", 6)
    content = (folder / "img_3.png").read_bytes()
    (folder / "img_3.png").write_bytes(content[: len(content) // 2])
    (folder / "img_0.png").write_bytes(b"")
    assert numbers_of(Footage(folder).whole().frames_TCHW) == [1, 1, 2, 2, 4, 5]
    found = examine(folder)
    assert (found.verdict, found.frames, found.claimed, found.codec) == ("partial", 4, 6, "pictures")
    assert found.detail == "4 of 6 frames decode; img_0.png: it is no picture that can be read"


def test_what_is_no_video_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=r"empty: the folder holds no pictures \(\.jpg, \.jpeg, \.png, \.bmp\)"):
        picture_files(tmp_path / "empty")
    assert not is_picture_folder(tmp_path / "empty")
    assert not is_picture_folder(tmp_path / "nothing")
    assert examine(tmp_path / "empty").verdict == "empty"
    broken = frames(tmp_path / "broken", 2)
    for file in broken.iterdir():
        file.write_bytes(b"GIF89a")
    assert examine(broken).detail == (
        "none of its 2 pictures can be read: img_0.png: it is no picture that can be read"
    )
    huge = tmp_path / "huge"
    huge.mkdir()
    Image.new("1", (9000, 8000)).save(huge / "a.png")
    assert (examine(huge).verdict, "9000x8000 pixels are more" in examine(huge).detail) == ("refused", True)


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = frames(tmp_path / "a", 3)
    secret = tmp_path / "secret.png"
    (folder / "img_1.png").rename(secret)
    (folder / "img_1.png").symlink_to(secret)
    for read in (Footage(folder).whole, Footage(folder).claimed_size):
        with pytest.raises(VideoError, match=r"refused: its img_1\.png is a symbolic link; put the pictures"):
            read()
    assert examine(folder).verdict == "refused"


# ---- in the check, a data set and a pack


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return a folder of pictures, once whole and once in part, at five a second, and a video file."""
    frames(tmp_path / "videos/a/clip 1")
    write_numbered(tmp_path / "videos/b.mp4", 12, rate=5)
    videos = [Video("a/clip 1", 0, "train"), Video("a/clip 1", 0, "train", None, 1.0, 1.5), Video("b.mp4", 1, "train")]
    return Catalog(
        tmp_path / "videos", ("a", "b"), Catalog.of(tmp_path, ("a", "b"), videos).videos, "list", frame_rate=5.0
    )


def test_they_are_checked_once_and_again_at_another_rate(tmp_path: Path, catalog: Catalog) -> None:
    whole, part, _ = check_videos(catalog, Limits(workers=1), out=tmp_path / "out")
    assert (whole.verdict, whole.frames, whole.rate, whole.seconds) == ("ok", 12, 5.0, 2.4)
    assert (whole.width, whole.height) == (64, 48)
    assert (part.path, part.verdict, part.frames, part.seconds) == ("a/clip 1 [1-1.5 s]", "ok", 3, 0.5)
    size, changed = file_stamp(catalog.root / "a/clip 1")
    assert (whole.bytes, whole.modified_ns) == (size, changed)
    assert size == sum(file.stat().st_size for file in (catalog.root / "a/clip 1").iterdir())
    assert not len(catalog.missing())
    faster = Catalog(catalog.root, catalog.classes, catalog.videos, "list", frame_rate=50.0)
    again = check_videos(faster, Limits(workers=1), out=tmp_path / "out")
    assert [round(result.seconds, 3) for result in again[:1]] == [0.24]
    assert again[1].detail == "the segment begins at 1 s, but the video ends at 0.24 s"


def test_a_data_set_and_its_pack_show_the_same(tmp_path: Path, catalog: Catalog) -> None:
    for cache in ("none", "ram"):
        dataset = VideoDataset(catalog, DataConfig(cache=cache, frame_rate=5.0), 48)  # type: ignore[arg-type]
        dataset.prepare_cache()
        assert told(dataset.whole(1)) == [(0.0, 5), (0.2, 6), (0.4, 7)]
        assert numbers_of(dataset.frames(0, lambda times_T, duration: np.array([11, 0]))) == [11, 0]
    pack_videos(catalog, tmp_path / "pack", short_side=48, quality=100, workers=0)
    pack = open_pack(tmp_path / "pack")
    rows = {name: row for row, name in enumerate(pack.catalog.videos.names)}
    times_T, duration = pack.times(rows["a/clip 1"])
    assert (times_T[:2].tolist(), duration) == ([0.0, 0.2], 2.4)
    assert numbers_of(pack.frames(rows["a/clip 1 [1-1.5 s]"], np.arange(3))) == [5, 6, 7]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("img_1.jpg", "flow_x_1.jpg", "flow_y_1.jpg", "img_10.jpg", "img_2.jpg"),
            ["img_1.jpg", "img_2.jpg", "img_10.jpg"],
        ),
        (("b.png", "a.png"), ["a.png", "b.png"]),
        (("a1.png", "b2.png"), ["a1.png", "b2.png"]),
        (("1.png", "1.jpg"), "several pictures for one frame (1.jpg and 1.png)"),
        (("0001.png", "0001_mask.png", "0002.png"), "several pictures for one frame (0001.png and 0001_mask.png)"),
    ],
)
def test_pictures_of_several_kinds_are_no_one_video(names, expected, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    if isinstance(expected, list):
        assert picture_files(tmp_path) == [str(tmp_path / name) for name in expected]
        return
    with pytest.raises(VideoError, match=re.escape(expected)):
        picture_files(tmp_path)
