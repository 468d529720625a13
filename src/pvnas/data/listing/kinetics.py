"""Kinetics: csv files with a header that holds label, youtube_id, time_start, time_end, split.

Class ids follow the sorted names of the labels, or a file beside the lists that names the classes (a copy's list may
hold none of some). A video is `{youtube_id}_{start:06d}_{end:06d}.mp4` in a folder of its class or flat; copies have
other endings, or the id alone. Clips of one id are one group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from pvnas.data.listing.entries import SPLIT_NAMES, Entry, Listing, place
from pvnas.data.listing.names import find_names
from pvnas.data.listing.places import ENDINGS, Finder, class_key, split_in_name
from pvnas.data.listing.source import Source
from pvnas.data.listing.text import MAX_CLASSES, csv_rows, first_line, shown
from pvnas.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split"
NEEDED = ("youtube_id", "time_start", "time_end")
IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,64}")
SECONDS = re.compile(r"(\d{1,6})(?:\.\d{1,9})?")


def is_kinetics_list(path: Path) -> bool:
    """Return whether a file begins with the header of Kinetics."""
    return path.suffix.lower() == ".csv" and "youtube_id" in first_line(path)


def is_kinetics(source: Source) -> bool:
    """Return whether lists of Kinetics are among the files."""
    return any(map(is_kinetics_list, source.lists()))


def read_kinetics(source: Source) -> Listing:
    """Return the videos of all lists. Raises UserError that names file and line."""
    paths = [path for path in source.lists() if path == source.chosen or is_kinetics_list(path)]
    if not paths:
        raise UserError(f"no csv file with the header {HEADER} in {source.folder}; put the official lists there")
    reader = _Reader(Finder(source.tree))
    for path in paths:
        reader.read(path)
    labels = reader.labels
    if len(labels) > MAX_CLASSES:
        raise UserError(f"{paths[0]}: more than {MAX_CLASSES} labels; the column 'label' must hold the class")
    if not labels:
        return Listing([], None, reader.unlabelled)
    names = find_names(source.files, len(labels), lambda found: labels.keys() <= set(map(class_key, found.names)))
    classes = [labels.get(class_key(name), name) for name in names.names] if names else sorted(labels.values())
    return Listing(reader.entries, classes, reader.unlabelled)


class _Reader:
    """Gathers the entries of one list after the other."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.entries: list[Entry] = []
        self.unlabelled = 0
        self.labels: dict[str, str] = {}
        """The first spelling of every label, by its key."""
        self.spellings: dict[str, str] = {}
        """The first spelling of every label, by any."""

    def read(self, path: Path) -> None:
        rows = csv_rows(path, HEADER)
        cells = _columns(path, next(rows, (1, []))[1])
        named, file = split_in_name(path.stem), str(path)
        for line, row in rows:
            try:
                label, identifier, start, end, split = cells(row)
            except IndexError:
                raise UserError(f"{place(path, line)}: {len(row)} cells are too few; expected {HEADER}") from None
            if not IDENTIFIER.fullmatch(identifier):
                raise UserError(
                    f"{place(path, line)}: youtube_id {shown(identifier)} is no video id (spreadsheet programs spoil "
                    "those that begin with '-'); give the official file"
                )
            begin, finish = _seconds(start), _seconds(end)
            if begin is None or finish is None:
                wrong = shown(start if begin is None else end)
                raise UserError(f"{place(path, line)}: time {wrong} is no number of seconds; expected {HEADER}")
            times = f"{identifier}_{begin}_{finish}"
            split = _split(split, named, path, line)
            if label.strip():
                self._add(label, identifier, times, split, file, line)
            else:
                self._leave_out(split, path, line)

    def _add(self, label: str, identifier: str, times: str, split: str, file: str, line: int) -> None:
        name = self.spellings.get(label)
        if name is None:
            name = self.spellings[label] = self.labels.setdefault(class_key(label), label.strip())
        where = f"{file}, line {line}"
        places = self.finder.of_class(name, split, where)
        first = f"{times}.mp4"
        if first in places[0].folder.files:
            found = places[0].prefix + first
        else:
            names = [stem + ending for stem in (times, identifier) for ending in ENDINGS]
            found = self.finder.find(places, names) or places[0].prefix + first
        path = self.finder.tree.checked(found, where)
        self.entries.append(Entry(path, name, split, identifier, file, line))

    def _leave_out(self, split: str, path: Path, line: int) -> None:
        if split != "test":
            raise UserError(f"{place(path, line)}: no label; expected {HEADER}")
        self.unlabelled += 1


def _columns(path: Path, header: Sequence[str]) -> Callable[[Sequence[str]], Sequence[str]]:
    """Return what picks label, id, start, end and split out of a row; '' for a column that the file lacks."""
    names = [name.strip().lower() for name in header]
    for name in NEEDED:
        if name not in names:
            raise UserError(f"{place(path, 1)}: no column {name!r}; the header must be {HEADER}")
    wanted = [names.index(name) if name in names else None for name in ("label", *NEEDED, "split")]
    if None not in wanted:
        return itemgetter(*wanted)
    return lambda row: ["" if column is None else row[column] for column in wanted]


@lru_cache(maxsize=4096)
def _seconds(text: str) -> str | None:
    match = SECONDS.fullmatch(text.strip())
    return match[1].zfill(6) if match and text.isascii() else None


def _split(text: str, named: str | None, path: Path, line: int) -> str:
    split = SPLIT_NAMES.get(text) or (SPLIT_NAMES.get(text.strip().lower()) if text.strip() else named)
    if split is None:
        raise UserError(
            f"{place(path, line)}: unknown split {shown(text)}; use train, val or test in column 'split' or the name"
        )
    return split
