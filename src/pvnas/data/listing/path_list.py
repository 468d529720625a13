"""Lists without header, `path label`, as SlowFast, PyTorchVideo and MMAction2 read them; the split is in a file's name.

    air drumming/a b.mp4 3        a,b.mp4,3        "a, b.mp4","air drumming"        a b.mp4<tab>3

Paths hold blanks and commas, so a line is cut once, from the right; a path that begins with a quote, and a label that
is text, are quoted as in csv.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pvnas.data.listing.finder import Finder, split_in_name
from pvnas.data.listing.registry import VIDEO_ENDINGS, Entry, ListFolder, ListFormat, Listing
from pvnas.data.listing.text import (
    MAX_CLASSES,
    ClassNames,
    at,
    class_key,
    find_names,
    first_line,
    is_names_file,
    parse_number,
    read_lines,
    shown,
)
from pvnas.errors import UserError

EXPECTED = "expected 'path label', such as 'walking/a b.mp4 3'"
BETWEEN = " \t,"
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
FRAMES = re.compile(r"raw_?frames?|rgb|flow", re.IGNORECASE)
NUMBER_IN_NAME = re.compile(r"(?:split_?|list)0*(\d{1,4})(?!\d)", re.IGNORECASE)


class Row(NamedTuple):
    """A line of a list."""

    path: str
    label: str
    is_text: bool
    """Whether the label was quoted, so that it is the class's name even if it looks like a number."""


def parse_line(line: str, where: str) -> Row:
    """Return path and label of a line. Raises UserError for one that has no label, several, or counts frames."""
    if line.startswith('"'):
        row = _quoted_path(line, where)
    else:
        row = (_quoted_label(line) if line.endswith('"') else None) or _plain(line, where)
    if not row.path.strip() or not row.label:
        raise UserError(f"{where}: no {'label' if row.path.strip() else 'path'}; {EXPECTED}")
    if not row.is_text and parse_number(row.label) is None:
        raise UserError(f"{where}: label {shown(row.label)} is no number from 0; {EXPECTED}, or quote a class name")
    return row


def _quoted_path(line: str, where: str) -> Row:
    path = QUOTED.match(line)
    if not path or line[path.end() : path.end() + 1] not in ("", *BETWEEN):
        raise UserError(f"{where}: {shown(line)} has a quote that is not closed; {EXPECTED}")
    rest = line[path.end() :].strip(" \t").removeprefix(",").strip(" \t")
    label = QUOTED.fullmatch(rest)
    text = label[1].replace('""', '"').strip() if label else rest
    return Row(path[1].replace('""', '"'), text, label is not None)


def _quoted_label(line: str) -> Row | None:
    """Return the cells of `path,"label"`, None where a line that ends with a quote is something else."""
    try:
        cells = next(csv.reader([line], delimiter="," if "," in line else "\t", strict=True, skipinitialspace=True))
    except csv.Error:
        return None
    return Row(cells[0].rstrip(" \t"), cells[1].strip(), True) if len(cells) == 2 else None


def _plain(line: str, where: str) -> Row:
    """Cut a line once, from the right."""
    cut = max(map(line.rfind, BETWEEN))
    path = line[: max(cut, 0)].rstrip(" \t")
    if line[cut : cut + 1] != ",":
        path = path.removesuffix(",").rstrip(" \t")  # 'a.mp4, 3'
    if not path:
        raise UserError(f"{where}: {shown(line)} has no label; {EXPECTED}")
    if not path.lower().endswith(VIDEO_ENDINGS):
        words = path.replace(",", " ").replace("\t", " ").split(" ")
        while words and (not words[-1] or parse_number(words[-1]) is not None):
            words.pop()
        name = path[: len(" ".join(words))]
        if name != path and name:  # a list of several labels, or of folders of frames
            if name.lower().endswith(VIDEO_ENDINGS):
                raise UserError(f"{where}: several labels for {shown(name)}; give each video one label: {EXPECTED}")
            raise UserError(
                f"{where}: {shown(name)} is a folder of frames with their number; list video files: {EXPECTED}"
            )
    return Row(path, line[cut + 1 :], False)


def is_path_list(path: Path) -> bool:
    """Return whether a file is a list whose first line names a video."""
    if not _is_candidate(path):
        return False
    try:
        return parse_line(first_line(path), "").path.lower().endswith(VIDEO_ENDINGS)
    except UserError:
        return False


def _is_candidate(path: Path) -> bool:
    return path.suffix.lower() in (".txt", ".csv") and not is_names_file(path)


def read_list(folder: ListFolder) -> Listing:
    """Return the videos of the list that the user named, or of all lists. Raises UserError that names file and line."""
    reader = _Reader(Finder(folder.tree))
    for path, split in _lists(folder):
        reader.read(path, split)
    names, classes = reader.classes(folder.files)
    entries = reader.entries
    if any(name != label for label, name in names.items()):
        entries = [entry._replace(label=names[entry.label]) for entry in entries]
    return Listing(entries, classes)


def _lists(folder: ListFolder) -> list[tuple[Path, str | None]]:
    """Return the lists with their splits. Raises UserError where there is none, or two for one split."""
    if folder.chosen:
        return [(folder.chosen, split_in_name(folder.chosen.stem))]
    paths = [path for path in folder.files if _is_candidate(path) and split_in_name(path.stem)]
    lists: dict[str, Path] = {}
    for path in [path for path in paths if not FRAMES.search(path.stem)] or paths:
        match = NUMBER_IN_NAME.search(path.stem)
        if match and int(match[1]) != folder.split:
            continue
        split = split_in_name(path.stem) or ""
        if split in lists:
            raise UserError(f"{lists[split]} and {path} both list split {split!r}; take one away, or name one list")
        lists[split] = path
    if lists:
        return [(path, split) for split, path in lists.items()]
    unnamed = list(filter(is_path_list, folder.files))
    if len(unnamed) != 1:
        raise UserError(
            f"no list such as train.csv or val_list.txt in {folder.folder}; "
            "name the list itself, or let the files' names say train, val or test"
        )
    return [(unnamed[0], None)]


class _Reader:
    """Gathers the entries of one list after the other, their labels as written."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.entries: list[Entry] = []
        self.first: dict[str, Entry] = {}
        """The first video of every label."""
        self.first_of_kind: dict[bool, Entry] = {}
        """The first video whose label is text (True), or a number (False)."""

    def read(self, path: Path, split: str | None) -> None:
        file, before = str(path), len(self.entries)
        for line, text in read_lines(path):
            where = at(path, line)
            row = parse_line(text, where)
            label = row.label if row.is_text else str(int(row.label))
            label = self.first[label].label if label in self.first else label  # one object for all its videos
            entry = Entry(self._locate(row.path, split, where), label, split, None, file, line)
            if label not in self.first:
                self.first[label] = entry
                self.first_of_kind.setdefault(row.is_text, entry)
                other = self.first_of_kind.get(not row.is_text)
                if other is not None:
                    raise UserError(
                        f"{where}: label {shown(label)} and {shown(other.label)} of {other.where} are not of one "
                        "kind; give numbers only, or names only"
                    )
            self.entries.append(entry)
        if len(self.entries) == before:
            raise UserError(f"{path} is empty; {EXPECTED}")

    def _locate(self, path: str, split: str | None, where: str) -> str:
        path = self.finder.tree.inside(path, where)
        if path.startswith("/"):
            return path
        folder, _, name = path.rpartition("/")
        folders = self.finder.of_folder(folder, split)
        there = self.finder.find(folders, [name]) or (f"{folders[0].prefix}{name}" if folders else path)
        return there if there == path else self.finder.tree.checked(there, where)

    def classes(self, files: Sequence[Path]) -> tuple[dict[str, str], Sequence[str]]:
        """Return the class's name of every label, and all classes in their order."""
        if True in self.first_of_kind:
            labels = sorted(self.first)
            keys = {class_key(label) for label in labels}
            names = find_names(files, len(keys), lambda those: keys <= set(map(class_key, those.names)))
            if names is None:
                return {label: label for label in labels}, labels
            by_key = {class_key(name): name for name in names.names}
            return {label: by_key[class_key(label)] for label in labels}, names.names
        numbers = sorted(map(int, self.first))
        highest = numbers[-1]
        names = find_names(files, highest + 1, lambda those: highest - _offset(those, numbers) < len(those.names))
        if names is not None:
            offset = _offset(names, numbers)
            return {str(number): names.names[number - offset] for number in numbers}, names.names
        last = self.first[str(highest)]
        short = next(filter(is_names_file, files), None)
        if short is not None:
            raise UserError(f"{last.where}: label {last.label} is beyond the classes of {short}; mend one of them")
        if highest >= MAX_CLASSES:
            raise UserError(f"{last.where}: label {last.label} is too large; number the classes from 0")
        classes = [str(number) for number in range(highest + 1)]
        return {name: name for name in classes}, classes


def _offset(names: ClassNames, numbers: Sequence[int]) -> int:
    """Return the number of the first class: a list with a 0 counts from 0, even beside a classInd.txt that does not."""
    return names.numbers[0] if names.numbers and numbers[0] > 0 else 0


def _recognises(folder: ListFolder) -> bool:
    chosen = folder.chosen
    return any(map(is_path_list, folder.lists)) or bool(chosen and chosen.name.lower().endswith((".txt", ".csv")))


PATH_LIST = ListFormat("list", read_list, _recognises)
