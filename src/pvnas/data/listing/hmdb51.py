"""HMDB-51: <class>_test_splitN.txt with lines `video.avi 1`: 1 trains, 2 tests, 0 is unused in this split.

Class ids follow the sorted class names (some class lists that go round put kick_ball before kick). File names hold
blanks, # ! ( ) and the like; unpacked copies have @ in place of #. A film's clips, of whatever class, are one group.
"""

from __future__ import annotations

import re
from pathlib import Path

from pvnas.data.listing.entries import Entry, Listing, place
from pvnas.data.listing.places import Finder, with_endings
from pvnas.data.listing.source import Source
from pvnas.data.listing.text import lines_of, read_text, shown
from pvnas.errors import UserError

LIST = re.compile(r"(.+)_test_split(\d{1,4})\.txt", re.IGNORECASE)
SPLITS = {"0": None, "1": "train", "2": "test"}


def is_hmdb51(source: Source) -> bool:
    """Return whether lists of HMDB-51 are among the files."""
    return any(LIST.fullmatch(path.name) for path in source.files)


def read_hmdb51(source: Source) -> Listing:
    """Return the videos of one of the three splits. Raises UserError that names file and line."""
    lists = _lists(source)
    finder = Finder(source.tree)
    entries = []
    for label, path in lists.items():
        for line, text in lines_of(read_text(path)):
            entry = _entry(finder, label, path, line, text)
            if entry is not None:
                entries.append(entry)
    return Listing(entries, tuple(lists))


def _lists(source: Source) -> dict[str, Path]:
    """Return each class's list of the wanted split, sorted by class. Raises UserError where one is absent."""
    by_split: dict[int, dict[str, Path]] = {}
    for path in source.files:
        if match := LIST.fullmatch(path.name):
            by_split.setdefault(int(match[2]), {})[match[1]] = path
    lists = by_split.get(source.split, {})
    if not lists:
        there = f"; type --data.split {min(by_split)}" if by_split else "; put the official lists there"
        raise UserError(f"no file such as brush_hair_test_split{source.split}.txt in {source.folder}{there}")
    absent = sorted({label for other in by_split.values() for label in other} - lists.keys())
    if absent:
        name = f"{absent[0]}_test_split{source.split}.txt"
        raise UserError(f"no {name} in {source.folder}, but another split has class {absent[0]!r}; put it there")
    return dict(sorted(lists.items()))


def _entry(finder: Finder, label: str, file: Path, line: int, text: str) -> Entry | None:
    """Return the video of one line, None for an unused one."""
    where = place(file, line)
    parts = text.rsplit(None, 1)
    if len(parts) < 2 or parts[1] not in SPLITS:
        raise UserError(f"{where}: {shown(text)} does not end with 0, 1 or 2; expected 'video.avi 1'")
    name, split = parts[0], SPLITS[parts[1]]
    if "/" in name:
        finder.tree.inside(name, where)
        raise UserError(f"{where}: {shown(name)} is no file name; expected 'video.avi 1' without a folder")
    if split is None:
        return None
    stem, dot, ending = name.rpartition(".")
    names = with_endings(stem, dot + ending) if dot else [name]
    names += [copy.replace("#", "@") for copy in names if "#" in copy]
    places = finder.of_class(label, split, where)
    found = finder.find_any_case(places, names) or places[0].prefix + names[0]
    film = name.rpartition(f"_{label}_")[0]
    return Entry(finder.tree.checked(found, where), label, split, film or None, str(file), line)
