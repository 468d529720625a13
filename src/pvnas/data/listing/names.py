"""Files that name the classes: one name a line, or `1 ApplyEyeMakeup`. Their order is the order of the class ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pvnas.data.listing.places import class_key
from pvnas.data.listing.text import MAX_CLASSES, lines_of, parse_number, read_text, shown
from pvnas.errors import UserError

NAMES_FILE = re.compile(
    r"(?:class(?:es|ind|_?names?|_?list)|labels?|label_?map|.*[-_]label_?map|label_?map[-_].*|.*[-_](?:classes|class_?list))"
    r"\.txt",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(\d+)[ \t]+(\S.*)")


@dataclass(frozen=True)
class ClassNames:
    """The classes of a data set in their official order."""

    file: Path
    names: tuple[str, ...]
    numbers: tuple[int, ...] | None = None
    """The number that the file gives to each name, rising; None where it gives none."""


def read_names(path: Path) -> ClassNames:
    """Return the classes that a file names. Raises UserError for an empty file and for names that are not unique."""
    rows = list(lines_of(read_text(path)))
    matches = [NUMBERED.fullmatch(line) for _, line in rows]
    if not rows:
        raise UserError(f"{path} is empty; give one class name a line")
    if not all(matches):
        check_names(path, [(number, name) for number, name in rows])
        return ClassNames(path, tuple(name for _, name in rows))
    numbered = []
    for (line, text), match in zip(rows, matches, strict=True):
        number = parse_number(match[1]) if match else None
        if match is None or number is None:
            raise UserError(f"{path}, line {line}: class number of {shown(text)} is too long; number from 1")
        numbered.append((number, match[2], line))
    numbered.sort()
    numbers = tuple(number for number, _, _ in numbered)
    if numbers != tuple(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
        raise UserError(f"{path}: the classes are not numbered 1, 2, 3, ...; each needs one line such as '1 Archery'")
    check_names(path, [(line, name) for _, name, line in numbered])
    return ClassNames(path, tuple(name for _, name, _ in numbered), numbers)


def check_names(path: Path, names: Iterable[tuple[int, str]]) -> None:
    """Raise UserError unless the (line, name) pairs are names that differ by more than their spelling."""
    seen: dict[str, int] = {}
    for line, name in names:
        if not name or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"{path}, line {line}: {shown(name)} is no class name; write it as text")
        if seen.setdefault(class_key(name), line) != line:
            first = seen[class_key(name)]
            raise UserError(f"{path}, line {line}: class {shown(name)} is named before, in line {first}; remove one")
        if len(seen) > MAX_CLASSES:
            raise UserError(f"{path}: more than {MAX_CLASSES} classes; give the names of classes, not of videos")


def find_names(files: Iterable[Path], wanted: int, fits: Callable[[ClassNames], bool]) -> ClassNames | None:
    """Return the one file's class names that fit, or None; of several rather those of the wanted number.

    Raises UserError where files that fit disagree.
    """
    found = [names for names in map(read_names, filter(is_names_file, files)) if fits(names)]
    found = [names for names in found if len(names.names) == wanted] or found
    for other in found[1:]:
        if other.names != found[0].names:
            raise UserError(f"{found[0].file} and {other.file} name the classes differently; take one of them away")
    return found[0] if found else None


def is_names_file(path: Path) -> bool:
    """Return whether a file's name says that it names the classes."""
    return NAMES_FILE.fullmatch(path.name) is not None
