"""Lists of `path label`: paths that hold anything, names of classes, splits told by file names, others' lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalogs import read_catalog
from pvnas.config import DataConfig
from pvnas.data.listing import finder, registry
from pvnas.data.listing.finder import split_in_name
from pvnas.data.listing.path_list import parse_line
from pvnas.data.listing.registry import ListFolder
from pvnas.errors import UserError

NAMES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\n/") | st.sampled_from(" ,\t\"'#\u3000\x85"),
    min_size=1,
    max_size=20,
)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@given(NAMES, st.integers(0, 10**9 - 1), st.sampled_from([",", " ", "\t", ", "]))
@example('"', 0, " ")
@example('a" 3', 0, ",")
def test_a_quoted_path_comes_back_as_written(path: str, label: int, between: str) -> None:
    if path.strip():
        row = parse_line(f"{quoted(path)}{between}{label}", "here")
        assert (row.path, row.label, row.is_text) == (path, str(label), False)


@given(NAMES, NAMES, st.sampled_from([",", " ", "\t"]))
def test_a_quoted_class_name_comes_back_as_written(path: str, name: str, between: str) -> None:
    if path.strip() and name.strip():
        row = parse_line(f"{quoted(path)}{between}{quoted(name)}", "here")
        assert (row.path, row.label, row.is_text) == (path, name.strip(), True)


@given(NAMES, st.integers(0, 999), st.sampled_from([",", " ", "\t", "  ", ", ", " ,"]))
def test_a_plain_line_is_cut_once_from_the_right(path: str, label: int, between: str) -> None:
    path = path.strip(" \t,").lstrip('"') + " 7 b.mp4"
    if path[0] not in " \t":
        row = parse_line(f"{path}{between}{label}", "here")
        assert (row.path, row.label, row.is_text) == (path, str(label), False)


@given(st.text(max_size=60))
def test_any_line_is_read_or_refused_in_one_line(line: str) -> None:
    message = ""
    try:
        row = parse_line(line, "here")
        assert row.path
        assert row.label
    except UserError as error:
        message = str(error)
    assert "\n" not in message


def test_every_separator_and_quote_in_one_list(write) -> None:
    text = (
        "\ufeffair drumming/a b.mp4 1\r\n"
        "a,b.mp4,0\r\n"
        "\r\n"
        "tab b.mp4\t0\r\n"
        '"c, d.mp4",1\r\n'
        '"he said ""hi"".mp4" 1\r\n'
        "-starts #odd.mp4 0\r\n"
        "spaced.mp4, 1\r\n"
    )
    catalog = read_catalog(write({"train.csv": text, "spaced.mp4": ""}), as_listed=True)
    assert (catalog.format, catalog.classes) == ("list", ("0", "1"))
    assert {video.path: video.label for video in catalog.videos} == {
        "air drumming/a b.mp4": 1,
        "a,b.mp4": 0,
        "tab b.mp4": 0,
        "c, d.mp4": 1,
        'he said "hi".mp4': 1,
        "-starts #odd.mp4": 0,
        "spaced.mp4": 1,
    }
    assert len(catalog.missing()) == 6


@pytest.mark.parametrize(
    "name, split",
    [
        *[("train", "train"), ("val", "val"), ("test", "test"), ("trainlist01", "train"), ("vallist", "val")],
        *[("kinetics400_train_list_videos", "train"), ("validation_set", "val"), ("sthv2_val_list_rawframes", "val")],
        *[("my_videos", None), ("training_log", "train"), ("contest", None), ("train_val", None)],
    ],
)
def test_the_split_is_in_the_name(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_splits_of_several_lists_and_videos_in_customary_folders(write) -> None:
    train = "".join(f"c{n % 2}/{n}.mp4 {n % 2}\n" for n in range(20))
    root = write(
        {
            "kinetics400_train_list_videos.txt": train,
            "kinetics400_val_list_videos.txt": "c0/x.mp4 0\nc1/y.mp4 1\n",
            "kinetics400_val_list_rawframes.txt": "c0/x 300 0\n",
            "videos_val/c0/x.mp4": "",
            "videos_train/c1/1.mp4": "",
        }
    )
    listed = read_catalog(root, as_listed=True)
    assert listed.summary() == "22 videos of 2 classes (train 20, val 2, test 0)"
    paths = set(listed.videos.paths)
    assert {"videos_val/c0/x.mp4", "videos_train/c1/1.mp4", "videos_train/c1/3.mp4"} <= paths
    assert len(listed.missing()) == 20
    counts = read_catalog(root).counts()
    assert {split: sum(n.values()) for split, n in counts.items()} == {"train": 16, "val": 2, "test": 4}


def test_only_lists_of_the_wanted_split_are_read(write) -> None:
    root = write({f"ucf_train_split_{n}_videos.txt": f"a/{n}.avi 0\nb/{n}.avi 1\n" for n in (1, 2)})
    assert {v.path for v in read_catalog(root, split=2, as_listed=True).videos} == {"a/2.avi", "b/2.avi"}


def test_one_list_is_named_and_split_by_us(write) -> None:
    root = write({"mine.txt": "".join(f"{n}.mp4 {n % 2}\n" for n in range(20)), "other.txt": "notes, version 3\n"})
    for catalog in (
        read_catalog(root / "mine.txt"),
        read_catalog(root),
        read_catalog(root, annotations=root / "mine.txt"),
    ):
        assert catalog.root == root
        assert {split: sum(n.values()) for split, n in catalog.counts().items()} == {"train": 12, "val": 4, "test": 4}


@pytest.mark.parametrize(
    "names, labels, classes",
    [
        ({"classes.txt": "walk\nrun fast\n"}, (0, 1), ("walk", "run fast")),
        ({"label_map.txt": "walk\nrun\nswim"}, (0, 1), ("walk", "run", "swim")),
        ({"classInd.txt": "1 walk\n2 run\n"}, (1, 2), ("walk", "run")),
        ({"classInd.txt": "1 walk\n2 run\n"}, (0, 1), ("walk", "run")),  # MMAction2 counts from 0 beside such a file
        ({}, (0, 2), ("0", "1", "2")),
        ({}, ('"walk"', '"1"'), ("1", "walk")),
        ({"labels.txt": "walk\nrun\nRun Fast\n"}, ('"walk"', '"run_fast"'), ("walk", "run", "Run Fast")),
    ],
)
def test_names_of_classes(write, names: dict[str, str], labels: tuple, classes: tuple[str, ...]) -> None:
    text = "".join(f"{n}.mp4,{label}\n" for n, label in enumerate(labels))
    catalog = read_catalog(write({"train.txt": text, **names}), as_listed=True)
    assert catalog.classes == classes
    ids = [video.label for video in catalog.videos]
    if "classInd.txt" in names:
        assert ids == [0, 1]
    elif isinstance(labels[0], int):
        assert ids == list(labels)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.mp4\n", r"train.txt, line 1: 'a.mp4' has no label"),
        ("a.mp4 0\nb.mp4 x\n", r"line 2: label 'x' and '0' of .*line 1 are not of one kind"),
        ("a.mp4 -1\n", r"line 1: label '-1' is no number from 0"),
        (f"a.mp4 {'9' * 5000}\n", r"line 1: label '9+\.\.\. is no number"),
        ("a.mp4 ٣\n", r"line 1: label .* is no number from 0"),
        ("a.mp4 999999999\n", r"line 1: label 999999999 is too large; number the classes from 0"),
        ('"a.mp4 0\n', r"line 1: .* has a quote that is not closed"),
        ('"a.mp4"b 0\n', r"line 1: .* has a quote that is not closed"),
        ('"a.mp4"\n', r"line 1: no label"),
        ('"",3\n', r"line 1: no path"),
        ('a.mp4,"walk"\nb.mp4,1\n', r"line 2: label '1' and 'walk' of .*line 1 are not of one kind"),
        ("a.mp4 0 3\n", r"line 1: several labels for 'a.mp4'; give each video one label"),
        ("a.mp4 0\nimgs 2 5 127\n", r"line 2: 'imgs 2 5 127' has several numbers: several labels, or where"),
        ("3 a.mp4\n", r"line 1: 'a.mp4' stands where the label should; expected 'path label'"),
        ("a.mp4,walk\na.mp4,run\n", r"line 2: 'a.mp4' is listed before, in line 1; give each video one label"),
        ("a.mp4,walk,train\n", r"line 1: more than path and label; give the list a header, such as path,label,split"),
        ("a.mp4 0\n./a.mp4 1\n", r"line 2: 'a.mp4' is listed before, in line 1"),
        ("\n", r"train.txt is empty"),
        (b"a.mp4 0\nb\xff.mp4 0\n", r"train.txt, line 2: not UTF-8 text; save the file as UTF-8"),
        ("a.mp4 0\n\0.mp4 0\n", r"train.txt, line 2: holds a NUL character"),
        ("a.mp4 0\n../b.mp4 0\n", r"line 2: path '../b.mp4' leads out .*type --data.allow_outside FOLDER"),
        ("/etc/passwd 0\n", r"line 1: path '/etc/passwd' leads out"),
        ("/a.mp4 0\n", r"line 1: '/a.mp4' does not exist, and no file in .* ends so; give paths relative"),
    ],
)
def test_mistakes_are_named(write, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_catalog(write({"train.txt": text}), format="list", as_listed=True)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_absurd_paths_are_only_missing(write) -> None:
    long = "x" * 5000
    root = write({"train.txt": f"{long}/a.mp4 0\n{'y/' * 3000}b.mp4 1\n{long}.mp4 1\n"})
    assert len(read_catalog(root, as_listed=True).missing()) == 3
    with pytest.raises(UserError, match="does not exist"):
        read_catalog(root / long)


def test_labels_beyond_the_named_classes_and_two_lists_of_a_split_are_refused(write) -> None:
    root = write({"train.txt": "a.mp4 0\nb.mp4 2\n", "classes.txt": "walk\nrun\n"})
    with pytest.raises(UserError, match=r"train.txt, line 2: label 2 is beyond the classes of .*classes.txt"):
        read_catalog(root)
    write({"train_list.csv": "a.mp4 0\n"})
    with pytest.raises(UserError, match=r"train.txt and .*train_list.csv both list split 'train'"):
        read_catalog(root)
    with pytest.raises(UserError, match=r"no list such as train.csv"):
        read_catalog(write({"x/notes.txt": "hello"}) / "x", format="list")


def test_lists_of_mmaction2(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "mmaction2"
    with pytest.raises(UserError, match=r"rawframe_test_list.txt, line 1: label 127 is beyond the classes of .*hmdb51"):
        read_catalog(folder / "rawframe_test_list.txt")  # of another data set than the label maps that lie there
    for name, line in (("rawframe_test_list_with_offset", 1), ("rawframe_test_list_multi_label", 2)):
        with pytest.raises(UserError, match=f"line {line}: 'imgs .* has several numbers: several labels, or where the"):
            read_catalog(folder / f"{name}.txt")
    with pytest.raises(UserError, match=r"line 1: several labels for 'test.mp4'"):
        read_catalog(folder / "video_test_list_multi_label.txt")


def test_videos_of_one_name_in_folders_of_their_own_are_each_found_at_once(
    write, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 300
    root = write({f"some/{n:03}/clip.mp4": "" for n in range(number)})
    (root / "train.txt").write_text("".join(f"{n:03}/clip.mp4 {n % 2}\n" for n in range(number)))
    keys = []
    monkeypatch.setattr(finder, "_key", lambda name, key=finder._key: keys.append(name) or key(name))
    assert list(read_catalog(root, as_listed=True).videos.paths) == [f"some/{n:03}/clip.mp4" for n in range(number)]
    assert len(keys) < 60 * number  # and not some for each of all others


def test_texts_that_are_each_about_one_video_are_not_looked_through_for_lists(
    write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST_LISTS", 3)
    root = write({f"labels/{n}.txt": "0 0.5 0.5 0.2 0.2\n" for n in range(4)} | {"a/1.mp4": "", "b/1.mp4": ""})
    (root / "labels" / "train_list.txt").write_text("a/1.mp4 0\nb/1.mp4 1\n")
    assert ListFolder.of(DataConfig(str(root))).files == (root / "labels" / "train_list.txt",)
    assert read_catalog(root, as_listed=True).format == "list"
