"""UCF-101 and HMDB-51: three official splits by number, videos in a folder of their class.

UCF-101 has classInd.txt, trainlist0N.txt and testlist0N.txt, whose test videos have no number but their class folder.
Class ids follow classInd.txt, whose order ignores case: sorted names would swap Hammering and HammerThrow. The folder
HandstandPushups holds files v_HandStandPushups_*.

HMDB-51 has <class>_test_splitN.txt with lines `video.avi 1`: 1 trains, 2 tests, 0 is unused in this split. Class ids
follow the sorted class names (some class lists that go round put kick_ball before kick). File names hold blanks,
# ! ( ) and the like; unpacked copies have @ in place of #. A film's clips, of whatever class, are one group.
"""

import re
from pathlib import Path

from pvnas.data.listing.finder import Finder, copies_of
from pvnas.data.listing.registry import Entry, ListFolder, ListFormat, Listing, group_in_name
from pvnas.data.listing.text import at, class_key, parse_number, read_lines, read_names, shown
from pvnas.errors import UserError

UCF_CLASSES = "classInd.txt"
UCF_LIST = re.compile(r"(train|test)list0*(\d{1,4})\.txt", re.IGNORECASE)
HMDB_LIST = re.compile(r"(.+)_test_split(\d{1,4})\.txt", re.IGNORECASE)
HMDB_SPLITS = {"0": None, "1": "train", "2": "test"}


def read_ucf101(folder: ListFolder) -> Listing:
    """Return the videos of one of the three splits. Raises UserError that names file and line."""
    number = f"{folder.split:02d}"
    numbered = _by_split(folder, UCF_LIST, f"trainlist{number}.txt or testlist{number}.txt")[folder.split]
    lists = dict(sorted(((split.lower(), path) for split, path in numbered.items()), reverse=True))  # train, then test
    classes = next((path for path in folder.files if path.name == UCF_CLASSES), None)
    if classes is None:
        raise UserError(f"no {UCF_CLASSES} in {folder.folder}; put it beside {next(iter(lists.values())).name}")
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
                raise UserError(f"{where}: {shown(parent)} is no class of {UCF_CLASSES}; expected 'Class/video.avi'")
            if number and int(number) != official:
                raise UserError(
                    f"{where}: number {number} is not that of class {shown(label)} in {UCF_CLASSES}; mend the list"
                )
            finder.tree.inside(path.strip(), where)
            there = finder.in_class(label, split, copies_of(video), where)
            entries.append(Entry(there, label, split, group_in_name(label, video), str(file), line))
    return Listing(entries, names.names)


def read_hmdb51(folder: ListFolder) -> Listing:
    """Return the videos of one of the three splits. Raises UserError that names file and line."""
    by_split = _by_split(folder, HMDB_LIST, f"file such as brush_hair_test_split{folder.split}.txt")
    lists = dict(sorted(by_split[folder.split].items()))
    absent = sorted({label for other in by_split.values() for label in other} - lists.keys())
    if absent:
        name = f"{absent[0]}_test_split{folder.split}.txt"
        raise UserError(f"no {name} in {folder.folder}, but another split has class {absent[0]!r}; put it there")
    finder = Finder(folder.tree)
    entries = []
    for label, file in lists.items():
        for line, text in read_lines(file):
            where = at(file, line)
            parts = text.rsplit(None, 1)
            if len(parts) < 2 or parts[1] not in HMDB_SPLITS:
                raise UserError(f"{where}: {shown(text)} does not end with 0, 1 or 2; expected 'video.avi 1'")
            name, split = parts[0], HMDB_SPLITS[parts[1]]
            if "/" in name:
                finder.tree.inside(name, where)
                raise UserError(f"{where}: {shown(name)} is no file name; expected 'video.avi 1' without a folder")
            if split is None:
                continue
            copies = copies_of(name)
            copies += [copy.replace("#", "@") for copy in copies if "#" in copy]
            there = finder.in_class(label, split, copies, where)
            entries.append(Entry(there, label, split, name.rpartition(f"_{label}_")[0] or None, str(file), line))
    return Listing(entries, tuple(lists))


def _by_split(folder: ListFolder, pattern: re.Pattern[str], example: str) -> dict[int, dict[str, Path]]:
    """Return the lists {number of the split: {name: path}}. Raises UserError where there is none of the wanted one."""
    lists: dict[int, dict[str, Path]] = {}
    for path in folder.files:
        if match := pattern.fullmatch(path.name):
            lists.setdefault(int(match[2]), {})[match[1]] = path
    if folder.split not in lists:
        there = f"; type --data.split {min(lists)}" if lists else "; put the official lists there"
        raise UserError(f"no {example} in {folder.folder}{there}")
    return lists


def _recognises_ucf101(folder: ListFolder) -> bool:
    named = {path.name for path in folder.files}
    return UCF_CLASSES in named and any(UCF_LIST.fullmatch(path.name) for path in folder.lists)


UCF101 = ListFormat("ucf101", read_ucf101, _recognises_ucf101)
HMDB51 = ListFormat("hmdb51", read_hmdb51, lambda f: any(HMDB_LIST.fullmatch(path.name) for path in f.lists))
