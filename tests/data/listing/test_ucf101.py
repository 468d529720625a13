"""UCF-101: the official counts and ids, groups, and what goes wrong with its lists."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.errors import UserError

CLASSES = "1 Hammering\r\n2 HammerThrow\r\n3 HandstandPushups\r\n"


def lists(clips: int = 6, **changes: str) -> dict[str, str]:
    names = {1: "Hammering", 2: "HammerThrow", 3: "HandstandPushups"}
    train = "".join(
        f"{name}/v_{name.replace('stand', 'Stand')}_g{group:02d}_c01.avi {number}\r\n"
        for number, name in names.items()
        for group in range(1, clips + 1)
    )
    test = "".join(f"{name}/v_{name.replace('stand', 'Stand')}_g09_c01.avi\r\n" for name in names.values())
    files = {"classInd.txt": CLASSES, "trainlist01.txt": train, "testlist01.txt": test, **changes}
    return {f"ucfTrainTestlist/{name}": text for name, text in files.items()}


@pytest.mark.parametrize("split, train, test", [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_official_counts_and_ids(shared_data: Path, tmp_path: Path, split: int, train: int, test: int) -> None:
    official = shared_data / "annotations" / "ucfTrainTestlist"
    catalog = read_catalog(tmp_path, annotations=official, split=split, as_listed=True)
    assert catalog.format == "ucf101"
    assert catalog.summary() == f"13320 videos of 101 classes (train {train}, val 0, test {test})"
    lines = (official / "classInd.txt").read_text().split()
    assert list(catalog.classes) == lines[1::2]
    assert list(catalog.classes) != sorted(catalog.classes)
    assert all(catalog.classes[video.label] == video.path.split("/")[0] for video in catalog.videos)
    groups = defaultdict(set)
    for video in read_catalog(tmp_path, annotations=official, split=split).videos:
        groups[video.group].add(video.split)
    assert len(groups) == 101 * 25
    assert all(len(splits) == 1 for splits in groups.values())


def test_ids_follow_the_class_file_and_validation_is_held_out_by_group(write) -> None:
    root = write(lists())
    assert read_catalog(root, as_listed=True).summary() == "21 videos of 3 classes (train 18, val 0, test 3)"
    catalog = read_catalog(root)
    assert catalog.classes == ("Hammering", "HammerThrow", "HandstandPushups")
    assert catalog.counts()["val"] == dict.fromkeys(catalog.classes, 1)
    first = catalog.videos[0]
    assert (first.path, first.label, first.group) == ("HammerThrow/v_HammerThrow_g01_c01.avi", 1, "HammerThrow/g01")


def test_videos_are_found_in_customary_folders_whatever_their_case_or_ending(write) -> None:
    found = {
        "UCF-101/HandStandPushups/v_handstandPushups_g01_c01.avi": "",
        "UCF-101/Hammering/v_Hammering_g01_c01.mp4": "",
    }
    catalog = read_catalog(write(lists() | found))
    paths = {video.path for video in catalog.videos}
    assert found.keys() <= paths
    assert "UCF-101/HammerThrow/v_HammerThrow_g01_c01.avi" in paths  # where a missing one belongs
    assert len(catalog.missing()) == 19


def test_a_list_file_stands_for_its_folder(write) -> None:
    root = write({Path(name).name: text for name, text in lists().items()})
    assert read_catalog(root / "trainlist01.txt", as_listed=True).format == "ucf101"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"trainlist01.txt": "Hammering/a.avi\n"}, r"trainlist01.txt, line 1: 'Hammering/a.avi' has no label"),
        (
            {"trainlist01.txt": "Hammering/a.avi 1\nHammering/b.avi 2\n"},
            r"line 2: number 2 is not that of .'Hammering'",
        ),
        ({"trainlist01.txt": "Hammering/a.avi 0\n"}, r"line 1: number 0 is not that of class 'Hammering'"),
        ({"testlist01.txt": "Juggling/a.avi\n"}, r"testlist01.txt, line 1: 'Juggling' is no class of classInd.txt"),
        ({"testlist01.txt": "a.avi\n"}, r"line 1: '' is no class of classInd.txt"),
        ({"testlist01.txt": "../Hammering/a.avi\n"}, r"line 1: path '../Hammering/a.avi' leads out"),
        ({"testlist01.txt": "Hammering/v_Hammering_g01_c01.avi\n"}, r"is listed before, in .*testlist01.txt, line 1"),
        ({"classInd.txt": "1 A\n3 B\n"}, r"classInd.txt: the classes are not numbered 1, 2, 3"),
        ({"classInd.txt": "1 A\n1 B\n"}, r"classInd.txt: the classes are not numbered 1, 2, 3"),
        ({"classInd.txt": "1 Walk_fast\n2 walk fast\n"}, r"line 2: class 'walk fast' is named before, in line 1"),
        ({"classInd.txt": ""}, r"classInd.txt is empty"),
    ],
)
def test_mistakes_are_named(write, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".'", "class '")) as caught:
        read_catalog(write(lists(**changes)), format="ucf101")
    assert "\n" not in str(caught.value)


def test_a_split_or_class_file_that_is_absent_is_named(write) -> None:
    root = write(lists())
    with pytest.raises(UserError, match=r"no trainlist02.txt or testlist02.txt in .*type --data.split 1"):
        read_catalog(root, split=2)
    with pytest.raises(UserError, match="splits are numbered from 1"):
        read_catalog(root, split=0)
    (root / "ucfTrainTestlist" / "classInd.txt").unlink()
    with pytest.raises(UserError, match=r"no classInd.txt in .*put it beside trainlist01.txt"):
        read_catalog(root, format="ucf101")
