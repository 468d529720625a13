"""Lists that people write: tables with a header (``table``) and lines without one (``path_list``), together or alone.

The split is a table's column or in the file's name (train.csv, val_list.txt). Labels are names, or numbers, which a
file of names beside them (classes.txt) makes names.
"""

import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pvnas.data.listing import path_list, table
from pvnas.data.listing.content import ABOUT
from pvnas.data.listing.finder import VIDEO_FOLDERS, Finder, split_in_name
from pvnas.data.listing.other_formats import remarks_on
from pvnas.data.listing.path_list import EXPECTED, is_path_list, read_path_list
from pvnas.data.listing.registry import LIST_FOLDERS, SPLIT_NAMES, Entry, ListFolder, ListFormat, Listing, is_video
from pvnas.data.listing.table import SPLIT_FILE, Row, check_header, header_of, is_table, read_table
from pvnas.data.listing.text import (
    MAX_CLASSES,
    ClassNames,
    at,
    class_key,
    find_names,
    first_lines,
    is_names_file,
    shown,
)
from pvnas.errors import UserError

ENDINGS = (".csv", ".tsv", ".txt")
FRAMES = re.compile(r"raw_?frames?|rgb|flow", re.IGNORECASE)
NUMBER_IN_NAME = re.compile(r"(?:split_?|list)0*(\d{1,4})(?!\d)", re.IGNORECASE)
SAMPLE = 500  # rows that tell whether a list is one of the videos that lie there


class ListFile(NamedTuple):
    """A list and the split that its name says."""

    path: Path
    split: str | None
    is_there: bool = True  # whether one of its first videos lies below the folder


# ---- reading


def read_own_lists(folder: ListFolder) -> Listing:
    """Return the videos of the list that the user named, or of all lists. Raises UserError that names file and line."""
    return _read(folder, which_lists(folder))


def read_tables(folder: ListFolder) -> Listing:
    """Return the videos of split.csv, or of the tables with a header that there are. Raises UserError."""
    lists = which_lists(folder, only_tables=True)
    for each in lists:
        check_header(each.path)
    return _read(folder, lists)


def _read(folder: ListFolder, lists: Sequence[ListFile]) -> Listing:
    finder, labels = Finder(folder.tree), _Labels()
    entries, remarks, unlabelled = list[Entry](), list[str](), 0
    for path, named, _ in lists:
        rows, more = _rows(path)
        remarks += more
        file, beside, before = str(path), _beside(folder, path), len(entries) + unlabelled
        for line, row in rows:
            where, split = at(file, line), row.split or named
            video = finder.listed(row.path, row.label, split, where, beside)
            if row.label:
                label = labels.add(row, where)
                entries.append(Entry(video, label, split, row.group, file, line, row.start, row.end))
            else:
                unlabelled += 1
        if len(entries) + unlabelled == before:
            raise UserError(f"{path} is empty; {EXPECTED}")
    files = [path for path in folder.files if _names_classes(path)]
    names, classes = labels.classes(files, [each.path for each in lists])
    if any(name != label for label, name in names.items()):
        entries = [entry._replace(label=names[entry.label]) for entry in entries]
    remarks += [*labels.remarks, *_remarks(finder, entries)]
    return Listing(entries, classes or None, unlabelled, tuple(remarks))


def _rows(path: Path) -> tuple[Iterable[tuple[int, Row]], tuple[str, ...]]:
    """Return the rows of a list with their lines, and what is to be remarked on. Raises UserError."""
    if not header_of(path):
        return read_path_list(path), ()
    rows, remarks = read_table(path)
    return [(line, row._replace(is_text=True)) for line, row in rows] if path.name == SPLIT_FILE else rows, remarks


def _beside(folder: ListFolder, path: Path) -> str:
    """Return the folder of a list below the root with a slash at its end, '' for the root and a list elsewhere."""
    below = os.path.relpath(path.parent, folder.root)
    return "" if below == "." or below.startswith("..") else f"{below}/"


class _Labels:
    """The labels of all lists: names of classes, or their numbers."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}  # where each label stands first
        self.is_text = False
        self.remarks: list[str] = []
        self._known: dict[tuple[str, bool], str] = {}

    def add(self, row: Row, where: str) -> str:
        """Return a row's label, the same object for all its videos. Raises UserError for names among numbers."""
        label = self._known.get((row.label, row.is_text))
        if label is not None:
            return label
        composed = unicodedata.normalize("NFC", row.label) if row.is_text else str(int(row.label))
        label = self._known.setdefault((composed, row.is_text), row.label if row.is_text else composed)
        self._known[row.label, row.is_text] = label
        if self.first and self.is_text != row.is_text:
            other, there = next(iter(self.first.items()))
            raise UserError(
                f"{where}: label {shown(label)} and {shown(other)} of {there} are not of one kind; give numbers only, "
                "or names only"
            )
        self.is_text = row.is_text
        self.first.setdefault(label, where)
        return label

    def classes(self, files: Sequence[Path], lists: Sequence[Path]) -> tuple[dict[str, str], Sequence[str]]:
        """Return the class's name of every label, and all classes in their order. Raises UserError."""
        if not self.first or any(path.name == SPLIT_FILE for path in lists):  # whose labels are names in any case
            return {label: label for label in self.first}, sorted(self.first)
        return self._by_name(files) if self.is_text else self._by_number(files, any(map(header_of, lists)))

    def _by_name(self, files: Sequence[Path]) -> tuple[dict[str, str], Sequence[str]]:
        labels = sorted(self.first)
        keys = {class_key(label) for label in labels}
        names = find_names(files, len(keys), lambda those: keys <= set(map(class_key, those.names)))
        if names is None:
            return {label: label for label in labels}, labels
        by_key = {class_key(name): name for name in names.names}
        return {label: by_key[class_key(label)] for label in labels}, names.names

    def _by_number(self, files: Sequence[Path], is_table: bool) -> tuple[dict[str, str], Sequence[str]]:
        numbers = sorted(map(int, self.first))
        highest = numbers[-1]
        last = f"{self.first[str(highest)]}: label {highest}"
        names = find_names(files, highest + 1, lambda those: highest - _offset(those, numbers) < len(those.names))
        offset = _offset(names, numbers) if names else 1
        if names is None and numbers[0] > 0:
            names = find_names(files, highest, lambda those: len(those.names) == highest)
        if names is not None and offset and not names.numbers:
            self.remarks.append(f"labels count from 1: {names.names[0]!r}, the first of {names.file}, is 1")
        if names is not None:
            return {str(number): names.names[number - offset] for number in numbers}, names.names
        if files:
            raise UserError(f"{last} is beyond the classes of {files[0]}; mend one of them")
        if highest >= MAX_CLASSES:
            raise UserError(f"{last} is too large; number the classes from 0")
        if is_table:
            return {label: label for label in self.first}, [str(number) for number in numbers]
        first = int(numbers == list(range(1, highest + 1)))
        gaps = sorted(set(range(highest)) - set(numbers))
        if gaps and not first:
            self.remarks.append(
                f"classes are numbered 0 to {highest}, and no video has label {', '.join(map(str, gaps[:5]))}; number "
                "them without gaps, or give a file classes.txt with one name a line"
            )
        if first and highest > 1:
            self.remarks.append(
                f"labels count from 1: {highest} classes, which are called 1 to {highest}; a file classes.txt with one "
                "name a line gives them names"
            )
        classes = [str(number) for number in range(first, highest + 1)]
        return {name: name for name in classes}, classes


def _offset(names: ClassNames, numbers: Sequence[int]) -> int:
    """Return the number of the first class: a list with a 0 counts from 0, even beside a classInd.txt that does not."""
    return names.numbers[0] if names.numbers and numbers[0] > 0 else 0


def _remarks(finder: Finder, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what a list says that could be meant otherwise."""
    if finder.elsewhere:
        listed, here = finder.elsewhere
        yield f"listed paths such as {shown(listed)} do not exist; read instead is {shown(here)} in the folder"
    spellings: dict[str, str] = {}
    for label in sorted({entry.label for entry in entries}):
        other = spellings.setdefault(class_key(label), label)
        if other != label:
            yield f"classes {shown(other)} and {shown(label)} differ in spelling only; they are two: write them alike"
            break
    segments = [entry for entry in entries if entry.start > 0 or entry.end < math.inf]
    if segments:
        yield from _remarks_on_segments(segments, entries)


def _remarks_on_segments(segments: Sequence[Entry], entries: Sequence[Entry]) -> Iterator[str]:
    cut = {segment.path for segment in segments}
    whole = next((e for e in entries if e.path in cut and e.start == 0 and e.end == math.inf), None)
    if whole:
        yield f"{whole.where}: {shown(whole.path)} is listed whole, and segments of it too; all of them are read"
    splits: dict[str, str] = {}
    for segment in segments:
        split = segment.split or "train"
        other = splits.setdefault(segment.path, split)
        if other != split:
            yield (
                f"{segment.where}: segments of {shown(segment.path)} are in {other} and in {split}: what is measured "
                "on them may look better than it is"
            )
            return


# ---- which lists are read


def which_lists(folder: ListFolder, *, only_tables: bool = False) -> list[ListFile]:
    """Return the lists to read: the one that the user named, split.csv, those of the splits, or the only one.

    Raises UserError where there is none, and where two could be meant.
    """
    if folder.chosen:
        return [ListFile(folder.chosen, _split_of(folder, folder.chosen))]
    files = [path for path in folder.files if path.suffix.lower() in ENDINGS and not _names_classes(path)]
    if folder.folder / SPLIT_FILE in files:
        return [ListFile(folder.folder / SPLIT_FILE, None)]
    if only_tables:
        files = list(filter(is_table, files))
    finder = Finder(folder.tree)
    lists = [ListFile(path, _split_of(folder, path), _names_videos(folder, finder, path)) for path in files]
    likely = [each for each in lists if each.is_there or _looks_like_list(each.path)]
    likely = likely or [each for each in lists if each.split]
    any_there = any(each.is_there for each in likely)
    of_splits = [each for each in likely if each.split]
    unnamed = [each for each in likely if not each.split and each.is_there == any_there]
    if any(each.is_there == any_there for each in of_splits):
        return _one_of_each_split(folder, of_splits)
    if len(unnamed) == 1:
        return unnamed
    if unnamed:
        both = " and ".join(str(each.path) for each in unnamed[:2])
        raise UserError(f"{both} both list videos; name the one to read, such as {unnamed[0].path}")
    if only_tables:
        raise UserError(f"no {SPLIT_FILE} in {folder.folder}; write one with the header path,label,split,group")
    raise UserError(
        f"no list such as train.csv or val_list.txt in {folder.folder}; "
        "name the list itself, or let the files' names say train, val or test"
    )


def _one_of_each_split(folder: ListFolder, lists: Sequence[ListFile]) -> list[ListFile]:
    """Return one list of each split. Raises UserError where there are two."""
    found: dict[str, ListFile] = {}
    for each in [each for each in lists if not FRAMES.search(each.path.stem)] or lists:
        number = NUMBER_IN_NAME.search(each.path.stem)
        if number and int(number[1]) != folder.split:
            continue
        other = found.setdefault(each.split or "", each)
        if other is not each and other.is_there == each.is_there:
            raise UserError(
                f"{other.path} and {each.path} both list split {each.split!r}; take one away, or name one list"
            )
        found[each.split or ""] = each if each.is_there else other
    return list(found.values())


def _split_of(folder: ListFolder, path: Path) -> str | None:
    """Return the split that a list's name says, or that of the folder in which it lies (train/metadata.csv)."""
    of_folder = SPLIT_NAMES.get(path.parent.name.lower()) if path.parent != folder.folder else None
    return split_in_name(path.stem) or of_folder


def _names_classes(path: Path) -> bool:
    """Return whether a file names the classes: labels.txt may as well be a list of videos."""
    return is_names_file(path) and not (is_table(path) or is_path_list(path))


def _looks_like_list(path: Path) -> bool:
    return not ABOUT.fullmatch(path.stem) and (is_table(path) or is_path_list(path))


def _names_videos(folder: ListFolder, finder: Finder, path: Path) -> bool:
    """Return whether one of a list's first videos lies there, and the list holds little else."""
    header = header_of(path)
    if ABOUT.fullmatch(path.stem) or (header and not is_table(path)):
        return False
    rows = table.first_rows(path, header, SAMPLE) if header else path_list.first_rows(path, SAMPLE)
    beside = _beside(folder, path)
    there = [_is_there(finder, row, beside) for row in rows]
    likely = (is_there or bool(row and is_video(row.path)) for row, is_there in zip(rows, there, strict=True))
    return any(there) and (header is not None or 2 * sum(likely) >= len(rows))


def _is_there(finder: Finder, row: Row | None, beside: str) -> bool:
    with suppress(UserError):
        return (
            row is not None and bool(row.path) and finder.exists(finder.listed(row.path, row.label, None, "", beside))
        )
    return False


# ---- a list beside folders


def holds_split_file(folder: ListFolder) -> bool:
    """Return whether there is a split.csv, which is read in any case."""
    path = folder.chosen or folder.folder / SPLIT_FILE
    return path.name == SPLIT_FILE and path.is_file()


def own_format(folder: ListFolder) -> str | None:
    """Return the format of the lists that are read, None where there is none of the videos that lie there.

    Lists whose videos are all missing are read only where there are no folders of classes to read instead.
    """
    if folder.chosen:
        is_list = folder.chosen.name.lower().endswith(ENDINGS)
        return SPLIT_CSV.name if header_of(folder.chosen) else PATH_LIST.name if is_list else None
    likely = [path for path in folder.files if path.suffix.lower() in ENDINGS and not _names_classes(path)]
    finder = Finder(folder.tree)
    there = [path for path in likely if _names_videos(folder, finder, path)]
    has_folders = folder.folder == folder.root and len(_class_folders(finder)) > 1
    if not there and (has_folders or not any(map(_looks_like_list, likely))):
        return None
    return SPLIT_CSV.name if all(header_of(each.path) for each in which_lists(folder)) else PATH_LIST.name


def remarks_on_folders(folder: ListFolder, listing: Listing) -> list[str]:
    """Return how lists and folders were told apart, where either could have been meant."""
    read = {entry.file for entry in listing.entries} - {""}
    classes = sorted(_class_folders(Finder(folder.tree)))
    by_folder = (class_key(os.path.dirname(e.path).rpartition("/")[2]) == class_key(e.label) for e in listing.entries)
    if not read or len(classes) < 2 or all(by_folder):
        return []
    return [
        f"{' and '.join(sorted(read))}: read in place of the folders {', '.join(classes[:3])}"
        f"{', ...' if len(classes) > 3 else ''}; to make classes of those type --data.format folders"
    ]


def unread_lists(folder: ListFolder, read: Collection[str]) -> dict[Path, str]:
    """Return what is to be said of each file that could be a list and is none of those ``read``; by its path."""
    if folder.chosen is not None:
        return {}
    remarks, finder = remarks_on(folder.root / name for name in folder.tree.listing("").files), Finder(folder.tree)
    for path in folder.files:
        if str(path) not in read and (why := _why_not(folder, finder, path)):
            remarks[path] = why
    return remarks


def _why_not(folder: ListFolder, finder: Finder, path: Path) -> str | None:
    """Return why a file that looks like a list is not read, None for one that surely is none."""
    if path.suffix.lower() not in ENDINGS or _names_classes(path) or ABOUT.fullmatch(path.stem):
        return None
    header = header_of(path)
    if not _looks_like_list(path):
        if header and header.of_role("path"):
            return f"{path} is not read: it has no column for the label"
        if header or not _split_of(folder, path):
            wanted = "give it a header with the columns path and label"
            return f"{path} is not read, though it names videos: {wanted}" if _holds_videos(path) else None
    if _names_videos(folder, finder, path):
        return f"{path} is not read; to read it, name it in place of the folder"
    try:
        _, row = next(iter(_rows(path)[0]))
    except UserError as error:
        return f"{path} is not read: {error}"
    except StopIteration:
        return f"{path} is not read: it is empty"
    return f"{path} is not read: none of its videos lies in the folder (the first is {shown(row.path)})"


def _holds_videos(path: Path) -> bool:
    """Return whether most of a file's first lines have a cell that is a video's name."""
    lines = first_lines(path, SAMPLE)
    names = [any(is_video(cell.strip("\"' ")) for cell in re.split(r"[,;\t|]", line)) for line in lines]
    return 2 * sum(names) > len(lines)


def _class_folders(finder: Finder) -> set[str]:
    """Return the names of the folders of classes, which hold videos, in the root and in customary folders of videos."""
    names = {
        (folder.prefix, name)
        for folder in finder.containers
        for name in folder.content.folders
        if not (VIDEO_FOLDERS.fullmatch(name) or LIST_FOLDERS.fullmatch(name))
    }
    return {name for prefix, name in names if any(map(is_video, finder.tree.listing(f"{prefix}{name}").files))}


def _recognises(folder: ListFolder, name: str) -> bool:
    return own_format(folder) == name


SPLIT_CSV = ListFormat("split.csv", read_tables, lambda folder: _recognises(folder, "split.csv"))
PATH_LIST = ListFormat("list", read_own_lists, lambda folder: _recognises(folder, "list"))
