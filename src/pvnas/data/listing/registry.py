"""What every format of lists has in common: where it is read from, what it says, and how it is told from the others.

A format is one file beside this one with a `ListFormat`, and its name in ``config.DataConfig.format``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pvnas.data.listing.text import at
from pvnas.data.listing.tree import Tree
from pvnas.errors import UserError

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
LIST_FOLDERS = re.compile(
    r"(?:ucfTrainTestlist|(?:hmdb51_)?testTrainMulti_7030_splits|annotations?|labels?|lists?|splits?|csvs?|meta(?:data)?)"
    r"(?:[-_].*)?",
    re.IGNORECASE,
)
LIST_ENDINGS = (".txt", ".csv", ".json")
# UCF-101 names the film a clip was cut from: v_Archery_g08_c01.avi. Clips of one film must not be in two splits.
GROUP_IN_NAME = re.compile(r"_(g\d+)_")


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
        return at(self.file, self.line)


@dataclass(frozen=True)
class Listing:
    """All that the lists say."""

    entries: list[Entry]
    classes: Sequence[str] | None = None
    """The official classes in their order; None: the labels of the entries, sorted."""
    unlabelled: int = 0
    """Listed videos without a label, which are left out."""


@dataclass(frozen=True)
class ListFolder:
    """The folder of a data set, and the files that may list its videos."""

    tree: Tree
    files: tuple[Path, ...]
    """Text, csv and json files where official lists customarily lie."""
    folder: Path
    """Where the lists were looked for, for messages."""
    chosen: Path | None = None
    """The one list that the user named."""
    split: int = 1
    """Number of the official split."""

    @classmethod
    def of(cls, path: str | Path, annotations: str | Path, allow_outside: str, split: int) -> ListFolder:
        """Return what a folder or a list file stands for. Raises UserError for a path that does not exist."""
        if split < 1:
            raise UserError(f"split={split}: official splits are numbered from 1; type --data.split 1")
        given = Path(path)
        if not os.path.exists(given):
            raise UserError(f"{str(path)!r} does not exist; give a folder of videos (class/video), or a list of them")
        if given.name.lower().endswith(VIDEO_ENDINGS) and not given.is_dir():
            raise UserError(f"{str(path)!r} is a file, not a folder; give a folder of videos (class/video), or a list")
        lists = Path(annotations) if annotations else given
        if not os.path.exists(lists):
            raise UserError(f"annotations {str(annotations)!r} do not exist; give the file or folder of official lists")
        chosen = None if lists.is_dir() else lists
        folder = lists if chosen is None else lists.parent
        root = given if given.is_dir() else given.parent
        return cls(Tree.of(root, allow_outside), tuple(_list_files(folder)), folder, chosen, split)

    @property
    def root(self) -> Path:
        """The folder that the paths of the videos are relative to."""
        return self.tree.root

    @property
    def lists(self) -> tuple[Path, ...]:
        """The files that may be read as lists: the one that the user named, or all."""
        return (self.chosen,) if self.chosen else self.files


@dataclass(frozen=True)
class ListFormat:
    """How a data set's lists are recognised and read."""

    name: str
    """What ``--format`` calls it."""
    read: Callable[[ListFolder], Listing]
    """Returns what the lists say. Raises UserError that names file and line."""
    recognises: Callable[[ListFolder], bool]
    """Whether its lists are among the files, or are the one that the user named."""
    validation_is_test: bool = False
    """Whether test labels are not public: results are on the official validation videos, so we hold out others."""


def group_in_name(label: str, name: str) -> str | None:
    """Return the film that a clip's name says it was cut from."""
    match = GROUP_IN_NAME.search(name)
    return f"{label}/{match[1]}" if match else None


def _list_files(folder: Path) -> list[Path]:
    """Return the text, csv and json files of a folder and of its customary folders of lists, sorted."""
    files, folders = [], [(folder, 0)]
    for parent, depth in folders:
        try:
            with os.scandir(parent) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            continue
        for entry in visible:
            if entry.name.lower().endswith(LIST_ENDINGS) and entry.is_file():
                files.append(parent / entry.name)
            elif depth < 2 and LIST_FOLDERS.fullmatch(entry.name) and entry.is_dir():
                folders.append((parent / entry.name, depth + 1))
    return sorted(files)
