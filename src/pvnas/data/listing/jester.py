"""Jester: `id;label` in jester-v1-{train,validation}.csv with jester-v1-labels.csv, or `id number` with classInd.txt.

Numbers mean nothing without the file that gives them: the label files that go round have different orders. The test
list has ids only. Videos lie flat, `<id>.mp4`; the official download holds folders of frames instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pvnas.data.listing.entries import SPLIT_NAMES, Entry, Listing, place
from pvnas.data.listing.names import ClassNames, check_names, read_names
from pvnas.data.listing.places import Finder, class_key, with_endings
from pvnas.data.listing.source import Source
from pvnas.data.listing.text import first_line, lines_of, parse_number, read_text, shown
from pvnas.errors import UserError

LIST = re.compile(
    r"(?:(?:20bn-)?jester-v1-(train|validation|test)\.csv|(train|val|test)list\.txt)",
    re.IGNORECASE,
)
LABELS = re.compile(r"(?:20bn-)?jester-v1-labels\.csv", re.IGNORECASE)
NUMBERED = "classInd.txt"
LINE = re.compile(r"(\d{1,18})(?:\s*;\s*(.*)|[ \t]+(\d+))?")


def is_jester(source: Source) -> bool:
    """Return whether lists of Jester are among the files."""
    return bool(_lists(source))


def read_jester(source: Source) -> Listing:
    """Return the videos of all lists. Raises UserError that names file and line."""
    lists = _lists(source)
    if not lists:
        raise UserError(f"no jester-v1-train.csv or trainlist.txt in {source.folder}; put the official lists there")
    names = _names(source, lists)
    reader = _Reader(Finder(source.tree), names)
    entries = [entry for split, path in lists.items() for entry in reader.entries(path, split)]
    return Listing(entries, names.names, reader.unlabelled)


def _lists(source: Source) -> dict[str, Path]:
    lists = {}
    for path in source.files:
        match = LIST.fullmatch(path.name)
        if match and LINE.fullmatch(first_line(path)):
            lists[SPLIT_NAMES[(match[1] or match[2]).lower()]] = path
    return {split: lists[split] for split in ("train", "val", "test") if split in lists}


def _names(source: Source, lists: Iterable[str]) -> ClassNames:
    """Return the classes in the order of the label file of these lists' kind."""
    texts = [path for path in source.files if LABELS.fullmatch(path.name)]
    if texts:
        rows = list(lines_of(read_text(texts[0])))
        check_names(texts[0], rows)
        return ClassNames(texts[0], tuple(name for _, name in rows))
    numbered = [path for path in source.files if path.name == NUMBERED]
    if not numbered:
        raise UserError(
            f"no jester-v1-labels.csv or {NUMBERED} in {source.folder}, which give the class ids; put one there"
        )
    return read_names(numbered[0])


class _Reader:
    """Reads lists; counts what has no label."""

    def __init__(self, finder: Finder, names: ClassNames) -> None:
        self.finder, self.names = finder, names
        self.by_key = {class_key(name): name for name in names.names}
        self.by_number = dict(zip(map(str, names.numbers or ()), names.names, strict=False))
        self.unlabelled = 0

    def entries(self, path: Path, split: str) -> Iterable[Entry]:
        places, home = self.finder.flat(split), self.finder.home(split).prefix
        frames = {name for each in places for name in each.folder.folders}
        for line, text in lines_of(read_text(path)):
            where = place(path, line)
            match = LINE.fullmatch(text)
            if not match:
                raise UserError(f"{where}: {shown(text)} is no 'id;label' and no 'id number'; give the official list")
            if not match[2] and not match[3]:
                self._leave_out(split, where)
                continue
            names = with_endings(match[1], ".mp4")
            found = self.finder.find(places, names)
            if found is None and match[1] in frames:
                raise UserError(
                    f"{where}: {shown(match[1])} is a folder of frames, not a video; make videos of all such folders: "
                    f"ffmpeg -framerate 12 -i {match[1]}/%05d.jpg {names[0]}"
                )
            label = self._label(match[2], match[3], where)
            yield Entry(self.finder.tree.checked(found or home + names[0], where), label, split, None, str(path), line)

    def _leave_out(self, split: str, where: str) -> None:
        if split != "test":
            raise UserError(f"{where}: no label; expected 'id;label' or 'id number'")
        self.unlabelled += 1

    def _label(self, name: str | None, number: str | None, where: str) -> str:
        """Return the class that a line gives by name or by number."""
        if name:
            label = self.by_key.get(class_key(name))
        elif not self.by_number:
            raise UserError(
                f"{where}: number {shown(number)} needs {NUMBERED}, which numbers the classes; put it there"
            )
        else:
            index = parse_number(number or "")
            label = self.by_number.get(str(index))
        if label is None:
            raise UserError(
                f"{where}: label {shown(name or number)} is not in {self.names.file.name}; mend one of them"
            )
        return label
