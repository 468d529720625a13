"""Annotation files as text. They come from anywhere: whatever they hold, a mistake is one line that names its place."""

import codecs
import csv
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pvnas.errors import UserError

MAX_BYTES = 1 << 29  # the largest official list, Kinetics-700's, has 40 MB
MAX_CLASSES = 100_000
NAMES_FILE = re.compile(
    r"(?:class(?:es|ind|_?names?|_?list)|labels?|label_?map|.*[-_]label_?map|label_?map[-_].*|.*[-_](?:classes|class_?list))"
    r"\.txt",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(\d+)[ \t]+(\S.*)")
DROPPED = str.maketrans("_", " ", "\"'()")


def shown(value: object) -> str:
    """Return a value out of a file as a message shows it: quoted, in one line, not too long."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def at(file: object, line: int) -> str:
    """Return what a message about a line begins with."""
    return f"{file}, line {line}"


def read_text(path: Path) -> str:
    """Return the text of a file, without byte order mark. Raises UserError for what is no UTF-8 text, or no file.

    UTF-16, in which Excel writes "Unicode text", is read where a mark says so.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
                raise UserError(f"{path} is no regular file; give a list")
            if status.st_size > MAX_BYTES:
                raise UserError(f"{path} has {status.st_size >> 20} MiB; no list is larger than {MAX_BYTES >> 20} MiB")
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a list that can be read") from None
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{at(path, line)}: not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{at(path, line)}: holds a NUL character, so it is no text; give a text file")
    return _with_newlines(text)


def _with_newlines(text: str) -> str:
    """Return a text whose lines end with a carriage return alone, as on old Macs, with line feeds."""
    return text if "\n" in text else text.replace("\r", "\n")


def _encoding(data: bytes) -> str:
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def first_lines(path: Path, number: int) -> list[str]:
    """Return the beginning of a file's first lines that are not blank, whatever the file holds; for guessing only."""
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            data = file.read(1 << 16)
    except OSError:
        return []
    text = data.decode(_encoding(data), errors="replace")
    if "\ufffd" in text[:-1]:  # not UTF-8, which is said where the list is read: but it may be one
        text = data.decode("cp1252", errors="replace")
    lines = (line.rstrip("\r") for line in _with_newlines(text).split("\n"))
    return list(islice((line for line in lines if line.strip()), number))


def first_line(path: Path) -> str:
    """Return the beginning of a file's first line that is not blank, without the blanks around it."""
    return next((line.strip() for line in first_lines(path, 1)), "")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of the lines that are not blank, without the blanks around them. Raises UserError."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.strip(" \t\r")  # str.strip would also take what a file's name may begin with
        if line:
            yield number, line


def csv_rows(path: Path, expected: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the last line, cells) of a csv file's rows that are not blank. Raises UserError."""
    text = io.StringIO(read_text(path), newline="")
    rows = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise UserError(f"{at(path, rows.line_num)}: {error}; expected {expected}") from None


class Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object, its keys in order and repeated as written."""

    __slots__ = ()


def read_json(path: Path, hook: Any = Pairs) -> Any:
    """Return the content of a JSON file; `hook` makes a value of each object's (key, value) pairs. Raises UserError."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        raise UserError(f"{at(path, error.lineno)}: {error.msg}; give a whole JSON file") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply for an annotation file; give the official one") from None
    except ValueError:
        raise UserError(f"{path} holds a number that is too long; give the official file") from None


def parse_number(text: str) -> int | None:
    """Return the whole number from 0 that a text is, or None; one of ten digits or more is none of ours."""
    return int(text) if len(text) < 10 and text.isascii() and text.isdigit() else None


# ---- files that name the classes: one name a line, or `1 ApplyEyeMakeup`; their order is the order of the class ids


class ClassNames(NamedTuple):
    """The classes of a data set in their official order."""

    file: Path
    names: tuple[str, ...]
    numbers: tuple[int, ...] | None = None  # that the file gives to the names, rising; None where it gives none


def class_key(name: str) -> str:
    """Return what all spellings of a class name have in common: copies replace blanks by `_` and drop "'()."""
    return " ".join(name.translate(DROPPED).casefold().split())


def read_names(path: Path, *, may_number: bool = True) -> ClassNames:
    """Return the classes that a file names. Raises UserError for an empty file and for names that are not unique."""
    rows = list(read_lines(path))
    numbers: tuple[int, ...] | None = None
    if not rows:
        raise UserError(f"{path} is empty; give one class name a line")
    matches = [match for _, line in rows if (match := NUMBERED.fullmatch(line))] if may_number else []
    if len(matches) == len(rows):
        # Ten digits are enough to tell that a number is too large.
        numbered = sorted((int(m[1][:10]), m[2], line) for (line, _), m in zip(rows, matches, strict=True))
        numbers = tuple(number for number, _, _ in numbered)
        if numbers != tuple(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
            raise UserError(
                f"{path}: the classes are not numbered 1, 2, 3, ...; each needs one line such as '1 Archery'"
            )
        rows = [(line, name) for _, name, line in numbered]
    check_names(path, rows)
    return ClassNames(path, tuple(name for _, name in rows), numbers)


def check_names(path: Path, names: Iterable[tuple[int, str]]) -> None:
    """Raise UserError unless the (line, name) pairs are names that differ by more than their spelling."""
    seen: dict[str, int] = {}
    for line, name in names:
        if not name or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"{at(path, line)}: {shown(name)} is no class name; write it as text")
        first = seen.setdefault(class_key(name), line)
        if first != line:
            raise UserError(f"{at(path, line)}: class {shown(name)} is named before, in line {first}; remove one")
        if len(seen) > MAX_CLASSES:
            raise UserError(f"{path}: more than {MAX_CLASSES} classes; give the names of classes, not of videos")


def find_names(files: Iterable[Path], wanted: int, fits: Callable[[ClassNames], bool]) -> ClassNames | None:
    """Return the one file's class names that fit, or None; of several rather those of the wanted number.

    Raises UserError where files that fit disagree.
    """
    fitting = [names for names in map(read_names, filter(is_names_file, files)) if fits(names)]
    fitting = [names for names in fitting if len(names.names) == wanted] or fitting
    for other in fitting[1:]:
        if other.names != fitting[0].names:
            raise UserError(f"{fitting[0].file} and {other.file} name the classes differently; take one of them away")
    return fitting[0] if fitting else None


def is_names_file(path: Path) -> bool:
    """Return whether a file's name says that it names the classes."""
    return NAMES_FILE.fullmatch(path.name) is not None
