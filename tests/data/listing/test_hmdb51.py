"""HMDB-51: the official counts, names that hold anything, films as groups, and what goes wrong with its lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.errors import UserError


def lists(split: int = 1) -> dict[str, str]:
    rows = {
        "kick": [
            ("#1_Ball!_(a)_kick_f_0.avi", 1),
            ("B_kick_f_0.avi", 2),
            ("C d_kick_f_0.avi", 0),
            ("D_kick_f_0.avi", 1),
        ],
        "kick_ball": [("E_kick_ball_f_0.avi", 1), ("E_kick_ball_f_1.avi", 1), ("F_kick_ball_f_0.avi", 2)],
    }
    return {
        f"testTrainMulti_7030_splits/{name}_test_split{split}.txt": "".join(f"{file} {tag} \n" for file, tag in files)
        for name, files in rows.items()
    }


@pytest.mark.parametrize("split", [1, 2, 3])
def test_official_counts_and_ids(shared_data: Path, tmp_path: Path, split: int) -> None:
    annotations = shared_data / "annotations"
    official = annotations / "hmdb51_testTrainMulti_7030_splits"
    catalog = read_catalog(tmp_path, annotations=official, split=split, as_listed=True)
    assert catalog.format == "hmdb51"
    assert set(catalog.counts()["train"].values()) == {70}
    assert set(catalog.counts()["test"].values()) == {30}
    assert list(catalog.classes) == (annotations / "mmaction2" / "hmdb51_label_map.txt").read_text().split()
    # The class list that goes round with the splits is in the order of the files' names.
    assert set(catalog.classes) == set((annotations / "hmdb51_class_list.txt").read_text().split())
    assert all(f"_{catalog.classes[video.label]}_" in video.path for video in catalog.videos)
    held = read_catalog(tmp_path, annotations=official, split=split)
    assert all(held.counts()["val"].values())
    films = {split: {v.group for v in held.videos if v.split == split} for split in ("train", "val")}
    assert not films["train"] & films["val"]


def test_names_tags_and_groups(write) -> None:
    catalog = read_catalog(write(lists()), as_listed=True)
    assert catalog.classes == ("kick", "kick_ball")
    assert [(v.path, v.label, v.split, v.group) for v in catalog.videos] == [
        ("kick/#1_Ball!_(a)_kick_f_0.avi", 0, "train", "#1_Ball!_(a)"),
        ("kick/B_kick_f_0.avi", 0, "test", "B"),
        ("kick/D_kick_f_0.avi", 0, "train", "D"),
        ("kick_ball/E_kick_ball_f_0.avi", 1, "train", "E"),
        ("kick_ball/E_kick_ball_f_1.avi", 1, "train", "E"),
        ("kick_ball/F_kick_ball_f_0.avi", 1, "test", "F"),
    ]


def test_unpacked_copies_spell_the_number_sign_differently(write) -> None:
    copies = {"hmdb51/kick/@1_Ball!_(a)_kick_f_0.avi": "", "hmdb51/kick ball/E_kick_ball_f_0.mp4": ""}
    catalog = read_catalog(write(lists() | copies), as_listed=True)
    assert copies.keys() <= {video.path for video in catalog.videos}
    assert len(catalog.missing()) == 4


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.avi 3\n", r"kick_test_split1.txt, line 1: 'a.avi 3' does not end with 0, 1 or 2"),
        ("\na.avi\n", r"line 2: 'a.avi' does not end with 0, 1 or 2"),
        ("../a.avi 1\n", r"line 1: path '../a.avi' leads out"),
        ("x/a.avi 1\n", r"line 1: 'x/a.avi' is no file name"),
        ("a_kick_.avi 1\na_kick_.avi 2\n", r"line 2: 'kick/a_kick_.avi' is listed before, in line 1"),
    ],
)
def test_mistakes_are_named(write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_catalog(write(lists() | {"testTrainMulti_7030_splits/kick_test_split1.txt": text}), as_listed=True)


def test_absent_lists_are_named(write) -> None:
    root = write(lists())
    with pytest.raises(UserError, match=r"no file such as brush_hair_test_split3.txt in .*type --data.split 1"):
        read_catalog(root, split=3)
    write({"testTrainMulti_7030_splits/run_test_split2.txt": "a.avi 1\n"})
    with pytest.raises(UserError, match=r"no run_test_split1.txt in .*another split has class 'run'"):
        read_catalog(root)
