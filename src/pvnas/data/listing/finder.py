"""Where videos customarily lie, and how copies spell the names of class folders and files.

    root/UCF-101/Archery/v.avi   root/train/air_drumming/id.mp4   root/20bn-something-something-v2/1.webm

Folders are found by a normalised key of their name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from pvnas.data.listing.registry import EMPTY, LIST_FOLDERS, SPLIT_NAMES, VIDEO_ENDINGS, Folder, Tree
from pvnas.data.listing.text import class_key

VIDEO_FOLDERS = re.compile(
    r"(?:videos?|clips?|data|train|val|valid|validate|validation|test|tiny|compress(?:ed)?|ucf-?101|hmdb-?51|20bn|jester"
    r"|kinetics-?\d*|k[467]00|something|ssv2|sth)(?:[-_].*)?",
    re.IGNORECASE,
)
SPLIT_IN_NAME = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?:list|set|split)?(?![a-z])", re.IGNORECASE
)
ENDINGS = (".mp4", ".webm", ".mkv", ".avi")  # what copies are converted to


@dataclass(frozen=True)
class VideoFolder:
    """A folder that may hold videos."""

    prefix: str
    """What comes before a file's name: '' or a path that ends with a slash."""
    split: str | None = None
    """What the names of the folders say: in a copy with `train` and `val` a video is first looked for in its own."""
    folder: Folder = EMPTY
    """What lies in it."""


class Finder:
    """Finds listed videos below the root; remembers where it looked."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._by_class: dict[tuple[str, str | None], list[VideoFolder]] = {}
        self.of_folder = cache(self._of_folder)
        """Return where the videos of a listed folder may lie: in it below the root, or below a container."""
        self._by_case: dict[str, dict[str, str]] = {}

    @cached_property
    def containers(self) -> list[VideoFolder]:
        """The root and its customary folders of videos, two deep."""
        folders, queue = [], [(VideoFolder(""), 0)]
        for folder, depth in queue:
            if folder.prefix:
                self.tree.inside(folder.prefix[:-1], str(self.tree.root))
            folder = self._opened(folder)
            folders.append(folder)
            for name in folder.folder.folders if depth < 2 else ():
                if VIDEO_FOLDERS.fullmatch(name):
                    split = SPLIT_NAMES.get(re.split(r"[-_]", name.lower(), maxsplit=1)[0], folder.split)
                    queue.append((VideoFolder(f"{folder.prefix}{name}/", split), depth + 1))
        return folders

    @cached_property
    def _class_folders(self) -> dict[str, list[VideoFolder]]:
        """The folders in the containers by the key of their name."""
        folders: dict[str, list[VideoFolder]] = {}
        for folder in self.containers:
            for name in folder.folder.folders:
                folders.setdefault(class_key(name), []).append(VideoFolder(f"{folder.prefix}{name}/", folder.split))
        return folders

    @cached_property
    def _fullness(self) -> dict[str, int]:
        """Number of videos and class folders of each container."""
        return {
            folder.prefix: sum(name.lower().endswith(VIDEO_ENDINGS) for name in folder.folder.files)
            + sum(not (VIDEO_FOLDERS.fullmatch(n) or LIST_FOLDERS.fullmatch(n)) for n in folder.folder.folders)
            for folder in self.containers
        }

    def _opened(self, folder: VideoFolder) -> VideoFolder:
        return replace(folder, folder=self.tree.listing(folder.prefix[:-1]))

    def home(self, split: str | None) -> str:
        """Return the container in which a missing video most likely appears: the fullest, of this split if any."""
        return max(
            self.containers,
            key=lambda folder: (split is not None and folder.split == split, self._fullness[folder.prefix]),
        ).prefix

    def flat(self, split: str | None) -> list[VideoFolder]:
        """Return the containers: where a folder holds the videos of all classes."""
        return _by_split(self.containers, split)

    def of_class(self, label: str, split: str | None, where: str) -> list[VideoFolder]:
        """Return where videos of a class may lie, never nothing: in its folders, or flat in the containers.

        Raises UserError for a label that leads out of the folder.
        """
        key = (label, split)
        if key not in self._by_class:
            folders = _by_split(self._class_folders.get(class_key(label), ()), split)
            folders = folders or [VideoFolder(f"{self.home(split)}{self.tree.inside(label, where)}/", split)]
            flat = (folder for folder in self.flat(split) if folder.folder.files)
            self._by_class[key] = [*map(self._opened, folders), *flat]
        return self._by_class[key]

    def _of_folder(self, name: str, split: str | None) -> list[VideoFolder]:
        below = f"{name}/" if name else ""
        folders = [VideoFolder(f"{folder.prefix}{below}", folder.split) for folder in self.containers]
        opened = map(self._opened, (folders[0], *_by_split(folders[1:], split)))
        return [folder for folder in opened if folder.folder.files]

    def find(self, folders: Iterable[VideoFolder], names: Sequence[str]) -> str | None:
        """Return the path of the first of the names that lies in one of the folders."""
        there = (folder.prefix + name for folder in folders for name in names if name in folder.folder.files)
        return next(there, None)

    def in_class(self, label: str, split: str | None, names: Sequence[str], where: str) -> str:
        """Return the path of a class's video, of any case, else where its file should be. Raises UserError."""
        folders = self.of_class(label, split, where)
        path = self.find(folders, names)
        for folder in folders if path is None else ():
            if folder.prefix not in self._by_case:
                self._by_case[folder.prefix] = {name.casefold(): name for name in sorted(folder.folder.files)}
            cases = self._by_case[folder.prefix]
            if any_case := next((cases[name.casefold()] for name in names if name.casefold() in cases), None):
                path = folder.prefix + any_case
                break
        return self.tree.checked(path or folders[0].prefix + names[0], where)


def copies_of(name: str, first: str = "") -> list[str]:
    """Return the names that a video's file may have: its own, with the ending ``first``, then converted copies'."""
    stem, dot, ending = (name, "", first) if first else name.rpartition(".")
    if not first and not dot:
        return [name]
    official = dot + ending
    return [stem + official, *(stem + ending for ending in ENDINGS if ending != official)]


def split_in_name(name: str) -> str | None:
    """Return the split that a list's name tells: train_list, kinetics400_val_list, trainlist01; None for none."""
    splits = {SPLIT_NAMES[match[1].lower()] for match in SPLIT_IN_NAME.finditer(name)}
    return splits.pop() if len(splits) == 1 else None


def _by_split(folders: Iterable[VideoFolder], split: str | None) -> list[VideoFolder]:
    """Return the folders, those whose name says the split first."""
    return sorted(folders, key=lambda folder: split is None or folder.split != split)
