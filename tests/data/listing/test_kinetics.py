"""Kinetics: the official ids, the many spellings of copies, splits for training, and what goes wrong with its lists."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.data.listing.text import class_key
from pvnas.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
GAME, NO_GAME = "passing American football (in game)", "passing American football (not in game)"


def rows(split: str, first: int, number: int) -> str:
    return HEADER + "".join(
        f'"{(GAME, NO_GAME)[n % 2]}",{"-" if n % 3 else "_"}id{n:08d},{n},{n + 10},{split},0\n'
        for n in range(first, first + number)
    )


LISTS = {
    "annotations/train.csv": rows("train", 0, 20),
    "annotations/validate.csv": rows("validate", 20, 4),
    "annotations/test.csv": "youtube_id,time_start,time_end,split\n--6bJUbfpnQ,17,27,test\n",
}


def test_official_validation_list_and_ids(shared_data: Path, tmp_path: Path) -> None:
    official = shared_data / "annotations" / "kinetics"
    catalog = read_catalog(tmp_path, annotations=official / "kinetics-400_val.csv", as_listed=True)
    assert catalog.format == "kinetics"
    assert catalog.summary() == "19906 videos of 400 classes (train 0, val 19906, test 0)"
    assert list(catalog.classes) == (official / "label_map_k400.txt").read_text().splitlines()
    with (official / "kinetics-400_val.csv").open(newline="") as file:
        expected = {row["youtube_id"]: row["label"] for row in csv.DictReader(file)}
    assert {video.group: catalog.classes[video.label] for video in catalog.videos} == expected


def test_tiny_training_list_with_the_official_validation_and_test_lists(shared_data: Path, tmp_path: Path) -> None:
    official = shared_data / "annotations" / "kinetics"
    for name in ("tiny_train.csv", "kinetics-400_val.csv", "kinetics-400_test.csv"):
        shutil.copy(official / name, tmp_path)
    with pytest.raises(UserError, match=r"too few videos .* split 'val'.*type --data.validation_share 0"):
        read_catalog(tmp_path)
    catalog = read_catalog(tmp_path, validation_share=0)
    assert catalog.summary() == "20306 videos of 400 classes (train 400, val 0, test 19906); 38685 more have no label"
    assert set(catalog.counts()["train"].values()) == {1}


@pytest.mark.parametrize("name", ["label_map_k400.txt", "label_map_k600.txt", "label_map_k700.txt"])
def test_spellings_of_copies_stay_distinct(shared_data: Path, name: str) -> None:
    labels = (shared_data / "annotations" / "kinetics" / name).read_text().splitlines()
    assert len(set(map(class_key, labels))) == len(labels)
    assert all(
        class_key(label.replace(" ", "_").replace("'", "").replace("(", "")) == class_key(label) for label in labels
    )


def test_splits_ids_and_groups(write) -> None:
    root = write(LISTS)
    catalog = read_catalog(root, as_listed=True)
    assert catalog.classes == (GAME, NO_GAME)
    assert catalog.summary() == "24 videos of 2 classes (train 20, val 4, test 0); 1 more have no label"
    first = catalog.videos[0]
    assert first.path == f"{GAME}/-id00000002_000002_000012.mp4"
    assert (first.label, first.split, first.group) == (0, "train", "-id00000002")
    training = read_catalog(root)
    assert {split: sum(n.values()) for split, n in training.counts().items()} == {"train": 16, "val": 4, "test": 4}
    assert {v.group[-2:] for v in training.select("test").videos} == {"20", "21", "22", "23"}


def test_labelled_test_lists_are_taken_as_they_are(write) -> None:
    root = write(LISTS | {"annotations/test.csv": rows("test", 24, 2)})
    counts = read_catalog(root).counts()
    assert {split: sum(n.values()) for split, n in counts.items()} == {"train": 20, "val": 4, "test": 2}


@pytest.mark.parametrize(
    "file",
    [
        "train/passing_American_football_in_game/_id00000000_000000_000010.mp4",
        "train_256/passing American football in game)/_id00000000_000000_000010.mkv",
        f"{GAME}/_id00000000_000000_000010.webm",
        "videos/train/passing american football (in game)/_id00000000.mp4",
        "val/passing_American_football_(in_game)/_id00000000_000000_000010.mp4",
        "compress/_id00000000_000000_000010.mp4",
        "_id00000000.webm",
    ],
)
def test_videos_are_found_as_copies_name_them(write, file: str) -> None:
    catalog = read_catalog(write(LISTS | {file: ""}), as_listed=True)
    assert file in set(catalog.videos.paths)
    assert len(catalog.missing()) == 23


def test_ids_keep_their_case_and_a_copy_of_the_right_split_comes_first(write) -> None:
    folder = "passing American football (in game)"
    files = {f"{split}/{folder}/_id00000000_000000_000010.mp4": "" for split in ("train", "val")}
    catalog = read_catalog(write(LISTS | files | {f"train/{folder}/-ID00000002_000002_000012.mp4": ""}), as_listed=True)
    paths = set(catalog.videos.paths)
    assert f"train/{folder}/_id00000000_000000_000010.mp4" in paths
    assert f"train/{folder}/-id00000002_000002_000012.mp4" in paths
    assert f"val/{folder}/-id00000020_000020_000030.mp4" in paths  # missing: expected beside the others of its split
    assert len(catalog.missing()) == 23


def test_a_file_of_class_names_keeps_classes_without_videos(write) -> None:
    root = write(LISTS | {"label_map.txt": f"zumba\n{NO_GAME}\n{GAME.replace(' ', '_')}\n", "labels.txt": "other\n"})
    assert read_catalog(root, as_listed=True).classes == ("zumba", NO_GAME, GAME)
    with pytest.raises(UserError, match="class 'zumba' has no training video"):
        read_catalog(root)
    write({"classes.txt": f"{GAME}\n{NO_GAME}\nzumba\n"})
    with pytest.raises(UserError, match=r"classes.txt and .*label_map.txt name the classes differently"):
        read_catalog(root)
    write({"classes.txt": f"{GAME}\n{NO_GAME}\n"})
    assert read_catalog(root).classes == (GAME, NO_GAME)


def test_files_with_the_id_alone_are_read_whole_and_said(write) -> None:
    (remark,) = read_catalog(write(LISTS | {"videos/_id00000000.mp4": ""}), as_listed=True).remarks
    assert remark.startswith("1 files such as 'videos/_id00000000.mp4' are read whole")
    assert (
        read_catalog(write({"x.txt": ""}), as_listed=True, annotations=write({}) / "annotations").format == "kinetics"
    )


@pytest.mark.parametrize(
    "text, message",
    [
        (HEADER + "a,b,1,2\n", r"train.csv, line 2: 4 cells are too few"),
        (HEADER + "a,#NAME?,1,2,train,0\n", r"line 2: youtube_id '#NAME\?' is no video id \(spreadsheet"),
        (HEADER + "a,../../x,1,2,train,0\n", r"line 2: youtube_id '../../x' is no video id"),
        (HEADER + "a,b,x,2,train,0\n", r"line 2: time 'x' is no number of seconds"),
        (HEADER + f"a,b,1,{'9' * 5000},train,0\n", r"line 2: time '9+\.\.\. is no number of seconds"),
        (HEADER + "a,b,1,2,holdout,0\n", r"line 2: unknown split 'holdout'"),
        (HEADER + ",b,1,2,train,0\n", r"line 2: no label"),
        (HEADER + "../../a,b,1,2,train,0\n", r"line 2: path '../../a' leads out"),
        (HEADER + "a,b,1,2,train,0\nc,b,1,2,train,0\na,b,1,2,val,0\n", r"line 4: 'a/b_.*' is listed before, in line 2"),
        (HEADER + '"a,b,1,2,train,0\n', r"line 2: .*expected label,youtube_id"),
        ("label,youtube_id,time_start,split\n", r"line 1: no column 'time_end'"),
    ],
)
def test_mistakes_are_named(write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_catalog(write({"train.csv": text}))
    assert len(str(caught.value)) < 500


def test_lists_without_any_label_or_training_video_are_refused(write) -> None:
    root = write({"test.csv": LISTS["annotations/test.csv"]})
    with pytest.raises(UserError, match="no listed video has a label; add the list of training videos"):
        read_catalog(root)
    listed = read_catalog(root, as_listed=True)  # to be counted, such a list is as good as any
    assert len(listed.videos) == 0
    assert listed.unlabelled > 0
    write({"val.csv": rows("val", 0, 4)})
    with pytest.raises(UserError, match=r"no training videos in .*add the list of training videos"):
        read_catalog(root)
    with pytest.raises(UserError, match=r"no csv file with the header label,youtube_id"):
        read_catalog(write({"x/readme.txt": "hello"}) / "x", format="kinetics")
