"""UCF-101: classInd.txt, trainlist0N.txt and testlist0N.txt, whose test videos have no number but their class folder.

Class ids follow classInd.txt, whose order ignores case: sorted names would swap Hammering and HammerThrow. The folder
HandstandPushups holds files v_HandStandPushups_*.
"""

from __future__ import annotations

import re
from pathlib import Path

from pvnas.data.listing.finder import Finder, copies_of
from pvnas.data.listing.registry import Entry, ListFolder, ListFormat, Listing, group_in_name
from pvnas.data.listing.text import at, class_key, parse_number, read_lines, read_names, shown
from pvnas.errors import UserError

CLASSES = "classInd.txt"
LIST = re.compile(r"(train|test)list0*(\d{1,4})\.txt", re.IGNORECASE)


def read_ucf101(folder: ListFolder) -> Listing:
    """Return the videos of one of the three splits. Raises UserError that names file and line."""
    lists = _lists(folder)
    classes = next((path for path in folder.files if path.name == CLASSES), None)
    if classes is None:
        raise UserError(f"no {CLASSES} in {folder.folder}; put it beside {next(iter(lists.values())).name}")
    names = read_names(classes)
    first = names.numbers[0] if names.numbers else 1
    numbers = {class_key(name): (name, number) for number, name in enumerate(names.names, start=first)}
    finder = Finder(folder.tree)
    entries = []
    for split, file in lists.items():
        for line, text in read_lines(file):
            where = at(file, line)
            path, _, number = text.rpartition(" ")
            if not path or parse_number(number) is None:
                path, number = text, ""
            if not number and split == "train":
                raise UserError(f"{where}: {shown(text)} has no label; expected 'Class/video.avi 1'")
            parent, _, video = path.strip().rpartition("/")
            parent = parent.rpartition("/")[2]
            label, official = numbers.get(class_key(parent), (None, 0))
            if label is None:
                raise UserError(f"{where}: {shown(parent)} is no class of {CLASSES}; expected 'Class/video.avi'")
            if number and int(number) != official:
                raise UserError(
                    f"{where}: number {number} is not that of class {shown(label)} in {CLASSES}; mend the list"
                )
            finder.tree.inside(path.strip(), where)
            copies = copies_of(video)
            folders = finder.of_class(label, split, where)
            there = finder.find_any_case(folders, copies) or folders[0].prefix + copies[0]
            group = group_in_name(label, video)
            entries.append(Entry(finder.tree.checked(there, where), label, split, group, str(file), line))
    return Listing(entries, names.names)


def _lists(folder: ListFolder) -> dict[str, Path]:
    """Return the list of each split. Raises UserError where there is none of the wanted number."""
    numbers, lists = set(), {}
    for path in folder.files:
        if match := LIST.fullmatch(path.name):
            numbers.add(int(match[2]))
            if int(match[2]) == folder.split:
                lists[match[1].lower()] = path
    if not lists:
        there = f"; type --data.split {min(numbers)}" if numbers else "; put the official lists there"
        raise UserError(
            f"no trainlist{folder.split:02d}.txt or testlist{folder.split:02d}.txt in {folder.folder}{there}"
        )
    return {split: lists[split] for split in ("train", "test") if split in lists}


def _recognises(folder: ListFolder) -> bool:
    named = {path.name for path in folder.files}
    return CLASSES in named and any(LIST.fullmatch(path.name) for path in folder.lists)


UCF101 = ListFormat("ucf101", read_ucf101, _recognises)
