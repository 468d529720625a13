"""Where videos customarily lie, and how copies spell the names of class folders and files.

    root/UCF-101/Archery/v.avi   root/train/air_drumming/id.mp4   root/20bn-something-something-v2/1.webm

Folders are found by a normalised key of their name.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

from pvnas.data.listing.registry import LIST_FOLDERS, SPLIT_NAMES, Folder, Tree, is_video
from pvnas.data.listing.text import class_key, shown
from pvnas.data.video.pictures import is_picture
from pvnas.errors import UserError

VIDEO_FOLDERS = re.compile(
    r"(?:videos?|clips?|(?:raw_?)?frames?|rgb|images?|imgs?|jpe?gs?|data|train|val|valid|validate|validation|test|tiny|compress(?:ed)?|ucf-?101|hmdb-?51|20bn|jester"
    r"|kinetics-?\d*|k[467]00|something|ssv2|sth)(?:[-_].*)?",
    re.IGNORECASE,
)
SPLIT_IN_NAME = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?:list|set|split)?(?![a-z])", re.IGNORECASE
)
DRIVE = re.compile("[A-Za-z]:/")
ENDINGS = (".mp4", ".webm", ".mkv", ".avi")  # what copies are converted to


class VideoFolder(NamedTuple):
    """A folder that may hold videos."""

    prefix: str  # what comes before a file's name: '' or a path that ends with a slash
    split: str | None  # what the folders' names say: a video is first looked for in those of its own
    content: Folder


class Place(NamedTuple):
    """A folder, and what lies there by what the spellings of its name share."""

    folder: str  # '' for the root
    split: str | None  # that its name, or one above it, says
    by_name: dict[str, list[str]]
    by_stem: dict[str, list[str]]  # videos, without their ending


class Finder:
    """Finds listed videos below the root; remembers where it looked."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._by_class: dict[tuple[str, str | None], list[VideoFolder]] = {}
        self.of_folder = cache(self._of_folder)
        """Return where the videos of a listed folder may lie: in it below the root, or below a container."""
        self.home = cache(self._home)
        """Return the container in which a missing video most likely appears: the fullest, of this split if any."""
        self.elsewhere: tuple[str, str] | None = None  # the first listed path of another machine, and the one here
        self._places = cache(self._places_of)
        self._by_key = cache(self._names_by_key)
        self._by_end = cache(self._paths_by_end)
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

    def listed(self, path: str, label: str, split: str | None, where: str, beside: str = "") -> str:
        """Return the path of a listed video, or folder of pictures, as it is spelled there; else where it should be.

        A path counts from the root, from a customary folder of videos, from the list's own folder `beside`, or from the
        folder of its class. Raises UserError for one that leads out of the root, and one that could be several files.
        """
        path = self._below_root(path, where, beside)
        if path.startswith("/"):  # in the folder that was allowed
            return path
        folder, _, name = path.rpartition("/")
        folders = self.of_folder(folder, split)
        if split is None:  # nothing says which of the folders of splits is meant
            self._check_one([f"{f.prefix}{name}" for f in folders if f.split and name in f.content.files], path, where)
        there = self.find(folders, [name]) or self._spelled_otherwise(path, label, split, where, beside)
        there = there or (f"{folders[0].prefix}{name}" if folders else path)
        return there if there == path else self.tree.checked(there, where)

    def _below_root(self, path: str, where: str, beside: str) -> str:
        """Return a path from the root; one of another machine is the file that lies here by the longest end of it."""
        if "\\" in path and not self.exists(path):
            path = path.replace("\\", "/")
        if path.startswith("../") and beside:
            path = os.path.normpath(beside + path)
        is_windows = DRIVE.match(path) is not None
        try:
            if not is_windows:
                return self.tree.inside(path, where)
        except UserError:
            if not path.startswith("/") or os.path.lexists(path):
                raise
        here = self._by_its_end(path, where)
        if here is None:
            raise UserError(
                f"{where}: {shown(path)} does not exist, and no file in {self.tree.root} ends so; give paths relative "
                "to that folder"
            )
        self.elsewhere = self.elsewhere or (path, here)
        return self.tree.inside(here, where)

    def _by_its_end(self, path: str, where: str) -> str | None:
        if self.elsewhere:  # as the first one, whether it is there or not
            before = self.elsewhere[0].removesuffix(self.elsewhere[1])
            if path.startswith(before):
                return path.removeprefix(before)
        parts = path.split("/")
        ends = ("/".join(parts[first:]) for first in range(1, len(parts)))
        for end in ends if ".." not in parts else ():
            if end and (self.exists(end) or self._spelled_otherwise(end, "", None, where, "")):
                return end
        return None

    def exists(self, path: str) -> bool:
        """Return whether a path from the root is a file or a folder of pictures."""
        folder, _, name = path.rpartition("/")
        return name in self.tree.listing(folder).files or self._is_pictures(path)

    def _is_pictures(self, folder: str) -> bool:
        return any(map(is_picture, self.tree.listing(folder).files))

    @staticmethod
    def _check_one(paths: Sequence[str], path: str, where: str) -> None:
        if len(paths) > 1:
            raise UserError(f"{where}: {shown(path)} could be {' or '.join(map(repr, paths[:3]))}; write which")

    def _spelled_otherwise(self, path: str, label: str, split: str | None, where: str, beside: str) -> str | None:
        """Return the one file or folder of pictures that a path means which is not there as it is written."""
        folder, _, name = path.rpartition("/")
        matches: list[tuple[str, str | None]] = []  # with the split of the folder that holds them
        for place, of_split, by_name, by_stem in self._places(folder, "" if folder else label, split, beside):
            names = by_name.get(_key(name)) or by_stem.get(_key(_stem(name))) or []
            names = [name] if name in names else names
            self._check_one(names, path, where)
            there = f"{place}/{names[0]}".removeprefix("/") if names else ""
            if there and self.exists(there):
                matches.append((there, of_split))
                if split is not None or of_split is None:
                    break
        if matches:
            self._check_one([there for there, of_split in matches if of_split], path, where)
            return matches[0][0]
        if not folder and class_key(label) in self._class_folders:  # where it should lie: another class has its like
            return None
        end = _key(_stem(path))
        deeper = self._by_end(end.count("/") + 1).get(end, ())
        self._check_one(deeper, path, where)
        return deeper[0] if deeper else None

    @cached_property
    def _deep(self) -> list[str]:
        """The paths of all videos and folders of pictures in folders, three deep."""
        found: list[str] = []
        top = self.tree.listing("")
        folders = [(name, 1) for name in top.folders if name not in top.links]
        for folder, depth in folders:
            content = self.tree.listing(folder)
            videos = [f"{folder}/{name}" for name in sorted(content.files) if is_video(name)]
            found += [folder] if self._is_pictures(folder) else videos
            if depth < 3:
                folders += ((f"{folder}/{name}", depth + 1) for name in content.folders if name not in content.links)
        return found

    def _paths_by_end(self, parts: int) -> dict[str, list[str]]:
        """Return those paths by what the spellings of their last parts share, without the ending of a file."""
        found: dict[str, list[str]] = {}
        for path in self._deep:
            found.setdefault("/".join(_key(_stem(path)).split("/")[-parts:]), []).append(path)
        return found

    def _places_of(self, folder: str, label: str, split: str | None, beside: str) -> list[Place]:
        """Return where videos of a listed folder, or of no folder and a label, may lie: those that hold anything.

        Folders of the split come before those of others.
        """
        below = f"{folder}/" if folder else ""
        prefixes: list[tuple[str, str | None]] = [(below, None), (f"{beside}{below}", None)]
        customary = [(f"{each.prefix}{below}", each.split) for each in self.containers]
        customary += self._class_folders.get(class_key(label), ()) if label else ()
        prefixes += sorted(customary, key=lambda place: split is not None and place[1] != split)
        folders: dict[str, str | None] = {}
        for prefix, of_split in prefixes:
            folders.setdefault(self._folder_as_spelled(prefix[:-1]), of_split)
        places = (Place(each, of_split, *self._by_key(each)) for each, of_split in folders.items())
        return [place for place in places if place.by_name]

    def _folder_as_spelled(self, folder: str) -> str:
        """Return a folder's path with capitals and accents as they are there, where only one has such a name."""
        path = ""
        for part in folder.split("/") if folder else ():
            names = self.tree.listing(path).folders
            same = [name for name in names if _key(name) == _key(part)] if part not in names else [part]
            path = f"{path}/{same[0] if len(same) == 1 else part}".removeprefix("/")
        return path

    def _names_by_key(self, folder: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return the names of files and folders, and of videos without ending, by what their spellings share."""
        content = self.tree.listing(folder)
        by_name: dict[str, list[str]] = {}
        by_stem: dict[str, list[str]] = {}
        for name in sorted(content.files):
            by_name.setdefault(_key(name), []).append(name)
            if is_video(name):
                by_stem.setdefault(_key(_stem(name)), []).append(name)
        for name in content.folders:
            by_name.setdefault(_key(name), []).append(name)
        return by_name, by_stem

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


def _key(name: str) -> str:
    """Return what the spellings of a name have in common: capitals and the forms of accents differ between systems."""
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return os.path.splitext(name)[0] if is_video(name) else name


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
