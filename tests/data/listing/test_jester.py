"""Jester: both forms of its lists, ids by their own label file, and what goes wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.errors import UserError

TEXTS = {
    "annotations/jester-v1-labels.csv": "Swiping Left\nNo gesture\n",
    "annotations/jester-v1-train.csv": "".join(f"{n};{('Swiping Left', 'No gesture')[n % 2]}\n" for n in range(20)),
    "annotations/jester-v1-validation.csv": "100;No gesture\n101;Swiping_Left\n",
    "annotations/jester-v1-test.csv": "200\n201\n",
}
NUMBERS = {
    "classInd.txt": "1 No_gesture\n2 Swiping_Left\n",
    "label_map.txt": "Swiping Left\nNo gesture\n",
    "trainlist.txt": "".join(f"{n} {n % 2 + 1}\n" for n in range(20)),
    "vallist.txt": "100 1\n101 2\n",
}


def test_official_validation_list(shared_data: Path, tmp_path: Path) -> None:
    official = shared_data / "annotations" / "jester"
    catalog = read_catalog(tmp_path, annotations=official, as_listed=True)
    assert catalog.format == "jester"
    assert catalog.summary() == "14787 videos of 27 classes (train 0, val 14787, test 0)"
    assert list(catalog.classes) == (official / "classInd.txt").read_text().split()[1::2]
    expected = dict(line.split() for line in (official / "vallist.txt").read_text().splitlines())
    assert {Path(v.path).stem: str(v.label + 1) for v in catalog.videos} == expected


def test_labels_by_name(write) -> None:
    catalog = read_catalog(write(TEXTS | {"20bn-jester-v1/5.webm": ""}), as_listed=True)
    assert catalog.classes == ("Swiping Left", "No gesture")
    assert (catalog.format, catalog.unlabelled) == ("jester", 2)
    by_name = {Path(video.path).stem: video for video in catalog.videos}
    assert (by_name["5"].path, by_name["5"].label) == ("20bn-jester-v1/5.webm", 1)
    assert (by_name["101"].path, by_name["101"].label) == ("20bn-jester-v1/101.mp4", 0)


def test_labels_by_number_follow_the_file_that_numbers_them(write) -> None:
    catalog = read_catalog(write(NUMBERS))
    assert catalog.classes == ("No_gesture", "Swiping_Left")
    assert {v.path: v.label for v in catalog.videos if v.split == "test"} == {"100.mp4": 0, "101.mp4": 1}
    assert {s: sum(n.values()) for s, n in catalog.counts().items()} == {"train": 16, "val": 4, "test": 2}


def test_folders_of_frames_are_refused_with_the_command_that_makes_videos(write) -> None:
    root = write(TEXTS | {"20bn-jester-v1/5/00001.jpg": ""})
    with pytest.raises(UserError, match=r"train.csv, line 6: '5' is a folder of frames.*ffmpeg .* 5/%05d.jpg 5.mp4"):
        read_catalog(root)
    write({"20bn-jester-v1/5.mp4": ""})
    assert len(read_catalog(root, as_listed=True).missing()) == 21


@pytest.mark.parametrize(
    "files, message",
    [
        (
            TEXTS | {"annotations/jester-v1-train.csv": "1;Waving\n"},
            r"jester-v1-train.csv, line 1: label 'Waving' is not",
        ),
        (TEXTS | {"annotations/jester-v1-train.csv": "1;No gesture\n2\n"}, r"line 2: no label"),
        (TEXTS | {"annotations/jester-v1-train.csv": "1;No gesture\nx;y\n"}, r"line 2: 'x;y' is no 'id;label'"),
        (TEXTS | {"annotations/jester-v1-train.csv": "1 1\n"}, r"line 1: number '1' needs classInd.txt"),
        (NUMBERS | {"trainlist.txt": "1 3\n"}, r"trainlist.txt, line 1: label '3' is not in classInd.txt"),
        (NUMBERS | {"trainlist.txt": "1 99999999999\n"}, r"line 1: label '99999999999' is not in"),
        (NUMBERS | {"trainlist.txt": "1 1\n1 2\n"}, r"line 2: '1.mp4' is listed before, in line 1"),
        ({"trainlist.txt": "1 1\n"}, r"no jester-v1-labels.csv or classInd.txt"),
        ({"trainlist.txt": "a.mp4 1\n"}, r"no jester-v1-train.csv or trainlist.txt"),
    ],
)
def test_mistakes_are_named(write, files: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_catalog(write(files), format="jester", as_listed=True)
