"""HMDB-51: <class>_test_splitN.txt with lines `video.avi 1`: 1 trains, 2 tests, 0 is unused in this split.

Class ids follow the sorted class names (some class lists that go round put kick_ball before kick). File names hold
blanks, # ! ( ) and the like; unpacked copies have @ in place of #. A film's clips, of whatever class, are one group.
"""

from __future__ import annotations

import re
from pathlib import Path

from pvnas.data.listing.finder import Finder, copies_of
from pvnas.data.listing.registry import Entry, ListFolder, ListFormat, Listing
from pvnas.data.listing.text import at, read_lines, shown
from pvnas.errors import UserError

LIST = re.compile(r"(.+)_test_split(\d{1,4})\.txt", re.IGNORECASE)
SPLITS = {"0": None, "1": "train", "2": "test"}


def read_hmdb51(folder: ListFolder) -> Listing:
    """Return the videos of one of the three splits. Raises UserError that names file and line."""
    lists = _lists(folder)
    finder = Finder(folder.tree)
    entries = []
    for label, file in lists.items():
        for line, text in read_lines(file):
            where = at(file, line)
            parts = text.rsplit(None, 1)
            if len(parts) < 2 or parts[1] not in SPLITS:
                raise UserError(f"{where}: {shown(text)} does not end with 0, 1 or 2; expected 'video.avi 1'")
            name, split = parts[0], SPLITS[parts[1]]
            if "/" in name:
                finder.tree.inside(name, where)
                raise UserError(f"{where}: {shown(name)} is no file name; expected 'video.avi 1' without a folder")
            if split is None:
                continue
            copies = copies_of(name)
            copies += [copy.replace("#", "@") for copy in copies if "#" in copy]
            folders = finder.of_class(label, split, where)
            there = finder.find_any_case(folders, copies) or folders[0].prefix + copies[0]
            film = name.rpartition(f"_{label}_")[0] or None
            entries.append(Entry(finder.tree.checked(there, where), label, split, film, str(file), line))
    return Listing(entries, tuple(lists))


def _lists(folder: ListFolder) -> dict[str, Path]:
    """Return each class's list of the wanted split, sorted by class. Raises UserError where one is absent."""
    by_split: dict[int, dict[str, Path]] = {}
    for path in folder.files:
        if match := LIST.fullmatch(path.name):
            by_split.setdefault(int(match[2]), {})[match[1]] = path
    lists = by_split.get(folder.split, {})
    if not lists:
        there = f"; type --data.split {min(by_split)}" if by_split else "; put the official lists there"
        raise UserError(f"no file such as brush_hair_test_split{folder.split}.txt in {folder.folder}{there}")
    absent = sorted({label for other in by_split.values() for label in other} - lists.keys())
    if absent:
        name = f"{absent[0]}_test_split{folder.split}.txt"
        raise UserError(f"no {name} in {folder.folder}, but another split has class {absent[0]!r}; put it there")
    return dict(sorted(lists.items()))


HMDB51 = ListFormat("hmdb51", read_hmdb51, lambda folder: any(LIST.fullmatch(path.name) for path in folder.lists))
