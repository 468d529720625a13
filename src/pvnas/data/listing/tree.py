"""The folder of a data set: each folder is listed once, and nothing that is listed leads out of it unasked.

A quarter of a million questions whether a file exists take minutes on a network disk; listing 400 folders does not.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pvnas.data.listing.text import shown
from pvnas.errors import UserError

UNCLEAN = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|\0")  # an empty part, '.' or '..'
ALLOW = "type --data.allow_outside FOLDER"


@dataclass(frozen=True)
class Folder:
    """What lies in a folder."""

    files: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()
    """Sorted, without hidden ones."""
    links: frozenset[str] = frozenset()
    """Those of the files and folders that are symbolic links."""


EMPTY = Folder()


@dataclass
class Tree:
    """The root, what lies below it, and the folder outside that the user allowed by name."""

    root: Path
    allowed: str = ""
    """Resolved; empty for none."""
    folders: dict[str, Folder] = field(default_factory=dict)
    resolved: dict[str, str] = field(default_factory=dict)
    secure: set[str] = field(default_factory=set)
    """Folders known to lie inside."""

    @classmethod
    def of(cls, root: Path, allow_outside: str = "") -> Tree:
        """Return the tree of a root. Raises UserError unless the allowed folder exists."""
        if allow_outside and not os.path.isdir(allow_outside):
            raise UserError(f"allow_outside {shown(allow_outside)} is no folder; {ALLOW} with one that exists")
        return cls(root, os.path.realpath(allow_outside) if allow_outside else "")

    def listing(self, folder: str) -> Folder:
        """Return what lies in a folder, '' for the root; nothing where there is none. Follows links to folders."""
        if folder not in self.folders:
            self.folders[folder] = _list(os.path.join(self.root, folder))
        return self.folders[folder]

    def inside(self, path: str, where: str) -> str:
        """Return the path in its shortest form, absolute only where it leads into the allowed folder.

        Raises UserError when it leads out of the root, by its parts or through a link, and not into the allowed one.
        """
        return self.checked(self._clean(path, where) if UNCLEAN.search(path) else path, where)

    def checked(self, path: str, where: str) -> str:
        """Return a path of proper parts. Raises UserError when it leads out through a link."""
        folder, _, name = path.rpartition("/")
        if folder not in self.secure:
            self._check(self._resolve(folder), path, where)
            self.secure.add(folder)
        if name in self.listing(folder).links:
            self._check(os.path.realpath(os.path.join(self.root, path)), path, where)
        return path

    def _clean(self, path: str, where: str) -> str:
        if "\0" in path:
            raise UserError(f"{where}: path {shown(path)} holds a NUL character; remove it")
        pure = PurePosixPath(path)
        if not pure.name:
            raise UserError(f"{where}: path {shown(path)} names no file; give a path such as walking/a.mp4")
        if not pure.is_absolute() and ".." not in pure.parts:
            return str(pure)
        full = os.path.join(self._resolve(str(pure.parent)), pure.name)
        top = self._resolve("")
        if pure.name == ".." or not self.allowed or not _within(self.allowed, full):
            raise UserError(
                f"{where}: path {shown(path)} leads out of the folder; give paths below it, without '..', or {ALLOW}"
            )
        return os.path.relpath(full, top) if _within(top, full) else full

    def _check(self, full: str, path: str, where: str) -> None:
        if _within(self._resolve(""), full) or (self.allowed and _within(self.allowed, full)):
            return
        raise UserError(
            f"{where}: {shown(path)} is a symbolic link out of the folder; put a copy of its target there, or {ALLOW}"
        )

    def _resolve(self, folder: str) -> str:
        if folder not in self.resolved:
            self.resolved[folder] = os.path.realpath(os.path.join(self.root, folder))
        return self.resolved[folder]


def _within(top: str, full: str) -> bool:
    return os.path.commonpath((top, full)) == top


def _list(folder: str) -> Folder:
    files, folders, links = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.append(entry.name)
                if not entry.is_dir():
                    files.append(entry.name)
                elif not entry.name.startswith("."):
                    folders.append(entry.name)
    except (OSError, ValueError):  # none there, none that we may read, or no name that a file system knows
        return EMPTY
    return Folder(frozenset(files), tuple(sorted(folders)), frozenset(links))
