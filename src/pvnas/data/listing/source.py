"""What a reader is given: where the videos lie, and which files may list them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pvnas.data.listing.entries import VIDEO_ENDINGS
from pvnas.data.listing.places import list_files
from pvnas.data.listing.tree import Tree
from pvnas.errors import UserError


@dataclass(frozen=True)
class Source:
    """The folder of a data set, and its lists."""

    tree: Tree
    files: tuple[Path, ...]
    """Text, csv and json files where official lists customarily lie."""
    folder: Path
    """Where the lists were looked for, for messages."""
    chosen: Path | None = None
    """The one list that the user named."""
    split: int = 1

    @classmethod
    def of(cls, path: str | Path, annotations: str | Path, allow_outside: str, split: int) -> Source:
        """Return the source of a folder or a list file. Raises UserError for a path that does not exist."""
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
        return cls(Tree.of(root, allow_outside), tuple(list_files(folder)), folder, chosen, split)

    @property
    def root(self) -> Path:
        """The folder that the paths of the videos are relative to."""
        return self.tree.root

    def lists(self) -> tuple[Path, ...]:
        """The files that may be read as lists: the one that the user named, or all."""
        return (self.chosen,) if self.chosen else self.files
