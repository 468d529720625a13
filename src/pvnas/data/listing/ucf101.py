"""UCF-101: classInd.txt, trainlist0N.txt and testlist0N.txt, whose test videos have no number but their class folder.

Class ids follow classInd.txt, whose order ignores case: sorted names would swap Hammering and HammerThrow. The folder
HandstandPushups holds files v_HandStandPushups_*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pvnas.data.listing.entries import Entry, Listing, place
from pvnas.data.listing.names import ClassNames, read_names
from pvnas.data.listing.places import Finder, class_key, with_endings
from pvnas.data.listing.source import Source
from pvnas.data.listing.text import lines_of, parse_number, read_text, shown
from pvnas.errors import UserError

CLASSES = "classInd.txt"
LIST = re.compile(r"(train|test)list0*(\d{1,4})\.txt", re.IGNORECASE)
GROUP = re.compile(r"_(g\d+)_")


def is_ucf101(source: Source) -> bool:
    """Return whether the lists of UCF-101 are among the files."""
    names = {path.name for path in source.files}
    return CLASSES in names and any(map(LIST.fullmatch, names))


def read_ucf101(source: Source) -> Listing:
    """Return the videos of one of the three splits. Raises UserError that names file and line."""
    lists = _lists(source)
    classes = next((path for path in source.files if path.name == CLASSES), None)
    if classes is None:
        raise UserError(f"no {CLASSES} in {source.folder}; put it beside {next(iter(lists.values())).name}")
    reader = _Reader(Finder(source.tree), read_names(classes))
    entries = [
        reader.entry(path, line, text, split)
        for split, path in lists.items()
        for line, text in lines_of(read_text(path))
    ]
    return Listing(entries, reader.names.names)


def _lists(source: Source) -> dict[str, Path]:
    """Return the list of each split. Raises UserError where there is none of the wanted number."""
    numbers, lists = set(), {}
    for path in source.files:
        if match := LIST.fullmatch(path.name):
            numbers.add(int(match[2]))
            if int(match[2]) == source.split:
                lists[match[1].lower()] = path
    if not lists:
        there = f"; type --data.split {min(numbers)}" if numbers else "; put the official lists there"
        raise UserError(
            f"no trainlist{source.split:02d}.txt or testlist{source.split:02d}.txt in {source.folder}{there}"
        )
    return {split: lists[split] for split in ("train", "test") if split in lists}


@dataclass
class _Reader:
    finder: Finder
    names: ClassNames

    def __post_init__(self) -> None:
        """Prepare what every line is looked up in."""
        self.by_key = {class_key(name): name for name in self.names.names}
        self.first = self.names.numbers[0] if self.names.numbers else 1

    def entry(self, file: Path, line: int, text: str, split: str) -> Entry:
        where = place(file, line)
        path, _, number = text.rpartition(" ")
        if not path or parse_number(number) is None:
            path, number = text, ""
        if not number and split == "train":
            raise UserError(f"{where}: {shown(text)} has no label; expected 'Class/video.avi 1'")
        folder, _, name = path.strip().rpartition("/")
        label = self._label(folder.rpartition("/")[2], number, where)
        self.finder.tree.inside(path.strip(), where)
        stem, dot, ending = name.rpartition(".")
        names = with_endings(stem, dot + ending) if dot else [name]
        places = self.finder.of_class(label, split, where)
        found = self.finder.find_any_case(places, names) or places[0].prefix + names[0]
        match = GROUP.search(name)
        group = f"{label}/{match[1]}" if match else None
        return Entry(self.finder.tree.checked(found, where), label, split, group, str(file), line)

    def _label(self, folder: str, number: str, where: str) -> str:
        """Return the class of a video by its folder and, where there is one, by its number, which must agree."""
        label = self.by_key.get(class_key(folder))
        if label is None:
            raise UserError(
                f"{where}: {shown(folder)} is no class of {self.names.file.name}; expected 'Class/video.avi'"
            )
        if number and not self._agrees(label, int(number)):
            raise UserError(
                f"{where}: number {number} is not that of class {shown(label)} in {self.names.file.name}; mend the list"
            )
        return label

    def _agrees(self, label: str, number: int) -> bool:
        index = number - self.first
        return 0 <= index < len(self.names.names) and self.names.names[index] == label
