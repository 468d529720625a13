"""Which format a folder has, and one clear line where that cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.data.listing import FORMATS
from pvnas.errors import UserError

KINETICS = {"k_train.csv": "label,youtube_id,time_start,time_end,split\na,x,1,2,train\nb,y,1,2,train\n"}
UCF = {"classInd.txt": "1 a\n2 b\n", "trainlist01.txt": "a/v_a_g01.avi 1\nb/v_b_g01.avi 2\n"}
HMDB = {f"{name}_test_split1.txt": f"{name}.avi 1\n" for name in "ab"}
JESTER = {"classInd.txt": "1 a\n2 b\n", "trainlist.txt": "1 1\n2 2\n"}
SSV2 = {
    "labels.json": '{"a": "0", "b": "1"}',
    "train.json": '[{"id": "1", "template": "[a]"}, {"id": "2", "template": "b"}]',
}
LIST = {"train.txt": "a.mp4 0\nb.mp4 1\n"}
SPLIT = {"split.csv": "path,label,split\na.mp4,a,train\nb.mp4,b,train\n"}
FOLDERS = {"a/1.mp4": "", "b/1.mp4": ""}


@pytest.mark.parametrize(
    "files, format",
    [
        *[(KINETICS, "kinetics"), (UCF, "ucf101"), (HMDB, "hmdb51"), (JESTER, "jester"), (SSV2, "ssv2")],
        *[
            (LIST, "list"),
            (SPLIT, "split.csv"),
            (FOLDERS, "folders"),
            (LIST | FOLDERS, "folders"),
            (LIST | FOLDERS | {"a.mp4": ""}, "list"),
            (SPLIT | UCF, "split.csv"),
        ],
        (FOLDERS | {"train_log.csv": "epoch,loss\n1,0.5\n", "test.json": "{}", "notes.txt": "a b c"}, "folders"),
    ],
)
def test_the_format_is_told_by_what_lies_in_the_folder(write, files: dict[str, str], format: str) -> None:
    catalog = read_catalog(write(files), as_listed=True)
    assert (catalog.format, len(catalog.classes), len(catalog.videos)) == (format, 2, 2)
    assert format in FORMATS


@pytest.mark.parametrize(
    "files, format", [(KINETICS, "kinetics"), (HMDB, "hmdb51"), (JESTER, "jester"), (SSV2, "ssv2")]
)
def test_a_list_names_the_format_too(write, files: dict[str, str], format: str) -> None:
    root = write(files)
    assert read_catalog(root / max(files), as_listed=True).format == format


def test_split_csv_may_lie_elsewhere(write, tmp_path: Path) -> None:
    root = write(FOLDERS)
    (tmp_path / "split.csv").write_text("path,label,split\na/1.mp4,x,train\nb/1.mp4,y,train\n")
    for lists in (tmp_path / "split.csv", tmp_path):
        catalog = read_catalog(root, annotations=lists, as_listed=True)
        assert (catalog.format, catalog.classes, len(catalog.missing())) == ("split.csv", ("x", "y"), 0)


def test_lists_of_several_data_sets_need_a_name(write) -> None:
    root = write(UCF | HMDB)
    with pytest.raises(UserError, match=r"holds lists of ucf101 and hmdb51; say .*: type --data.format ucf101"):
        read_catalog(root)
    assert read_catalog(root, format="hmdb51", as_listed=True).format == "hmdb51"


@pytest.mark.parametrize("arguments", [{}, {"format": "auto"}])
def test_a_folder_without_anything_known_names_what_to_type(write, arguments: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"no videos found .*class/video.*type --data.format NAME"):
        read_catalog(write({"notes.txt": "hello"}), **arguments)


def test_unknown_formats_annotations_and_files_are_named(write) -> None:
    root = write(
        FOLDERS | {"notes/notes.txt": "hello", "table.mat": "x", "table.dat": "x", "a_01.json": '{"database": {}}'}
    )
    with pytest.raises(UserError, match=r"unknown format 'ucf'; type --data.format NAME, one of auto, folders,"):
        read_catalog(root, format="ucf")
    with pytest.raises(UserError, match=r"no list of a known format in .*notes; .*type --data.format NAME"):
        read_catalog(root, annotations=root / "notes")
    with pytest.raises(UserError, match="annotations 'nowhere' do not exist"):
        read_catalog(root, annotations="nowhere")
    with pytest.raises(UserError, match=r"table.dat is no list of a known format; type --data.format NAME"):
        read_catalog(root / "table.dat")
    with pytest.raises(UserError, match=r"table.mat is a file of MATLAB; write its videos to a csv"):
        read_catalog(root / "table.mat")
    with pytest.raises(UserError, match=r"a_01.json is JSON of the kind of ActivityNet; write its videos to a csv"):
        read_catalog(root / "a_01.json")
    with pytest.raises(UserError, match=r"allow_outside 'nowhere' is no folder"):
        read_catalog(root, allow_outside="nowhere")


@pytest.mark.parametrize("name", ["train.csv", "split.csv", "train.json", "trainlist01.txt", "a_test_split1.txt"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\0" * 100, b"\x89PNG\r\n\x1a\n" * 50, b'"' * 1000, b"," * 1000])
def test_binary_rubbish_ends_in_one_line(write, name: str, content: bytes) -> None:
    root = write({**SSV2, **UCF, name: content})
    with pytest.raises(UserError) as caught:
        read_catalog(root / name)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(write, tmp_path: Path) -> None:
    import os

    root = write({})
    os.mkfifo(root / "train.txt")
    with pytest.raises(UserError, match=r"train.txt is no regular file"):
        read_catalog(root / "train.txt")
