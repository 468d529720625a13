"""Lists without header, `path label`, as SlowFast, PyTorchVideo and MMAction2 read them; the split is in a file's name.

    air drumming/a b.mp4 3        a,b.mp4,3        "a, b.mp4","air drumming"        a b.mp4<tab>3

Paths hold blanks and commas, so a line is cut once, from the right; a path that begins with a quote, and a label that
is text, are quoted as in csv.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pvnas.data.listing.entries import VIDEO_ENDINGS, Entry, Listing, place
from pvnas.data.listing.names import ClassNames, find_names, is_names_file
from pvnas.data.listing.places import Finder, class_key, split_in_name
from pvnas.data.listing.source import Source
from pvnas.data.listing.text import MAX_CLASSES, first_line, lines_of, parse_number, read_text, shown
from pvnas.errors import UserError

EXPECTED = "expected 'path label', such as 'walking/a b.mp4 3'"
BETWEEN = " \t,"
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
FRAMES = re.compile(r"raw_?frames?|rgb|flow", re.IGNORECASE)
NUMBER_IN_NAME = re.compile(r"(?:split_?|list)0*(\d{1,4})(?!\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
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
        _refuse_numbers(path, where)
    return Row(path, line[cut + 1 :], False)


def _refuse_numbers(path: str, where: str) -> None:
    """Raise UserError for a row of a list of several labels, or of folders of frames: a path, and numbers behind it."""
    words = path.replace(",", " ").replace("\t", " ").split(" ")
    kept = len(words)
    while kept and (not words[kept - 1] or parse_number(words[kept - 1]) is not None):
        kept -= 1
    name = path[: len(" ".join(words[:kept]))]
    if kept == len(words) or not name:
        return
    if name.lower().endswith(VIDEO_ENDINGS):
        raise UserError(f"{where}: several labels for {shown(name)}; give each video one label: {EXPECTED}")
    raise UserError(f"{where}: {shown(name)} is a folder of frames with their number; list video files: {EXPECTED}")


def is_list(source: Source) -> bool:
    """Return whether one of the files is a list whose first line names a video."""
    return bool(_by_content(source.lists()))


def _by_content(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if _is_candidate(path) and _names_a_video(first_line(path))]


def _is_candidate(path: Path) -> bool:
    return path.suffix.lower() in (".txt", ".csv") and not is_names_file(path)


def _names_a_video(line: str) -> bool:
    try:
        return parse_line(line, "").path.lower().endswith(VIDEO_ENDINGS)
    except UserError:
        return False


def read_list(source: Source) -> Listing:
    """Return the videos of the list that the user named, or of all lists. Raises UserError that names file and line."""
    reader = _Reader(Finder(source.tree))
    for path, split in _lists(source):
        reader.read(path, split)
    return reader.listing(source.files)


def _lists(source: Source) -> list[tuple[Path, str | None]]:
    """Return the lists with their splits. Raises UserError where there is none, or two for one split."""
    if source.chosen:
        return [(source.chosen, split_in_name(source.chosen.stem))]
    paths = [path for path in source.files if _is_candidate(path) and split_in_name(path.stem)]
    videos = [path for path in paths if not FRAMES.search(path.stem)] or paths
    lists: dict[str, Path] = {}
    for path in videos:
        match = NUMBER_IN_NAME.search(path.stem)
        if match and int(match[1]) != source.split:
            continue
        split = split_in_name(path.stem) or ""
        if split in lists:
            raise UserError(f"{lists[split]} and {path} both list split {split!r}; take one away, or name one list")
        lists[split] = path
    if not lists:
        found = _by_content(source.files)
        if len(found) == 1:
            return [(found[0], None)]
        raise UserError(
            f"no list such as train.csv or val_list.txt in {source.folder}; "
            "name the list itself, or let the files' names say train, val or test"
        )
    return [(path, split) for split, path in lists.items()]


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
        for line, text in lines_of(read_text(path)):
            where = place(path, line)
            row = parse_line(text, where)
            label = row.label if row.is_text else str(int(row.label))
            label = self.first[label].label if label in self.first else label  # one object for all its videos
            entry = Entry(self._locate(row.path, split, where), label, split, None, file, line)
            if label not in self.first:
                self.first[label] = entry
                self._check_kind(row.is_text, entry)
            self.entries.append(entry)
        if len(self.entries) == before:
            raise UserError(f"{path} is empty; {EXPECTED}")

    def _check_kind(self, is_text: bool, entry: Entry) -> None:
        self.first_of_kind.setdefault(is_text, entry)
        other = self.first_of_kind.get(not is_text)
        if other is not None:
            raise UserError(
                f"{entry.where}: label {shown(entry.label)} and {shown(other.label)} of {other.where} are not of one "
                "kind; give numbers only, or names only"
            )

    def _locate(self, path: str, split: str | None, where: str) -> str:
        path = self.finder.tree.inside(path, where)
        if path.startswith("/"):
            return path
        folder, _, name = path.rpartition("/")
        places = self.finder.of_folder(folder, split)
        found = self.finder.find(places, [name]) or (f"{places[0].prefix}{name}" if places else path)
        return found if found == path else self.finder.tree.checked(found, where)

    def listing(self, files: Sequence[Path]) -> Listing:
        """Return the entries with the names of their classes."""
        if True in self.first_of_kind:
            names, classes = self._by_text(files)
        else:
            names, classes = self._by_number(files)
        entries = self.entries
        if any(name != label for label, name in names.items()):
            entries = [Entry(e.path, names[e.label], e.split, e.group, e.file, e.line) for e in entries]
        return Listing(entries, classes)

    def _by_text(self, files: Sequence[Path]) -> tuple[dict[str, str], Sequence[str]]:
        labels = sorted(self.first)
        keys = {class_key(label) for label in labels}
        names = find_names(files, len(keys), lambda found: keys <= set(map(class_key, found.names)))
        if names is None:
            return {label: label for label in labels}, labels
        by_key = {class_key(name): name for name in names.names}
        return {label: by_key[class_key(label)] for label in labels}, names.names

    def _by_number(self, files: Sequence[Path]) -> tuple[dict[str, str], Sequence[str]]:
        numbers = sorted(map(int, self.first))
        names = find_names(
            files, numbers[-1] + 1, lambda found: numbers[-1] - _offset(found, numbers) < len(found.names)
        )
        if names is not None:
            offset = _offset(names, numbers)
            return {str(number): names.names[number - offset] for number in numbers}, names.names
        last = self.first[str(numbers[-1])]
        short = next(filter(is_names_file, files), None)
        if short is not None:
            raise UserError(f"{last.where}: label {last.label} is beyond the classes of {short}; mend one of them")
        if numbers[-1] >= MAX_CLASSES:
            raise UserError(f"{last.where}: label {last.label} is too large; number the classes from 0")
        classes = [str(number) for number in range(numbers[-1] + 1)]
        return {name: name for name in classes}, classes


def _offset(names: ClassNames, numbers: Sequence[int]) -> int:
    """Return the number of the first class: a list with a 0 counts from 0, even beside a classInd.txt that does not."""
    return names.numbers[0] if names.numbers and numbers[0] > 0 else 0
