"""Reading a data set's list of videos: layouts, splits of our own, and every way in which a folder can be wrong."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import read_catalog
from pvnas.data.catalog import Catalog, Video, bytes_of
from pvnas.data.listing.registry import Entry
from pvnas.data.listing.splits import hold_out
from pvnas.data.pack.write import spread_order
from pvnas.errors import UserError


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def split_file(root: Path, *rows: str, header: str = "path,label,split,group") -> Path:
    root.mkdir(exist_ok=True)
    (root / "split.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return root


def class_folders(root: Path, videos: int = 20) -> Path:
    return touch(
        root, *(f"{name}/{number:02d}.mp4" for name in ("run", "jump", "Walk fast") for number in range(videos))
    )


def splits_of(catalog: Catalog) -> dict[str, str]:
    return {video.path: video.split for video in catalog.videos}


def test_class_folders_are_split_by_share_in_every_class(tmp_path: Path) -> None:
    catalog = read_catalog(class_folders(tmp_path))
    assert catalog.classes == ("Walk fast", "jump", "run")
    assert catalog.counts() == {
        split: dict.fromkeys(catalog.classes, number) for split, number in (("train", 13), ("val", 3), ("test", 4))
    }
    assert [video.path for video in catalog.videos] == sorted(video.path for video in catalog.videos)
    assert catalog.summary() == "60 videos of 3 classes (train 39, val 9, test 12)"
    assert len(catalog.missing()) == 0


def test_the_split_depends_on_seed_and_names_only(tmp_path: Path) -> None:
    first, second = class_folders(tmp_path / "a"), tmp_path / "b"
    paths = [path.relative_to(first).as_posix() for path in first.rglob("*.mp4")]
    random.Random(1).shuffle(paths)
    touch(second, *paths)
    assert splits_of(read_catalog(first)) == splits_of(read_catalog(second))
    assert splits_of(read_catalog(first)) != splits_of(read_catalog(first, seed=1))


def test_groups_in_names_stay_together(tmp_path: Path) -> None:
    for name in ("Archery", "Bowling"):
        touch(tmp_path, *(f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi" for group in range(10) for clip in range(5)))
    catalog = read_catalog(tmp_path)
    by_group = defaultdict(set)
    for video in catalog.videos:
        by_group[video.group].add(video.split)
    assert len(by_group) == 20
    assert all(len(splits) == 1 for splits in by_group.values())
    assert catalog.counts()["test"] == {"Archery": 10, "Bowling": 10}
    assert catalog.counts()["val"] == {"Archery": 5, "Bowling": 5}  # 7.5 fit one group of five


def test_named_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{s}/{c}/1.webm" for s in ("train", "validation", "test") for c in ("a", "b")),
        "train/a/deep/2.MP4",
    )
    catalog = read_catalog(tmp_path)
    assert catalog.counts() == {"train": {"a": 2, "b": 1}, "val": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}


@pytest.mark.parametrize("present, absent", [("valid", "test"), ("test", "val")])
def test_a_split_without_folder_is_held_out_of_train(tmp_path: Path, present: str, absent: str) -> None:
    touch(tmp_path, *(f"train/{c}/{n}.mp4" for c in "ab" for n in range(10)), *(f"{present}/{c}/x.mp4" for c in "ab"))
    catalog = read_catalog(tmp_path)
    assert sum(catalog.counts()[absent].values()) == 4
    assert sum(catalog.counts()["train"].values()) == 16
    assert len(catalog.videos) == 22


def test_train_with_videos_of_its_own_is_a_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}.mp4" for name in ("train", "bus", "test") for number in range(3)))
    assert read_catalog(tmp_path).classes == ("bus", "test", "train")


def test_hidden_and_other_files_are_no_videos(tmp_path: Path) -> None:
    touch(class_folders(tmp_path), "run/notes.txt", "run/.hidden.mp4", ".cache/a.mp4", "README.md", "run/a.M3U8")
    catalog = read_catalog(tmp_path)
    assert len(catalog.videos) == 60
    assert len(catalog.classes) == 3


def test_split_csv_gives_labels_splits_and_groups(tmp_path: Path) -> None:
    rows = ["./x/a 1.mp4,go,train,g1", '"x/b,2.mp4",go,validation,', "c.mp4,stop,train,g1", "d.mp4,stop,test,g2"]
    split_file(tmp_path, *rows)
    (tmp_path / "split.csv").write_bytes(
        b"\xef\xbb\xbf" + (tmp_path / "split.csv").read_bytes().replace(b"\n", b"\r\n")
    )
    touch(tmp_path, "c.mp4")
    catalog = read_catalog(tmp_path)
    assert [(v.path, v.label, v.split, v.group) for v in catalog.videos] == [
        ("c.mp4", 1, "train", "g1"),
        ("d.mp4", 1, "test", "g2"),
        ("x/a 1.mp4", 0, "train", "g1"),
        ("x/b,2.mp4", 0, "val", None),
    ]
    assert [video.path for video in catalog.missing()] == ["d.mp4", "x/a 1.mp4", "x/b,2.mp4"]


def test_split_csv_needs_no_group_and_may_name_training_videos_only(tmp_path: Path) -> None:
    split_file(tmp_path, *(f"{c}{n}.mp4,{c},train" for c in "ab" for n in range(10)), header="path,label,split")
    assert {split: sum(n.values()) for split, n in read_catalog(tmp_path).counts().items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }


def test_selecting_and_dropping_keep_the_classes(tmp_path: Path) -> None:
    catalog = read_catalog(class_folders(tmp_path))
    test = catalog.select("test")
    assert {video.split for video in test.videos} == {"test"}
    assert test.classes == catalog.classes
    dropped = {video.path for video in test.videos}
    rest = catalog.without(dropped)
    assert len(rest.videos) == 48
    assert not rest.select("test").videos
    with pytest.raises(ValueError, match="unknown split"):
        catalog.select("validation")


def test_a_class_without_usable_videos_is_told_by_one_of_its_own(tmp_path: Path) -> None:
    videos = [Video(f"{name}/{n}.mp4", "ab".index(name), "train") for name in "ab" for n in range(2)]
    bad = [("a/0.mp4", "unreadable: noise"), ("b/0.mp4", "empty: nothing"), ("b/1.mp4", "empty: nothing")]
    with pytest.raises(UserError, match=r"of class 'b' can be used; the first is 'b/0.mp4' \(empty: nothing\)"):
        Catalog.of(tmp_path, "ab", videos).without_bad(bad, 1.0, verb="used", listed="verdicts.csv", advice="")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8)), min_size=1, max_size=60),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
    st.randoms(use_true_random=False),
)
def test_holding_out_never_cuts_a_group_nor_empties_a_class(rows, validation, test, order) -> None:
    entries = [Entry(f"{n}.mp4", label, None, f"g{group}") for n, (label, group) in enumerate(rows)]
    shares = {"val": validation, "test": test}
    splits = {e.path: split for e, split in zip(entries, hold_out(entries, shares, seed=3), strict=True)}
    groups = defaultdict(set)
    for entry in entries:
        groups[entry.group].add(splits[entry.path])
    assert all(len(found) == 1 for found in groups.values())
    assert {e.label for e in entries if splits[e.path] == "train"} == {e.label for e in entries}
    shuffled = list(entries)
    order.shuffle(shuffled)
    assert splits == {e.path: s for e, s in zip(shuffled, hold_out(shuffled, shares, seed=3), strict=True)}


@pytest.mark.parametrize("videos, expected", [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (7, (5, 1, 1))])
def test_small_classes_give_to_the_test_first(videos: int, expected: tuple[int, int, int]) -> None:
    splits = hold_out([Entry(f"{n}", "a") for n in range(videos)], {"val": 0.15, "test": 0.2}, 0)
    assert tuple(splits.count(split) for split in ("train", "val", "test")) == expected


def test_a_share_of_nothing_holds_out_nothing(tmp_path: Path) -> None:
    catalog = read_catalog(class_folders(tmp_path), validation_share=0, test_share=0)
    assert {video.split for video in catalog.videos} == {"train"}


def test_a_wrong_path_a_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.* does not exist"):
        read_catalog(tmp_path / "nowhere")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(UserError, match="is one video; give a folder"):
        read_catalog(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"only one class, .* no class folders in "):
        read_catalog(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no videos found"):
        read_catalog(tmp_path / "empty")


@pytest.mark.parametrize(
    "paths, message",
    [
        (["run/a.mp4", "run/b.mp4"], "only one class, 'run'"),
        (["run/a.mp4", "jump/readme.txt"], "'jump' holds no videos"),
        (
            ["run/a.mp4", "jump/a.mp4"],
            "too few videos .* split 'val' and 'test'; .* type --data.validation_share 0 --data.test_share 0$",
        ),
        (["run/a.mp4", "run/b.mp4", "jump/a.mp4", "jump/b.mp4"], "split 'val'; .* type --data.validation_share 0$"),
        (["train/run/a.mp4", "train/jump/a.mp4", "test/swim/a.mp4"], "class 'swim' has no training video"),
        (["val/run/a.mp4", "test/run/a.mp4"], "or a folder 'train'"),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path: Path, paths: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_catalog(touch(tmp_path, *paths))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row, message",
    [
        ("b.mp4,go,holdout,", r"line 3: unknown split 'holdout'"),
        ("b.mp4,,train,", r"line 3: no label"),
        (",go,train,", r"line 3: no path"),
        ("b.mp4,go", None),
        ("b,2.mp4,go,train,g", r"line 3: more cells"),
        ("a.mp4,go,train,", r"line 3: 'a.mp4' is listed before, in line 2"),
        ("../b.mp4,go,train,", r"line 3: path '../b.mp4' leads out"),
        ("x/../../b.mp4,go,train,", r"line 3: path .* leads out"),
        ("/etc/passwd,go,train,", r"line 3: path '/etc/passwd' leads out"),
        ('"b.mp4,go', r"line 3: .*expected path,label,split,group"),
    ],
)
def test_a_faulty_row_is_named_by_its_line(tmp_path: Path, row: str, message: str | None) -> None:
    root = split_file(tmp_path, "a.mp4,stop,train,", row)
    if message is None:  # a row that ends early is a training video
        assert {v.split for v in read_catalog(root, validation_share=0, test_share=0).videos} == {"train"}
        return
    with pytest.raises(UserError, match=message):
        read_catalog(root)


def test_a_wrong_header_and_a_wrong_encoding_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'label'"):
        read_catalog(split_file(tmp_path, "a.mp4,go", header="path,kind"))
    (tmp_path / "split.csv").write_bytes(b"path,label,split\na.mp4,gr\xfcn,train\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_catalog(tmp_path)
    (tmp_path / "split.csv").write_bytes(b"")
    with pytest.raises(UserError, match="no column 'path'"):
        read_catalog(tmp_path)


def test_links_out_of_the_folder_are_refused_and_links_inside_work(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "secret.mp4")
    root = class_folders(tmp_path / "data")
    (root / "run" / "again.mp4").symlink_to(root / "run" / "00.mp4")
    assert len(read_catalog(root).videos) == 61
    (root / "run" / "link.mp4").symlink_to(outside / "secret.mp4")
    with pytest.raises(UserError, match=r"'run/link.mp4' is a symbolic link out"):
        read_catalog(root)
    split_file(root, "run/00.mp4,run,train,", "run/link.mp4,jump,train,")
    with pytest.raises(UserError, match=r"line 3: 'run/link.mp4' is a symbolic link out"):
        read_catalog(root)
    (root / "split.csv").unlink()
    (root / "run" / "link.mp4").unlink()
    (root / "swim").symlink_to(outside)
    with pytest.raises(UserError, match="'swim' is a symbolic link out"):
        read_catalog(root)


def test_a_linked_folder_in_a_class_does_not_lead_round_in_circles(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    (root / "run" / "again").symlink_to(root / "run")
    with pytest.raises(UserError, match="link to a folder inside a class"):
        read_catalog(root)


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.5, 0.5), (0.2, 1.0), (float("nan"), 0.1)])
def test_impossible_shares_are_refused(tmp_path: Path, shares: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="leave nothing to train on"):
        read_catalog(class_folders(tmp_path), validation_share=shares[0], test_share=shares[1])


def test_the_generated_set_reads_as_written(tiny_shapes: Path) -> None:
    catalog = read_catalog(tiny_shapes)
    assert len(catalog.classes) == 8
    assert {split: set(by_class.values()) for split, by_class in catalog.counts().items()} == {
        "train": {4},
        "val": {1},
        "test": {1},
    }
    assert not catalog.missing()


def test_real_folder_with_a_given_split(shared_data: Path) -> None:
    catalog = read_catalog(shared_data / "jhmdb")
    assert catalog.summary() == "928 videos of 21 classes (train 561, val 129, test 238)"
    assert not catalog.missing()


def test_a_link_that_leads_nowhere_costs_a_folder_nothing_else(tmp_path: Path) -> None:
    (touch(tmp_path, "a.mp4", "b.mp4") / "loop").symlink_to("loop")
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    split_file(tmp_path, "a.mp4,run,train,", "b.mp4,jump,train,")
    assert read_catalog(tmp_path, as_listed=True).classes == ("jump", "run")


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    split_file(tmp_path, "a.mp4,run,train,,b.mp4", header="path,label,split,group,path")
    with pytest.raises(UserError, match=r"split.csv, line 1: column 'path' is there twice; remove one"):
        read_catalog(tmp_path, as_listed=True)


def test_half_of_a_character_in_a_list_ends_nothing(tmp_path: Path) -> None:
    """JSON can say \\ud800, which no file's name holds: such a video is missing, as any other one."""
    names = ["half \ud800", "byte \udcff", "é"]
    assert [bytes_of(name) for name in names] == [b"half \xed\xa0\x80", b"byte \xff", "é".encode()]
    videos = [Video(f"{name}.mp4", 0, "train") for name in names]
    catalog = Catalog.of(tmp_path, ["a"], videos)
    assert len(catalog.missing()) == 3
    assert sorted(spread_order(videos, 0).tolist()) == [0, 1, 2]
    entries = [Entry(video.path, "a") for video in videos]
    assert sorted(hold_out(entries, {"test": 0.3}, 0)) == ["test", "train", "train"]


def test_a_segment_says_its_seconds_and_an_open_end_nothing() -> None:
    names = [Video("a.mp4", 0, "train", None, *ends).name for ends in ((0.5, 1.25), (0.5, math.inf), (0, 2))]
    assert names == ["a.mp4 [0.5-1.25 s]", "a.mp4 [0.5- s]", "a.mp4 [0-2 s]"]
