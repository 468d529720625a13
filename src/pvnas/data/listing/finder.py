"""Where videos customarily lie, and how copies spell the names of class folders and files.

    root/UCF-101/Archery/v.avi   root/train/air_drumming/id.mp4   root/20bn-something-something-v2/1.webm

Folders are found by a normalised key of their name.
"""

import os
import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

from pvnas.data.listing.registry import LIST_FOLDERS, SPLIT_NAMES, Folder, Tree, is_video
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


class VideoFolder(NamedTuple):
    """A folder that may hold videos."""

    prefix: str  # what comes before a file's name: '' or a path that ends with a slash
    split: str | None  # what the folders' names say: a video is first looked for in those of its own
    content: Folder


class Finder:
    """Finds listed videos below the root; remembers where it looked."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._by_class: dict[tuple[str, str | None], list[VideoFolder]] = {}
        self.of_folder = cache(self._of_folder)
        """Return where the videos of a listed folder may lie: in it below the root, or below a container."""
        self.home = cache(self._home)
        """Return the container in which a missing video most likely appears: the fullest, of this split if any."""
        self._by_case = cache(lambda folder: {name.casefold(): name for name in sorted(tree.listing(folder).files)})

    @cached_property
    def containers(self) -> list[VideoFolder]:
        """The root and its customary folders of videos, two deep."""
        folders, queue = [], [(self._folder("", None), 0)]
        for folder, depth in queue:
            if folder.prefix:
                self.tree.inside(folder.prefix[:-1], str(self.tree.root))
            folders.append(folder)
            for name in folder.content.folders if depth < 2 else ():
                if VIDEO_FOLDERS.fullmatch(name):
                    split = SPLIT_NAMES.get(re.split(r"[-_]", name.lower(), maxsplit=1)[0], folder.split)
                    queue.append((self._folder(f"{folder.prefix}{name}/", split), depth + 1))
        return folders

    @cached_property
    def _class_folders(self) -> dict[str, list[tuple[str, str | None]]]:
        """Prefix and split of the folders in the containers by the key of their name."""
        folders: dict[str, list[tuple[str, str | None]]] = {}
        for prefix, split, content in self.containers:
            for name in content.folders:
                folders.setdefault(class_key(name), []).append((f"{prefix}{name}/", split))
        return folders

    def _folder(self, prefix: str, split: str | None) -> VideoFolder:
        return VideoFolder(prefix, split, self.tree.listing(prefix[:-1]))

    def _home(self, split: str | None) -> str:
        def fullness(content: Folder) -> int:
            classes = (n for n in content.folders if not (VIDEO_FOLDERS.fullmatch(n) or LIST_FOLDERS.fullmatch(n)))
            return sum(map(is_video, content.files)) + len(list(classes))

        likely = max(self.containers, key=lambda f: (split is not None and f.split == split, fullness(f.content)))
        return likely.prefix

    def flat(self, split: str | None) -> list[VideoFolder]:
        """Return the containers, those of the split first: where a folder holds the videos of all classes."""
        return sorted(self.containers, key=lambda folder: split is None or folder.split != split)

    def of_class(self, label: str, split: str | None, where: str) -> list[VideoFolder]:
        """Return where videos of a class may lie, never nothing: in its folders, or flat in the containers.

        Raises UserError for a label that leads out of the folder.
        """
        key = (label, split)
        if key not in self._by_class:
            folders = self._class_folders.get(class_key(label), ())
            folders = sorted(folders, key=lambda folder: split is None or folder[1] != split)
            folders = folders or [(f"{self.home(split)}{self.tree.inside(label, where)}/", split)]
            flat = (folder for folder in self.flat(split) if folder.content.files)
            self._by_class[key] = [*(self._folder(*folder) for folder in folders), *flat]
        return self._by_class[key]

    def _of_folder(self, name: str, split: str | None) -> list[VideoFolder]:
        root, *others = self.containers
        others.sort(key=lambda folder: split is None or folder.split != split)
        below = f"{name}/" if name else ""
        folders = (self._folder(f"{folder.prefix}{below}", folder.split) for folder in (root, *others))
        return [folder for folder in folders if folder.content.files]

    def find(self, folders: Iterable[VideoFolder], names: Sequence[str]) -> str | None:
        """Return the path of the first of the names that lies in one of the folders."""
        there = (folder.prefix + name for folder in folders for name in names if name in folder.content.files)
        return next(there, None)

    def in_class(self, label: str, split: str | None, names: Sequence[str], where: str) -> str:
        """Return the path of a class's video, of any case, else where its file should be. Raises UserError."""
        folders = self.of_class(label, split, where)
        path = self.find(folders, names)
        for prefix, _, _ in folders if path is None else ():
            cases = self._by_case(prefix[:-1])
            if any_case := next((cases[name.casefold()] for name in names if name.casefold() in cases), None):
                path = prefix + any_case
                break
        return self.tree.checked(path or folders[0].prefix + names[0], where)


def copies_of(name: str, first: str = "") -> list[str]:
    """Return the names that a video's file may have: its own, with the ending ``first``, then converted copies'."""
    stem, official = (name, first) if first else os.path.splitext(name)
    if not official:
        return [name]
    return [stem + official, *(stem + ending for ending in ENDINGS if ending != official)]


def split_in_name(name: str) -> str | None:
    """Return the split that a list's name tells: train_list, kinetics400_val_list, trainlist01; None for none."""
    splits = {SPLIT_NAMES[match[1].lower()] for match in SPLIT_IN_NAME.finditer(name)}
    return splits.pop() if len(splits) == 1 else None
