"""Jester: `id;label` in jester-v1-{train,validation}.csv with jester-v1-labels.csv, or `id number` with classInd.txt.

Numbers mean nothing without the file that gives them: the label files that go round have different orders. The test
list has ids only. Videos lie flat, `<id>.mp4`; the official download holds folders of frames instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pvnas.data.listing.finder import Finder, copies_of
from pvnas.data.listing.path_list import is_path_list
from pvnas.data.listing.registry import SPLIT_NAMES, Entry, ListFolder, ListFormat, Listing
from pvnas.data.listing.text import ClassNames, at, class_key, first_line, parse_number, read_lines, read_names, shown
from pvnas.errors import UserError

LIST = re.compile(
    r"(?:(?:20bn-)?jester-v1-(train|validation|test)\.csv|(train|val|test)list\.txt)",
    re.IGNORECASE,
)
LABELS = re.compile(r"(?:20bn-)?jester-v1-labels\.csv", re.IGNORECASE)
NUMBERED = "classInd.txt"
LINE = re.compile(r"(\d{1,18})(?:\s*;\s*(.*)|[ \t]+(\d+))?")


def read_jester(folder: ListFolder) -> Listing:
    """Return the videos of all lists. Raises UserError that names file and line."""
    lists = _lists(folder)
    if not lists:
        raise UserError(f"no jester-v1-train.csv or trainlist.txt in {folder.folder}; put the official lists there")
    texts = [path for path in folder.files if LABELS.fullmatch(path.name)]
    numbered = [path for path in folder.files if path.name == NUMBERED]
    if not texts and not numbered:
        raise UserError(
            f"no jester-v1-labels.csv or {NUMBERED} in {folder.folder}, which give the class ids; put one there"
        )
    names = read_names(texts[0], may_number=False) if texts else read_names(numbered[0])
    reader = _Reader(Finder(folder.tree), names)
    entries = [entry for split, path in lists.items() for entry in reader.entries(path, split)]
    return Listing(entries, names.names, reader.unlabelled)


def _lists(folder: ListFolder) -> dict[str, Path]:
    lists = {}
    for path in folder.files:
        match = LIST.fullmatch(path.name)
        if match and LINE.fullmatch(first_line(path)):
            lists[SPLIT_NAMES[(match[1] or match[2]).lower()]] = path
    return {split: lists[split] for split in ("train", "val", "test") if split in lists}


class _Reader:
    """Reads lists; counts what has no label."""

    def __init__(self, finder: Finder, names: ClassNames) -> None:
        self.finder, self.names = finder, names
        self.by_key = {class_key(name): name for name in names.names}
        self.by_number = dict(zip(names.numbers or (), names.names, strict=False))
        self.unlabelled = 0

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        folders, home = self.finder.flat(split), self.finder.home(split)
        frames = {name for each in folders for name in each.folder.folders}
        for line, text in read_lines(path):
            where = at(path, line)
            match = LINE.fullmatch(text)
            if not match:
                raise UserError(f"{where}: {shown(text)} is no 'id;label' and no 'id number'; give the official list")
            if not match[2] and not match[3]:
                if split != "test":
                    raise UserError(f"{where}: no label; expected 'id;label' or 'id number'")
                self.unlabelled += 1
                continue
            names = copies_of(match[1], ".mp4")
            video = self.finder.find(folders, names)
            if video is None and match[1] in frames:
                raise UserError(
                    f"{where}: {shown(match[1])} is a folder of frames, not a video; make videos of all such folders: "
                    f"ffmpeg -framerate 12 -i {match[1]}/%05d.jpg {names[0]}"
                )
            label = self._label(match[2], match[3], where)
            yield Entry(self.finder.tree.checked(video or home + names[0], where), label, split, None, str(path), line)

    def _label(self, name: str | None, number: str | None, where: str) -> str:
        """Return the class that a line gives by name or by number."""
        if name:
            label = self.by_key.get(class_key(name))
        elif not self.by_number:
            raise UserError(
                f"{where}: number {shown(number)} needs {NUMBERED}, which numbers the classes; put it there"
            )
        else:
            label = self.by_number.get(parse_number(number or "") or 0)
        if label is None:
            raise UserError(
                f"{where}: label {shown(name or number)} is not in {self.names.file.name}; mend one of them"
            )
        return label


def _recognises(folder: ListFolder) -> bool:
    return bool(_lists(folder)) and not (folder.chosen and is_path_list(folder.chosen))


JESTER = ListFormat("jester", read_jester, _recognises, validation_is_test=True)
