"""Annotation files as text. They come from anywhere: whatever they hold, a mistake is one line that names its place."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pvnas.errors import UserError

MAX_BYTES = 1 << 29  # the largest official list, Kinetics-700's, has 40 MB
MAX_CLASSES = 100_000


def shown(value: object) -> str:
    """Return a value out of a file as a message shows it: quoted, in one line, not too long."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def read_text(path: Path) -> str:
    """Return the text of a file, without byte order mark. Raises UserError for what is no UTF-8 text, or no file."""
    try:
        data = _read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a list that can be read") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, line {line}: holds a NUL character, so it is no text; give a text file")
    return text


def _read_bytes(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
            raise UserError(f"{path} is no regular file; give a list")
        if status.st_size > MAX_BYTES:
            raise UserError(f"{path} has {status.st_size >> 20} MiB; no list is larger than {MAX_BYTES >> 20} MiB")
        return file.read(MAX_BYTES)


def first_line(path: Path) -> str:
    """Return the beginning of a file's first line that is not blank, whatever the file holds; for guessing only."""
    try:
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return next((line.strip() for line in file.read(1 << 16).split("\n") if line.strip()), "")
    except OSError:
        return ""


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of the lines that are not blank, without the blanks around them; CRLF and LF end a line."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip(" \t\r")  # str.strip would also take what a file's name may begin with
        if line:
            yield number, line


def csv_rows(path: Path, expected: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the last line, cells) of a csv file's rows that are not blank. Raises UserError."""
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True, delimiter=delimiter)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}; expected {expected}") from None


class Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object, its keys in order and repeated as written."""

    __slots__ = ()


def read_json(path: Path, hook: Any = Pairs) -> Any:
    """Return the content of a JSON file; `hook` makes a value of each object's (key, value) pairs. Raises UserError."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}; give a whole JSON file") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply for an annotation file; give the official one") from None
    except ValueError:
        raise UserError(f"{path} holds a number that is too long; give the official file") from None


def parse_number(text: str) -> int | None:
    """Return the whole number from 0 that a text is, or None; one of ten digits or more is none of ours."""
    return int(text) if len(text) < 10 and text.isascii() and text.isdigit() else None
