"""Folders as people have them: each is read as it was meant, and every file that is not read is counted in a remark."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import read_catalog
from pvnas.cli import main
from pvnas.data.catalog import Catalog
from pvnas.data.check import JOURNAL_NAME
from pvnas.data.check.results import CSV_NAME, JSON_NAME
from pvnas.data.listing.registry import VIDEO_ENDINGS
from pvnas.data.pack.format import INFO
from pvnas.data.pack.write import GOAL, UNFINISHED
from pvnas.errors import UserError
from pvnas.report.record import TESTED
from pvnas.runtime.files import LOCK
from pvnas.settings import ENVIRONMENT_NAME

CLASSES = ("café", "thé vert", "Jump", "long_jump", "跳跃", "train station", "0", "it's")
SPELLINGS = {
    "train": (
        "train",
        "Train",
        "TRAINING",
        "trainset",
        "train_videos",
        "Train-Data",
        "train_256x256",
        "training set 1",
    ),
    "val": ("val", "valid", "Validation", "VAL", "dev", "eval", "valset", "validate_clips"),
    "test": ("test", "Testing", "TEST", "test_videos", "testset", "test-split"),
}
WRAPPERS = ("", "", "my_videos/", "data/", "UCF/deep/")
JUNK = ("__MACOSX/a/._v.mp4", ".ipynb_checkpoints/v.mp4", "@eaDir/v.mp4", ".DS_Store", "Thumbs.db", "lost+found/x.mp4")
STRAYS = ("notes.txt", "v0.srt", "sound.wav", "no_ending", "table.xyz", "cover.jpg")


class Drawn(NamedTuple):
    """A layout: the files to make, and of those that are meant as videos the class and the split."""

    files: list[str]
    meant: dict[str, tuple[str, str | None]]
    unread: int  # files that are neither videos nor junk
    unread_videos: int = 0


@st.composite
def layouts(draw: st.DrawFn) -> Drawn:
    """Draw {split}/class/video, class/{split}/video or class/video, with everything that lies about."""
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique=True))
    named = draw(st.sampled_from(((), ("train",), ("train", "test"), ("train", "val", "test"))))
    below = len(named) > 1 and draw(st.booleans())
    root = draw(st.sampled_from(WRAPPERS))
    folders: dict[str, tuple[str, str | None]] = {}  # the class and split of each folder that holds videos
    for split in named or (None,):
        spelled = draw(st.sampled_from(SPELLINGS[split])) if split else ""
        form = draw(st.sampled_from(("NFC", "NFD")))
        for label in classes:
            name = unicodedata.normalize(form if not below else "NFC", label)
            parts = (name, spelled) if below else (spelled, name)
            folders[root + "/".join(filter(None, parts))] = (label, split)
    meant, files, unread = dict[str, tuple[str, str | None]](), list[str](), 0
    for folder, (label, split) in folders.items():
        for number in range(draw(st.integers(1, 3))):
            inner = draw(st.sampled_from(("", "", "", "session/")))
            ending = draw(st.sampled_from((*VIDEO_ENDINGS, ".MP4", "/jpg")))
            path = f"{folder}/{inner}v{number}{ending.removesuffix('/jpg')}"
            files += [f"{path}/img_{n}.jpg" for n in (1, 2)] if ending == "/jpg" else [path]
            meant[path] = (label, split)
        strays = draw(st.lists(st.sampled_from(STRAYS), max_size=2, unique=True))
        files += [f"{folder}/{name}" for name in strays]
        unread += len(strays)
    tops = [root, "", *(f"{folder}/" for folder in folders)]
    files += [draw(st.sampled_from(tops)) + name for name in draw(st.lists(st.sampled_from(JUNK), max_size=2))]
    loose = draw(st.integers(0, 2)) if not root else 0
    files += [f"loose{number}.avi" for number in range(loose)]
    return Drawn(files, meant, unread, loose)


def touch(root: Path, paths: list[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def listed(catalog: Catalog) -> dict[str, tuple[str, str]]:
    return {video.path: (catalog.classes[video.label], video.split) for video in catalog.videos}


def counted(remarks: tuple[str, ...], noun: str) -> int:
    """Return how many files or videos the remarks say are not read."""
    return sum(int(found[1]) for line in remarks if (found := re.match(rf"(\d+) {noun}s? (?:is|are) not read", line)))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(layouts())
def test_drawn_layouts_are_read_as_meant_and_nothing_is_left_out_in_silence(drawn: Drawn) -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = read_catalog(touch(Path(folder), drawn.files), as_listed=True)
    assert listed(catalog) == {path: (label, split or "train") for path, (label, split) in drawn.meant.items()}
    assert catalog.classes == tuple(sorted({label for label, _ in drawn.meant.values()}))
    assert counted(catalog.remarks, "file") == drawn.unread
    assert counted(catalog.remarks, "video") == drawn.unread_videos
    assert all("\n" not in remark for remark in catalog.remarks)


FOLDERS = st.sampled_from(("train", "Test", "val", "eval", "data", "a", "b", "A", "clip", "annotations", "train_ride"))
FILES = st.sampled_from(("1.mp4", "2.AVI", "1.jpg", "2.png", "x.srt", "README", "a.csv"))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.lists(FOLDERS, max_size=4), FILES), min_size=1, max_size=14), st.booleans())
def test_of_any_tree_every_file_is_read_or_counted(drawn: list[tuple[list[str], str]], as_classes: bool) -> None:
    paths = {"notes.md", *("/".join((*folders, name)) for folders, name in drawn)}
    with tempfile.TemporaryDirectory() as folder:
        root = touch(Path(folder) / "root", sorted(paths))
        try:
            catalog = read_catalog(root, as_listed=True, format="classes" if as_classes else "folders")
        except UserError as error:
            if "no videos found" not in str(error):
                raise
            return
        read = [path for path in paths if path in set(catalog.videos.paths)]
        shown = [path for path in paths if path.rpartition("/")[0] in set(catalog.videos.paths)]
        assert not catalog.missing()
    pictures = [path for path in shown if path.endswith((".jpg", ".png"))]
    unread = counted(catalog.remarks, "file") + counted(catalog.remarks, "video")
    about = [path for path in paths if path.endswith("README")]
    assert len(paths) == len(read) + len(pictures) + len(about) + unread
    assert len(read) + len({path.rpartition("/")[0] for path in pictures}) == len(catalog.videos)
    for name in {"train", "Test", "val", "eval"} & set(catalog.classes):
        assert as_classes or any(f"{name}'" in remark for remark in catalog.remarks), "a class, in silence"


@pytest.mark.parametrize(
    "files, classes, splits, remark",
    [
        # Folders that could be splits or classes.
        ("train/1.mp4 bus/1.mp4 car/1.mp4", "bus car train", "3 0 0", "'train' beside 'bus', 'car' is read as a class"),
        ("val/a/1.mp4 bus/1.mp4 car/1.mp4", "bus car val", "3 0 0", "'val' beside 'bus', 'car' is read as a class"),
        (
            "Train/a/1.mp4 Train/b/1.mp4 Test/a/1.mp4",
            "a b",
            "2 0 1",
            "'Train' as train, 'Test' as test; where they are",
        ),
        ("train/a/1.mp4 training/b/1.mp4 test/a/1.mp4", "a b", "2 0 1", "'train' as train, 'training' as train"),
        ("train/a/1.mp4 dev/a/1.mp4 eval/a/1.mp4", "a", "1 1 1", "'dev' as val, 'eval' as test"),
        ("train/a/1.mp4 eval/a/1.mp4", "a", "1 1 0", "'eval' as val"),
        ("ucf_train/a/1.mp4 ucf_train/b/1.mp4 ucf_test/a/1.mp4", "a b", "2 0 1", "'ucf_test' as test"),
        ("train/a/1.mp4 train/b/1.mp4 test/a/1.mp4 old/a/2.mp4 old/3.mp4", "a b", "2 0 1", "2 in 'old'"),
        ("train/a/1.mp4 train/b/1.mp4 test/1.mp4", "a b", "2 0 0", "1 video is not read, .*: 1 in 'test'"),
        ("train/a/1.mp4 train/b/1.mp4 test/notes.txt", "a b", "2 0 0", "'test' holds no videos, and is read as if"),
        ("a/train/1.mp4 a/Test/1.mp4 b/train/1.mp4", "a b", "2 0 1", "in the class folders read as splits: 'Test' as"),
        ("a/train/1.mp4 a/test/1.mp4 b/1.mp4", "a b", "3 0 0", "'a/test' is read as part of class 'a' and not as a"),
        # Folders around them, and in them.
        ("set/a/1.mp4 set/b/1.mp4 docs/a.pdf", "a b", "2 0 0", "'set' is read through"),
        ("train/train/a/1.mp4 train/train/b/1.mp4 test/a/1.mp4", "a b", "2 0 1", "'train/train' is read through"),
        ("train/UCF/a/1.mp4 train/UCF/b/1.mp4 test/UCF/a/1.mp4", "a b", "2 0 1", "'train/UCF' is read through"),
        ("c1/run/1.mp4 c1/jump/1.mp4 c2/run/1.mp4", "c1 c2", "3 0 0", "such as 'c1/run', are read as part of their"),
        # Names of classes.
        (
            "train/Jump/1.mp4 train/b/1.mp4 test/jump/1.mp4",
            "Jump b",
            "2 0 1",
            "'jump' and 'Jump' in two splits are one",
        ),
        ("train/Jump/1.mp4 train/jump/1.mp4 test/jump/1.mp4", "Jump jump", "2 0 1", "are classes of their own"),
        # No class folders at all: what is there is listed, and a run says what it lacks.
        ("1.mp4 2.mp4", "data", "2 0 0", "no class folders in 'data', so all videos are read as one class"),
        ("1.mp4 session/2.mp4", "data", "2 0 0", "no class folders in 'data'"),
        (
            "train/1.mp4 test/2.mp4",
            "data",
            "1 0 1",
            "no class folders in 'test', 'train', .*type --data.format classes",
        ),
        ("test/a/1.mp4 test/b/1.mp4", "a b", "0 0 2", None),
        # Pictures.
        ("a/c/1.jpg a/c/2.jpg b/c/1.png", "a b", "2 0 0", "folders of pictures: 2 .*'a/c'.*--data.frame_rate"),
        ("train/a/c/1.jpg train/b/c/1.jpg test/a/c/1.jpg", "a b", "2 0 1", "folders of pictures: 3"),
        ("a/1.mp4 c/1.mp4 b/1.jpg", "a b c", "2 0 0", "pictures lie in the class folder 'b' itself and are not read"),
        ("a/c/1.jpg a/c/mask/1.png b/1.mp4", "a b", "2 0 0", "1 file is not read: 1 .png"),
        # Files that are no videos.
        (
            "a/1.mp4 b/1.mp4 a/1.srt a/2.SRT b/x",
            "a b",
            "2 0 0",
            r"3 files are not read: 2 .srt, 1 without an ending \(",
        ),
        ("a/1.mp4 b/1.mp4 a/.2.mp4 a/._1.mp4", "a b", "2 0 0", r"1 file is not read: 1 .mp4 \(the first: 'a/.2.mp4'"),
        ("a/1.mp4 b/1.mp4 c/notes.txt", "a b c", "2 0 0", "class folder 'c' holds no videos; fill it or remove it"),
        ("a/1.mp4 b/1.mp4", "a b", "2 0 0", None),
        ("train/a/1.mp4 valid/a/1.mp4 test/a/1.mp4", "a", "1 1 1", None),
    ],
)
def test_what_could_be_read_in_two_ways_is_remarked_on(
    tmp_path: Path, files: str, classes: str, splits: str, remark: str | None
) -> None:
    catalog = read_catalog(touch(tmp_path / "data", files.split()), as_listed=True)
    assert " ".join(catalog.classes) == classes
    assert " ".join(str(sum(counts.values())) for counts in catalog.counts().values()) == splits
    assert (not catalog.remarks) if remark is None else any(re.search(remark, line) for line in catalog.remarks)
    assert not catalog.missing()


@pytest.mark.parametrize(
    "files, message",
    [
        ("1.mp4 2.mp4", "only one class, 'data', .*; note: no class folders in 'data'"),
        ("train/1.mp4 test/2.mp4", "only one class, .* where 'test', 'train' are classes, type --data.format classes"),
        ("test/a/1.mp4 test/b/1.mp4", "no training videos in .*, or a folder 'train'"),
        ("a/1.srt b/2.srt", "no videos found .*; note: 2 files are not read: 2 .srt"),
    ],
)
def test_what_a_run_cannot_learn_from_is_one_line(tmp_path: Path, files: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_catalog(touch(tmp_path / "data", files.split()))
    assert "\n" not in str(caught.value)


def test_each_folder_is_a_class_where_the_user_says_so(tmp_path: Path) -> None:
    root = touch(tmp_path, ["train/1.mp4", "test/a/1.mp4", "val/b/1.mp4"])
    catalog = read_catalog(root, format="classes", as_listed=True)
    assert (catalog.classes, catalog.format) == (("test", "train", "val"), "classes")


def test_two_unicode_forms_are_one_class_and_paths_stay_as_they_are(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    root = touch(tmp_path, [f"train/{forms[0]}/1.mp4", f"test/{forms[1]}/2.mp4", "train/b/1.mp4"])
    catalog = read_catalog(root, as_listed=True)
    assert catalog.classes == ("b", forms[0])
    assert listed(catalog)[f"test/{forms[1]}/2.mp4"] == (forms[0], "test")
    assert not catalog.remarks


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x1cftypisom",
        b"\x1a\x45\xdf\xa3",
        b"RIFF\0\x1c\0\0AVI LIST",
        b"\0\0\1\xba!",
        b"\0\0\0\1\x67d",
        b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",
        (b"G" + bytes(187)) * 6,
        (bytes(4) + b"G" + bytes(187)) * 6,
    ],
)
@pytest.mark.parametrize("name", ["no_ending", "camera.rec", "2024.01.mp4_", "tape.dat"])
def test_files_of_other_names_are_videos_by_their_first_bytes(tmp_path: Path, name: str, head: bytes) -> None:
    root = touch(tmp_path, [f"a/{name}", "a/2.mp4", "b/1.mp4", "b/noise.zzz", "b/half.mp4.part", "b/sound.ogg"])
    (root / "a" / name).write_bytes(head)
    (root / "b" / "noise.zzz").write_bytes(bytes(range(256)))
    (root / "b" / "half.mp4.part").write_bytes(head)
    (root / "b" / "sound.ogg").write_bytes(b"OggS\0\2\x01vorbis")
    catalog = read_catalog(root, as_listed=True)
    assert set(listed(catalog)) == {f"a/{name}", "a/2.mp4", "b/1.mp4"}
    assert f"1 file is read as videos by their first bytes, not by a video's ending (the first: 'a/{name}')" in [
        *catalog.remarks
    ]
    assert counted(catalog.remarks, "file") == 3


def test_videos_that_no_list_names_are_counted(tmp_path: Path) -> None:
    root = touch(tmp_path, ["a/1.mp4", "a/2.mp4", "b/1.mp4", "b/thumbs/1.jpg"])
    (root / "split.csv").write_text("path,label,split\na/1.mp4,a,train\nb/1.mp4,b,train\n", encoding="utf-8")
    assert "1 video lies there and in no list, and so not read (the first: 'a/2.mp4')" in (
        read_catalog(root, as_listed=True).remarks
    )
    assert not read_catalog(root / "split.csv", as_listed=True).remarks  # the user named it


def test_one_video_file_and_one_folder_of_pictures_are_listed_alone(tmp_path: Path) -> None:
    root = touch(tmp_path / "up", ["a.mp4", "b.mp4", "clip/1.jpg", "clip/2.jpg", "clip/.DS_Store"])
    for path in ("a.mp4", "clip"):
        catalog = read_catalog(root / path, as_listed=True)
        assert (list(catalog.videos.paths), catalog.classes, catalog.remarks) == ([path], ("up",), ())
        assert not catalog.missing()
    with pytest.raises(UserError, match=r"a.mp4' is one video; give a folder of videos"):
        read_catalog(root / "a.mp4", format="ucf101")


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    root, scandir = touch(tmp_path, ["a/1.mp4", "b/1.mp4"]), os.scandir

    def closed(folder: str) -> object:
        if str(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("os.scandir", closed)
    with pytest.raises(UserError, match=r"/b' cannot be read \(Permission denied\); mend it or take it away"):
        read_catalog(root)


def test_what_runs_packs_and_checks_have_written_is_neither_videos_nor_classes(tmp_path: Path) -> None:
    videos = [f"{label}/{number}.mp4" for label in "ab" for number in range(4)]
    root = touch(tmp_path / "data", videos)
    before = read_catalog(root)
    run = [f"runs/data-tiny/{name}" for name in ("config.yaml", ENVIRONMENT_NAME, "figures/1.png", "samples/1.png")]
    begun, tested = f"runs/begun/{LOCK}", f"other/{TESTED}"
    packs = [f"pack/{INFO}", "pack/train-00000.tar", f"half/{UNFINISHED}/{GOAL}", "half/train-00000.tar"]
    checked = [f"checked/{JSON_NAME}", f"checked/{CSV_NAME}", f"stopped/{JOURNAL_NAME}"]
    touch(root, [*run, begun, tested, *packs, *checked])
    catalog = read_catalog(root)
    assert catalog.videos == before.videos
    assert catalog.classes == ("a", "b")
    assert catalog.remarks == ("'checked', 'half', 'other', 'pack' and 3 more were written by pvnas and are not read",)
    touch(root, [f"a/{JSON_NAME}", f"a/{CSV_NAME}", "b/.lock"])  # written beside videos
    assert read_catalog(root).videos == before.videos
    (root / "split.csv").write_text("path,label\n" + "".join(f"{path},{path[0]}\n" for path in videos))
    assert read_catalog(root).remarks == ()


def test_a_file_is_told_of_once_and_what_is_about_the_data_not_at_all(tmp_path: Path) -> None:
    root = touch(tmp_path, ["a/1.mp4", "b/1.mp4", "a/sound.wav", "README.md", "LICENSE", "a/readme.txt"])
    (root / "train.csv").write_text("path,weight\nx.mp4,3\n")
    (root / "labels.parquet").touch()
    assert sorted(read_catalog(root, as_listed=True).remarks) == sorted(
        (
            "1 file is not read: 1 .wav (the first: 'a/sound.wav')",
            f"{root}/labels.parquet is not read: it is a table of Arrow or Parquet; write its videos to a csv with the "
            "header path,label",
            f"{root}/train.csv is not read: it has no column for the label",
        )
    )
    assert sum("csv" in line for line in read_catalog(root, as_listed=True, format="folders").remarks) == 1


def test_folders_of_pictures_say_their_rate_and_the_option_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch(tmp_path / "data", [f"{label}/clip{n}/{i}.jpg" for label in "ab" for n in range(2) for i in range(3)])
    (remark,) = read_catalog(root, as_listed=True, frame_rate=12.5).remarks
    assert remark.endswith("shown at 12.5 pictures a second; for another rate type --data.frame_rate N")
    assert main(["data", "list", str(root)]) == 0
    assert "shown at 25 pictures a second; for another rate type --frame-rate N" in capsys.readouterr().err


def test_a_check_that_wrote_into_a_folder_of_classes_hides_none_of_them(tmp_path: Path) -> None:
    root = touch(tmp_path, ["train/a/1.mp4", "train/b/1.mp4", f"train/{JSON_NAME}", f"train/{CSV_NAME}"])
    assert read_catalog(root, as_listed=True).classes == ("a", "b")


def test_a_video_beside_its_own_pictures_is_one_group_and_named(write) -> None:
    files = {f"x/c{n}.mp4": "" for n in range(6)} | {f"x/c{n}/{i}.jpg": "" for n in range(6) for i in range(2)}
    catalog = read_catalog(write(files | {f"y/d{n}.mp4": "" for n in range(6)}))
    assert "as files and as folders of pictures of the same name" in " ".join(catalog.remarks)
    splits = {video.path: video.split for video in catalog.videos}
    assert all(splits[f"x/c{n}"] == splits[f"x/c{n}.mp4"] for n in range(6))
