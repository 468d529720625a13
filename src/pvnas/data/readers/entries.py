"""What all readers share: an entry of a list, and paths that must stay inside of the data set's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pvnas.errors import UserError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Entry:
    """A video as the folder or the csv names it; split is None where we are to choose."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None


def clean_path(path: str, where: str) -> str:
    """Return the path in its shortest form. Raises UserError when it may lead out of the folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise UserError(f"{where}: path {path!r} leads out of the folder; give paths below it, without '..'")
    return str(pure)


@dataclass
class Inside:
    """Checks that no path leads out of the root through a symbolic link; remembers folders, which repeat."""

    root: Path
    folders: dict[str, str] = field(default_factory=dict)

    def check(self, path: str, where: str) -> None:
        """Raise UserError when the file or folder lies outside of the root."""
        top = self._resolved("")
        folder, _, name = path.rpartition("/")
        full = os.path.join(self._resolved(folder), name)
        if os.path.islink(full):
            full = os.path.realpath(full)
        if os.path.commonpath((top, full)) != top:
            raise UserError(f"{where}: {path!r} is a symbolic link out of the folder; put a copy of its target there")

    def _resolved(self, folder: str) -> str:
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(self.root / folder)
        return self.folders[folder]
