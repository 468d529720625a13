"""Lists without header, `path label`, as SlowFast, PyTorchVideo and MMAction2 read them; the split is in a file's name.

    air drumming/a b.mp4 3        a,b.mp4,3        "a, b.mp4","air drumming"        a b.mp4<tab>3

Paths hold blanks and commas, so a line is cut once, from the right; a path that begins with a quote, and a label that
is text, are quoted as in csv.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pvnas.data.listing.finder import Finder, split_in_name
from pvnas.data.listing.registry import Entry, ListFolder, ListFormat, Listing, is_video
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
NUMBERS = re.compile(rf"(?:[0-9]{{0,9}}(?:[{BETWEEN}]|$))*")
FRAMES = re.compile(r"raw_?frames?|rgb|flow", re.IGNORECASE)
NUMBER_IN_NAME = re.compile(r"(?:split_?|list)0*(\d{1,4})(?!\d)", re.IGNORECASE)


class Row(NamedTuple):
    """A line of a list."""

    path: str
    label: str
    is_text: bool  # whether the label was quoted, so that it is the class's name even if it looks like a number


def parse_line(line: str, where: str) -> Row:
    """Return path and label of a line. Raises UserError for one that has no label, several, or counts frames."""
    row = _quoted_path(line, where) if line.startswith('"') else _quoted_label(line) or _plain(line, where)
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
    """Return the cells of `path,"label"`, None for a line that is something else."""
    if not line.endswith('"'):
        return None
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
    name = NUMBERS.sub("", path[::-1], count=1)[::-1]  # without the numbers at its end
    if name and name != path and not is_video(path):
        if is_video(name):
            raise UserError(f"{where}: several labels for {shown(name)}; give each video one label: {EXPECTED}")
        raise UserError(f"{where}: {shown(name)} is a folder of frames with their number; list video files: {EXPECTED}")
    return Row(path, line[cut + 1 :], False)


def is_path_list(path: Path) -> bool:
    """Return whether a file is a list whose first line names a video."""
    if not _is_candidate(path):
        return False
    try:
        return is_video(parse_line(first_line(path), "").path)
    except UserError:
        return False


def _is_candidate(path: Path) -> bool:
    return path.suffix.lower() in (".txt", ".csv") and not is_names_file(path)


def read_list(folder: ListFolder) -> Listing:
    """Return the videos of the list that the user named, or of all lists. Raises UserError that names file and line."""
    finder, entries = Finder(folder.tree), list[Entry]()
    first: dict[str, Entry] = {}  # the first video of every label
    first_of_kind: dict[bool, Entry] = {}  # and of labels that are text (True), or numbers (False)
    for path, split in _lists(folder):
        before = len(entries)
        for line, text in read_lines(path):
            where = at(path, line)
            row = parse_line(text, where)
            label = row.label if row.is_text else str(int(row.label))
            label = first[label].label if label in first else label  # one object for all its videos
            entry = Entry(_locate(finder, row.path, split, where), label, split, None, str(path), line)
            entries.append(entry)
            if first.setdefault(label, entry) is entry:
                first_of_kind.setdefault(row.is_text, entry)
                other = first_of_kind.get(not row.is_text)
                if other is not None:
                    raise UserError(
                        f"{where}: label {shown(label)} and {shown(other.label)} of {other.where} are not of one "
                        "kind; give numbers only, or names only"
                    )
        if len(entries) == before:
            raise UserError(f"{path} is empty; {EXPECTED}")
    of = _classes_by_name if True in first_of_kind else _classes_by_number
    names, classes = of(first, folder.files)
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


def _locate(finder: Finder, path: str, split: str | None, where: str) -> str:
    path = finder.tree.inside(path, where)
    if path.startswith("/"):
        return path
    folder, _, name = path.rpartition("/")
    folders = finder.of_folder(folder, split)
    there = finder.find(folders, [name]) or (f"{folders[0].prefix}{name}" if folders else path)
    return there if there == path else finder.tree.checked(there, where)


def _classes_by_name(first: dict[str, Entry], files: Sequence[Path]) -> tuple[dict[str, str], Sequence[str]]:
    """Return the class's name of every label, and all classes in their order, of labels that are names."""
    labels = sorted(first)
    keys = {class_key(label) for label in labels}
    names = find_names(files, len(keys), lambda those: keys <= set(map(class_key, those.names)))
    if names is None:
        return {label: label for label in labels}, labels
    by_key = {class_key(name): name for name in names.names}
    return {label: by_key[class_key(label)] for label in labels}, names.names


def _classes_by_number(first: dict[str, Entry], files: Sequence[Path]) -> tuple[dict[str, str], Sequence[str]]:
    """Return the same for labels that are numbers. Raises UserError for one that is too large."""
    numbers = sorted(map(int, first))
    highest = numbers[-1]
    names = find_names(files, highest + 1, lambda those: highest - _offset(those, numbers) < len(those.names))
    if names is not None:
        offset = _offset(names, numbers)
        return {str(number): names.names[number - offset] for number in numbers}, names.names
    last = first[str(highest)]
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
