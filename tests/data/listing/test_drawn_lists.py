"""Lists drawn out of all the spellings that people have: each is read as the truth that it was written from."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import read_catalog
from pvnas.errors import UserError

STEMS = ("clip 1", "a,b", "\u00fcber", "v_01", "x.y", "CAPS", "semi;colon", "7", "caf\u00e9 (2)")
FOLDERS = ("", "videos/", "UP/", "some where/deep/", "V\u00eddeos/")
ENDINGS = (".mp4", ".avi", ".MOV")
NAMES = ("walk", "run fast", "Gr\u00fc\u00dfe", "jump, twice")
SPLITS = {
    "train": ("train", "TRAIN", "Training", " train"),
    "val": ("val", "Valid", "validation"),
    "test": ("test", "Test"),
}
HEADERS = {
    "path": ("path", "File Name", "filepath", "VIDEO_PATH", "video_name", "clip", "filename"),
    "label": ("label", "Class", "class_name", "tag", "category", "action", "Label Name"),
    "split": ("split", "Subset", "set"),
    "start": ("start", "start_time", "Start (s)", "begin"),
    "end": ("end", "End_Time", "stop"),
    "group": ("group", "Group ID"),
    "extra": ("fps", "comment"),
    "index": ("", "Unnamed: 0"),
}


@dataclass
class Item:
    """A video as it is meant."""

    path: str
    label: str
    split: str
    start: float = 0.0
    end: float = math.inf


@st.composite
def item_lists(draw: st.DrawFn, labels: tuple[str, ...]) -> list[Item]:
    stems = draw(st.lists(st.sampled_from(STEMS), min_size=6, max_size=9, unique=True))
    folder, ending = draw(st.sampled_from(FOLDERS)), draw(st.sampled_from(ENDINGS))
    return [
        Item(folder + stem + ending, labels[n % len(labels)], ("train", "val", "test")[n % 3])
        for n, stem in enumerate(stems)
    ]


def spelled(draw: st.DrawFn, root: Path, item: Item, form: str) -> str:
    """The path as the list spells it."""
    path = item.path
    if form == "without ending":
        path = os.path.splitext(path)[0]
    elif form == "absolute":
        path = f"{root}/{path}"
    elif form == "backslashes":
        path = path.replace("/", "\\")
    elif form == "dot":
        path = f"./{path}"
    elif form == "capitals":
        path = path.upper() if path.upper().casefold() == path.casefold() else path
    return unicodedata.normalize(draw(st.sampled_from(("NFC", "NFD"))), path)


def seconds(draw: st.DrawFn, value: float) -> str:
    return draw(st.sampled_from((f"{value:g}", f" {value:.2f}", f"{int(value // 60):02d}:{value % 60:04.1f}")))


@st.composite
def tables(draw: st.DrawFn, root: Path) -> tuple[dict[str, str], list[Item], int]:
    """Return texts of lists by name, what they mean, and how many remarks there must be."""
    labels = draw(st.sampled_from((NAMES[:2], NAMES, ("0", "1", "2"), ("1", "2", "3"))))
    items = draw(item_lists(labels))
    form = draw(st.sampled_from(("as it is", "without ending", "absolute", "backslashes", "dot", "capitals")))
    by = draw(st.sampled_from(("column", "name", "none")))
    roles = ["path", "label", *(["split"] if by == "column" else [])]
    if draw(st.booleans()):
        roles += ["start", "end"]
        for number, item in enumerate(items):
            item.start, item.end = number / 2, number + 1.5
    more = [role for role in ("group", "extra", "index") if draw(st.booleans())]
    roles = draw(st.permutations([*roles, *more]))
    delimiter = draw(st.sampled_from(",;\t|"))
    quoting = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    blank = draw(st.sampled_from(("", " "))) if quoting == csv.QUOTE_MINIMAL else ""
    end = draw(st.sampled_from(("\n", "\r\n")))
    tail = [""] * draw(st.integers(0, 2))

    def text(some: list[Item]) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=end)
        writer.writerow([*(draw(st.sampled_from(HEADERS[role])) + blank for role in roles), *tail])
        for number, item in enumerate(some):
            cells = {
                "path": spelled(draw, root, item, form),
                "label": item.label,
                "split": draw(st.sampled_from(SPLITS[item.split])),
                "start": seconds(draw, item.start),
                "end": seconds(draw, item.end) if item.end < math.inf else "",
                "group": f"g{number}",
                "extra": "25",
                "index": str(number),
            }
            writer.writerow([*(cells[role] + blank for role in roles), *tail])
        return buffer.getvalue() + draw(st.sampled_from(("", end, (delimiter * 2) + end)))

    files = len({item.split for item in items}) if by == "name" else 1
    return _by_name(items, by, text), items, files if "extra" in roles else 0


@st.composite
def lines(draw: st.DrawFn, root: Path) -> tuple[dict[str, str], list[Item], int]:
    """The same of lists without a header."""
    first = draw(st.sampled_from((None, 0, 1)))
    labels = NAMES if first is None else tuple(str(first + n) for n in range(3))
    items = draw(item_lists(labels))
    by = draw(st.sampled_from(("name", "none")))
    form = draw(st.sampled_from(("as it is", "without ending", "absolute", "backslashes", "dot")))
    between, end = draw(st.sampled_from((" ", ",", "\t", ";", ", "))), draw(st.sampled_from(("\n", "\r\n")))

    def cell(text: str, *, always: bool) -> str:
        return f'"{text}"' if always or any(character in " ,;|\t" for character in text) else text

    def text(some: list[Item]) -> str:
        always = draw(st.booleans())
        rows = ((spelled(draw, root, item, form), item.label) for item in some)
        return "".join(
            f"{cell(path, always=always)}{between}{cell(label, always=always and first is None)}{end}"
            for path, label in rows
        )

    return _by_name(items, by, text), items, int(first == 1)


def _by_name(items: list[Item], by: str, text) -> dict[str, str]:
    if by == "name":
        splits = {item.split for item in items}
        return {f"{split}.csv": text([item for item in items if item.split == split]) for split in sorted(splits)}
    if by == "none":
        for item in items:
            item.split = "train"
    return {"my_list.csv": text(items)}


@settings(max_examples=90, deadline=None, derandomize=True)
@given(st.data())
def test_a_drawn_list_is_read_as_it_is_meant(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        texts, items, remarks = data.draw(st.one_of(tables(root), lines(root)))
        encoding = data.draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "cp1252")))
        for item in items:
            (root / item.path).parent.mkdir(parents=True, exist_ok=True)
            (root / item.path).touch()
        written = {name: text.encode(encoding, "replace") for name, text in texts.items()}
        for name, content in written.items():
            (root / name).write_bytes(content)
        if any(b"?" in content for content in written.values()):  # what the encoding lacks was lost by its writer
            return
        if encoding == "cp1252" and not all(content.isascii() for content in written.values()):
            with pytest.raises(UserError, match=r"line \d+: not UTF-8 text; save the file as UTF-8"):
                raise UserError(" ".join(read_catalog(root, as_listed=True).remarks))
            return
        catalog = read_catalog(root, as_listed=True)
        read = {(v.path, catalog.classes[v.label], v.split, v.start, v.end) for v in catalog.videos}
        assert read == {(item.path, item.label, item.split, item.start, item.end) for item in items}
        assert len(catalog.remarks) == remarks, catalog.remarks
        assert not catalog.missing()
