"""Tables with a header in the spellings that people have: delimiters, names of columns, segments, and what is said."""

from __future__ import annotations

import math
import re

import pytest

from catalogs import read_catalog
from pvnas.data.catalog import Catalog
from pvnas.errors import UserError

VIDEOS = {f"videos/{name}{n}.mp4": "" for name in ("up", "right", "grow") for n in range(3)}
CAMERAS = {f"camera{1 + n % 2}/{name}{n}.mp4": "" for name in ("up", "right", "grow") for n in range(4)}


def rows(row: str, files: dict[str, str] = VIDEOS) -> str:
    """Return a row for each file; {p}: its path, {n}: its name, {c}: its class, {i}: the number of the class."""
    classes = ["grow", "right", "up"]
    return "".join(
        row.format(p=p, n=p.rpartition("/")[2], c=p.rpartition("/")[2][:-5], i=classes.index(p.rpartition("/")[2][:-5]))
        for p in files
    )


def listed(catalog: Catalog) -> dict[str, str]:
    return {video.path: catalog.classes[video.label] for video in catalog.videos}


TRUTH = {path: path.rpartition("/")[2][:-5] for path in VIDEOS}


@pytest.mark.parametrize(
    "header, row",
    [
        ("path,label,split\n", "{p},{c},train\n"),
        ("path\tlabel\tsplit\n", "{p}\t{c}\tTRAIN\n"),
        ("path;label;split\n", "{p};{c};train\n"),
        ("sep=;\npath;label\n", "{p};{c}\n"),
        ("path|label\n", "{p}|{c}\n"),
        ("path, label, split\n", "{p}, {c}, train\n"),
        (" Path , LABEL , Split \n", " {p} , {c} , Training \n"),
        ("path,label\n", "{p},{c}\n"),
        ("\ufeffpath,label,,,\r\n", "{p},{c},,,\r\n"),
        (",path,label\n", "7,{p},{c}\n"),
        ("Unnamed: 0,path,label\n", "7,{p},{c}\n"),
        ('"path","label"\n', '"{p}","{c}"\n'),
        ("video_name,tag\n", "{n},{c}\n"),
        ("filepath,label\n", "./{p},{c}\n"),
        ("File Name,Class Name\n", "{n},{c}\n"),
        ("label,file_name,label_id\n", "{c},{n},{i}\n"),
        ("label,file_name,class_name\n", "1,{n},{c}\n"),
        ("path,label,split\n\n", "{p},{c},\n,,\n"),
        ("clip_name,clip_path,label\n", "x,/{p},{c}\n"),
        ("path,label\n", "/home/other/set/{p},{c}\n"),
        ("path,label\n", "C:\\set\\{p},{c}\n"),
        ("path,label\n", "VIDEOS/{p},{c}\n"),
        ("# made by hand\npath,label\n", "{p},{c}\n"),
        ("path,label\n", "{p},{c}\npath,label\n"),
    ],
)
@pytest.mark.parametrize("name", ["split.csv", "labels.csv"])
def test_spellings_of_a_table(write, header: str, row: str, name: str) -> None:
    row = row.replace("VIDEOS/{p}", "VIDEOS/{n}")
    catalog = read_catalog(write(VIDEOS | {name: header + rows(row)}), as_listed=True)
    assert listed(catalog) == TRUTH
    assert (catalog.format, catalog.classes) == ("split.csv", ("grow", "right", "up"))
    assert not catalog.missing()


def test_utf_16_is_read_and_other_encodings_are_named(write) -> None:
    table = "path\tlabel\n" + rows("{p}\t{c}\n")
    assert listed(read_catalog(write(VIDEOS | {"labels.txt": table.encode("utf-16")}))) == TRUTH
    with pytest.raises(UserError, match=r"split.csv, line 2: not UTF-8 text; save the file as UTF-8"):
        read_catalog(write({"split.csv": "path,label\nvideos/up0.mp4,grün\n".encode("cp1252")}))


@pytest.mark.parametrize(
    "path",
    ["videos/up0", "videos/UP0.mp4", "videos/up0.avi", "videos\\up0.mp4", ".\\videos\\up0.MP4", "./videos//up0.mp4"],
)
def test_spellings_of_a_path(write, path: str) -> None:
    catalog = read_catalog(
        write(VIDEOS | {"split.csv": f"path,label\n{path},a\nvideos/right1.mp4,b\n"}), as_listed=True
    )
    assert listed(catalog) == {"videos/up0.mp4": "a", "videos/right1.mp4": "b"}


def test_accents_in_either_form_absolute_paths_and_those_from_the_list(write) -> None:
    root = write({"vid\u00e9os/e\u0301t\u00e9.mp4": "", "b.mp4": "", "annotations/c.mp4": "", "d.mp4": ""})
    lines = f"vide\u0301os/\u00e9te\u0301.mp4,a\n{root}/b.mp4,a\nc.mp4,b\n../d.mp4,b\n"
    write({"annotations/list.csv": f"path,label\n{lines}"})
    assert set(read_catalog(root, as_listed=True).videos.paths) == {
        "vid\u00e9os/e\u0301t\u00e9.mp4",
        "b.mp4",
        "annotations/c.mp4",
        "d.mp4",
    }


def test_a_path_that_could_be_two_files_is_refused(write) -> None:
    root = write({"a.mp4": "", "a.avi": "", "b.mp4": "", "split.csv": "path,label\nb,x\na,y\n"})
    with pytest.raises(UserError, match=r"line 3: 'a' could be 'a.avi' or 'a.mp4'; write which"):
        read_catalog(root)


def test_names_in_the_folders_of_classes_and_of_splits(write) -> None:
    folders = {f"{c}/{n}.mp4": "" for c in ("up", "right") for n in range(2)}
    catalog = read_catalog(write(folders | {"labels.csv": "name,label\n0,up\n1,up\n0,right\n"}), as_listed=True)
    assert listed(catalog) == {"up/0.mp4": "up", "up/1.mp4": "up", "right/0.mp4": "right"}


def test_names_in_folders_of_any_name(write) -> None:
    footage = {f"footage/day{n}/{n}{c}.mp4": "" for n in range(2) for c in "ab"}
    table = "name,label\n" + "".join(f"{n}{c},{c}\n" for n in range(2) for c in "ab")
    catalog = read_catalog(write(footage | {"labels.csv": table}), as_listed=True)
    assert listed(catalog) == {path: path[-5] for path in footage}
    write({"labels.csv": "name,label\nday0/0a,a\nDAY1/1b.avi,b\n"})
    assert set(read_catalog(write({}), as_listed=True).videos.paths) == {"footage/day0/0a.mp4", "footage/day1/1b.mp4"}
    with pytest.raises(UserError, match=r"line 2: '0a' could be 'footage/day0/0a.mp4' or 'footage/day2/0a.mp4'"):
        read_catalog(write({"footage/day2/0a.mp4": "", "split.csv": table}))


def test_a_missing_video_of_a_class_is_not_that_of_another(write) -> None:
    table = "name,label\n0.mp4,up\n1.mp4,up\n0.mp4,right\n"
    catalog = read_catalog(
        write({"up/0.mp4": "", "right/0.mp4": "", "right/1.mp4": "", "split.csv": table}), as_listed=True
    )
    assert "up/1.mp4" not in set(catalog.videos.paths)
    assert [video.path for video in catalog.missing()] == ["1.mp4"]


def test_tables_of_the_splits(write) -> None:
    files = {f"{split}/{c}{n}.mp4": "" for split in ("train", "test") for c in "ab" for n in range(2)}
    tables = {
        f"{split}/metadata.csv": "file_name,label\n" + "".join(f"{c}{n}.mp4,{c}\n" for c in "ab" for n in range(2))
        for split in ("train", "test")
    }
    catalog = read_catalog(write(files | tables), as_listed=True)
    assert {v.path: (v.split, catalog.classes[v.label]) for v in catalog.videos} == {
        path: (path.split("/")[0], path[-6]) for path in files
    }


@pytest.mark.parametrize(
    "table, message",
    [
        (
            "file,filename,label\na,b,c\n",
            r"columns 'file' and 'filename' could both be the path; call the",
        ),
        ("path,tag,category\na,b,c\n", r"line 1: columns 'tag' and 'category' could both be the label"),
        ("path,sport\na.mp4,b\n", r"line 1: no column 'label'; the header holds 'path', 'sport'; expected path,label"),
        ("thing,label\na.mp4,b\n", r"line 1: no column 'path'"),
        (
            "path,label,start_frame,end_frame\na,b,1,2\n",
            r"column 'start_frame' is not in seconds; give columns",
        ),
        ("path,label,start,end\na.mp4,b,5,3\n", r"line 2: start 5 is not before end 3; give both in seconds"),
        ("path,label,start,end\na.mp4,b,5,5\n", r"line 2: start 5 is not before end 5"),
        ("path,label,start,end\na.mp4,b,-1,3\n", r"line 2: '-1' is no time; give seconds from 0"),
        ("path,label,start,end\na.mp4,b,soon,3\n", r"line 2: 'soon' is no time"),
        ("path,label,start,end\na.mp4,b,1,3\na.mp4,c,1.0,3\n", r"line 3: 'a.mp4.*' is listed before, in line 2"),
        ("path,label,split\na.mp4,b,holdout\n", r"line 2: unknown split 'holdout'; use train, val or test"),
        ("path,label\n", r"is empty"),
    ],
)
def test_mistakes_are_named(write, table: str, message: str) -> None:
    root = write({"split.csv": table})
    with pytest.raises(UserError, match=message) as caught:
        read_catalog(root, as_listed=True)
    assert "\n" not in str(caught.value)


def test_seconds_of_segments(write) -> None:
    table = "path;label;start;end\na.mp4;x;0,5;2\na.mp4;y;00:03;1:02:03.5\na.mp4;y;2;\n"
    table += "b.mp4;x;;\nc.mp4;x;;4.25\nd.mp4;y;0;1\n"
    catalog = read_catalog(write({"split.csv": table}), as_listed=True)
    assert [(v.path, v.start, v.end) for v in catalog.videos] == [
        ("a.mp4", 0.5, 2),
        ("a.mp4", 2, math.inf),
        ("a.mp4", 3, 3723.5),
        ("b.mp4", 0, math.inf),
        ("c.mp4", 0, 4.25),
        ("d.mp4", 0, 1),
    ]
    assert catalog.remarks == ()
    table = "video,action,start_time,duration\na.mp4,x,2,3\n"
    assert read_catalog(write({"split.csv": table}), as_listed=True).videos[0].end == 5


def test_what_segments_leave_open_is_said(write) -> None:
    table = "path,label,split,start,end\na.mp4,x,train,,\na.mp4,x,train,1,2\nb.mp4,y,train,1,2\nb.mp4,y,test,2,3\n"
    whole, splits = read_catalog(write({"split.csv": table}), as_listed=True).remarks
    assert "line 2: 'a.mp4' is listed whole, and segments of it too" in whole
    assert "segments of 'b.mp4' are in train and in test" in splits


def test_columns_that_are_not_read_are_named_once(write) -> None:
    table = "path,label,split,fps,width\nvideos/up0.mp4,a,train,25,3\nvideos/right0.mp4,b,test,25,3\n"
    remark, unlisted = read_catalog(write(VIDEOS | {"split.csv": table}), as_listed=True).remarks
    assert "videos lie there and in no list" in unlisted
    assert "column 'fps', 'width' is not read; read are 'path' as path, 'label' as label, 'split' as split" in remark


def test_numbers_are_names_by_a_file_of_names(write) -> None:
    table = "path,label\n" + rows("{p},{i}\n")
    root = write(VIDEOS | {"train.csv": table})
    assert read_catalog(root).classes == ("0", "1", "2")
    assert listed(read_catalog(write({"classes.txt": "grow\nright\nup\n"}), as_listed=True)) == TRUTH


# ---- a list beside folders


def test_a_list_beside_folders_is_read_where_it_names_their_videos(write) -> None:
    root = write(CAMERAS | {"labels.csv": "path,label\n" + rows("{p},{c}\n", CAMERAS)})
    catalog = read_catalog(root, as_listed=True)
    assert catalog.classes == ("grow", "right", "up")
    (remark,) = catalog.remarks
    assert "labels.csv: read in place of the folders camera1, camera2; to make classes of those type" in remark
    assert read_catalog(root, format="folders", as_listed=True).classes == ("camera1", "camera2")


@pytest.mark.parametrize(
    "name, text, remark",
    [
        (
            "labels.csv",
            "path,label\nx.mp4,a\ny.mp4,b\n",
            r"labels.csv is not read: none of .* first is 'x.mp4'",
        ),
        ("train.txt", "x.mp4 0\n", r"train.txt is not read: none of its videos lies in the folder"),
        ("test.csv", "path\nx.mp4\n", r"test.csv is not read: .*no label"),
        ("notes.csv", "day,weather\n1,rain\n", None),
        ("README.txt", "x.mp4 is the first video\n", None),
        ("requirements.txt", "numpy 1.26\n", None),
        ("classes.txt", "camera1\ncamera2\n", None),
        ("labels.xlsx", "PK", r"labels.xlsx is not read: it is a spreadsheet; save it as csv"),
        (
            "annotations.json",
            '{"database": {}}',
            r"annotations.json is not read: it is JSON of the kind",
        ),
    ],
)
def test_what_is_no_list_of_these_videos_is_passed_over(write, name: str, text: str, remark: str | None) -> None:
    catalog = read_catalog(write(CAMERAS | {name: text}), as_listed=True)
    assert catalog.classes == ("camera1", "camera2")
    named = [each for each in catalog.remarks if f"{name} is not read" in each]
    assert [bool(re.search(remark or "never", each)) for each in named] == ([True] if remark else [])


def test_two_lists_of_the_same_videos_need_a_name(write) -> None:
    table = "path,label\n" + rows("{p},{c}\n")
    root = write(VIDEOS | {"a.csv": table, "b.csv": table})
    with pytest.raises(UserError, match=r"a.csv and .*b.csv both list videos; name the one to read"):
        read_catalog(root)
    assert listed(read_catalog(root / "b.csv", as_listed=True)) == TRUTH


def test_lists_of_the_splits_come_before_others_and_a_test_list_without_labels_is_said(write) -> None:
    table = "path,label\n" + rows("{p},{c}\n")
    files = {"train.csv": table, "sample_submission.csv": table, "test.txt": "x.mp4\ny.mp4\n"}
    catalog = read_catalog(write(VIDEOS | files), as_listed=True)
    assert listed(catalog) == TRUTH
    submission, test = catalog.remarks
    assert "sample_submission.csv is not read; to read it, name it in place of the folder" in submission
    assert "test.txt is not read: " in test
    assert "line 1: 'x.mp4' has no label" in test


@pytest.mark.parametrize(
    "lines, classes, remark",
    [
        ("{p} {i}\n", ("0", "1", "2"), None),
        ("# a comment\n{p}\t{c}\n", ("grow", "right", "up"), None),
        ("{p},{c}\n", ("grow", "right", "up"), None),
        ("{p};{c}\n", ("grow", "right", "up"), None),
        ("{p} {c}\n", ("grow", "right", "up"), None),
        ("{p} 1{i}\n", tuple(map(str, range(13))), "no video has label 0, 1, 2, 3, 4; number them without gaps"),
    ],
)
def test_lists_without_a_header(write, lines: str, classes: tuple[str, ...], remark: str | None) -> None:
    text, first = rows(lines.replace("# a comment\n", "")), "# a comment\n" if "#" in lines else ""
    catalog = read_catalog(write(VIDEOS | {"train.txt": first + text}), as_listed=True)
    assert (catalog.format, catalog.classes, len(catalog.videos)) == ("list", classes, 9)
    assert [remark in each for each in catalog.remarks if remark] == ([True] if remark else [])


def test_labels_from_1_are_as_many_classes(write) -> None:
    text = rows("{p} {i}\n").replace(" 2\n", " 3\n").replace(" 1\n", " 2\n").replace(" 0\n", " 1\n")
    catalog = read_catalog(write(VIDEOS | {"train.txt": text}), as_listed=True)
    assert catalog.classes == ("1", "2", "3")
    assert "labels count from 1: 3 classes, which are called 1 to 3" in catalog.remarks[0]
    catalog = read_catalog(write({"label_map.txt": "grow\nright\nup\n"}), as_listed=True)
    assert listed(catalog) == TRUTH
    assert "labels count from 1: 'grow', the first of" in catalog.remarks[0]


def test_folders_of_pictures_are_videos(write) -> None:
    pictures = {f"frames/{c}/clip{n}/img_{i:05d}.jpg": "" for c in "ab" for n in range(2) for i in range(3)}
    lists = {"train.txt": "".join(f"frames/{c}/clip{n} 3 {label}\n" for label, c in enumerate("ab") for n in range(2))}
    catalog = read_catalog(write(pictures | lists), as_listed=True)
    assert listed(catalog) == {f"frames/{c}/clip{n}": str(label) for label, c in enumerate("ab") for n in range(2)}
    write({"train.txt": "", "train.csv": "video_id,label\na/clip0,x\nb/clip1,y\n"})
    assert set(read_catalog(write({}), as_listed=True).videos.paths) == {"frames/a/clip0", "frames/b/clip1"}


def test_split_csv_stays_as_it_was(write) -> None:
    labels = ["10", "9", "10", "2"]
    table = "path,label,split,group\n" + "".join(f"{n}.mp4,{label},,g{n}\n" for n, label in enumerate(labels))
    catalog = read_catalog(write({"split.csv": table, "classes.txt": "2\n9\n10\n"}), as_listed=True)
    assert catalog.classes == ("10", "2", "9")
    assert [video.group for video in catalog.videos] == ["g0", "g1", "g2", "g3"]


@pytest.mark.parametrize("ending", ["", ".mp4"])
def test_one_name_in_two_folders_of_splits_is_that_of_the_row_s_split(write, ending: str) -> None:
    videos = {f"{split}/v{n}.mp4": "" for split in ("train", "val") for n in range(4)}
    lists = {f"{split}.csv": "id,label\n" + "".join(f"v{n}{ending},{'ab'[n % 2]}\n" for n in range(4))
             for split in ("train", "val")}  # fmt: skip
    catalog = read_catalog(write(videos | lists), as_listed=True)
    assert {video.path: video.split for video in catalog.videos} == {path: path.partition("/")[0] for path in videos}
    write({"train.csv": "", "val.csv": "", "labels.csv": lists["train.csv"]})
    with pytest.raises(UserError, match=f"'v0{ending}' could be 'train/v0.mp4' or 'val/v0.mp4'"):
        read_catalog(write({}), format="split.csv", as_listed=True)


def test_line_ends_of_old_macs_and_labels_of_pandas(write) -> None:
    text = rows("{p},{i}.0\n")
    write(VIDEOS | {"train.csv": f"path,label\n{text}".replace("\n", "\r"), "classes.txt": "grow\nright\nup\n"})
    assert listed(read_catalog(write({}), as_listed=True)) == TRUTH


def test_a_header_of_unknown_names_is_no_video_and_what_is_not_understood_is_said(write) -> None:
    table = "Datei;Klasse\n" + rows("{p};{c}\n", CAMERAS)
    catalog = read_catalog(write(CAMERAS | {"labels.csv": table}), as_listed=True)
    assert listed(catalog) == {path: path.rpartition("/")[2][:-5] for path in CAMERAS}
    table = "Datei;Klasse;x;y\n" + rows("{p};{c};1;2\n", CAMERAS)
    catalog = read_catalog(write({"labels.csv": table}), as_listed=True)
    assert catalog.classes == ("camera1", "camera2")
    assert any("labels.csv is not read, though it names videos" in remark for remark in catalog.remarks)
