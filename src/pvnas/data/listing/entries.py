"""What all readers share: an entry of a list, and what a whole list says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
VIDEO_ENDINGS = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)


class Entry(NamedTuple):
    """A video as the folder or the list names it; a tuple, because there are a quarter of a million of them."""

    path: str
    label: str
    """Name of the class."""
    split: str | None = None
    """None where we are to choose."""
    group: str | None = None
    file: str = ""
    """The list that names it, for messages."""
    line: int = 0

    @property
    def where(self) -> str:
        """What a message begins with."""
        return place(self.file, self.line)


def place(file: object, line: int) -> str:
    """Return what a message about a line begins with."""
    return f"{file}, line {line}"


@dataclass(frozen=True)
class Listing:
    """All that a reader found."""

    entries: list[Entry]
    classes: Sequence[str] | None = None
    """The official classes in their order; None: the labels of the entries, sorted."""
    unlabelled: int = 0
    """Listed videos without a label, which are left out."""
