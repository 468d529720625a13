"""Where official lists and their videos customarily lie, and how copies spell the names of class folders and files.

    root/UCF-101/Archery/v.avi   root/train/air_drumming/id.mp4   root/20bn-something-something-v2/1.webm

Folders are found by a normalised key of their name: copies replace blanks by `_` and drop some of the characters "'().
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pvnas.data.listing.entries import SPLIT_NAMES, VIDEO_ENDINGS
from pvnas.data.listing.tree import EMPTY, Folder, Tree

LIST_FOLDERS = re.compile(
    r"(?:ucfTrainTestlist|(?:hmdb51_)?testTrainMulti_7030_splits|annotations?|labels?|lists?|splits?|csvs?|meta(?:data)?)"
    r"(?:[-_].*)?",
    re.IGNORECASE,
)
VIDEO_FOLDERS = re.compile(
    r"(?:videos?|clips?|data|train|val|valid|validate|validation|test|tiny|compress(?:ed)?|ucf-?101|hmdb-?51|20bn|jester"
    r"|kinetics-?\d*|k[467]00|something|ssv2|sth)(?:[-_].*)?",
    re.IGNORECASE,
)
SPLIT_IN_NAME = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?:list|set|split)?(?![a-z])", re.IGNORECASE
)
LIST_ENDINGS = (".txt", ".csv", ".json")
# What copies are converted to.
ENDINGS = (".mp4", ".webm", ".mkv", ".avi")
DROPPED = str.maketrans("_", " ", "\"'()")


def class_key(name: str) -> str:
    """Return what all customary spellings of a class name have in common."""
    return " ".join(name.translate(DROPPED).casefold().split())


def list_files(folder: Path) -> list[Path]:
    """Return the text, csv and json files of a folder and of its customary folders of lists, sorted."""
    found, folders = [], [(folder, 0)]
    for place, depth in folders:
        for entry in _scan(place):
            if entry.name.lower().endswith(LIST_ENDINGS) and entry.is_file():
                found.append(place / entry.name)
            elif depth < 2 and LIST_FOLDERS.fullmatch(entry.name) and entry.is_dir():
                folders.append((place / entry.name, depth + 1))
    return sorted(found)


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError:
        return


@dataclass(frozen=True)
class Place:
    """A folder that may hold videos."""

    prefix: str
    """What comes before a file's name: '' or a path that ends with a slash."""
    split: str | None = None
    """What the names of the folders say: in a copy with `train` and `val` a video is first looked for in its own."""
    folder: Folder = EMPTY
    """What lies in it."""


@dataclass
class Finder:
    """Finds listed videos below the root; remembers where it looked."""

    tree: Tree
    classes: dict[tuple[str, str | None], list[Place]] = field(default_factory=dict)
    relatives: dict[tuple[str, str | None], list[Place]] = field(default_factory=dict)
    by_case: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def containers(self) -> list[Place]:
        """The root and its customary folders of videos, two deep."""
        places, queue = [], [(Place(""), 0)]
        for place, depth in queue:
            if place.prefix:
                self.tree.inside(place.prefix[:-1], str(self.tree.root))
            place = self._opened(place)
            places.append(place)
            if depth < 2:
                queue += [
                    (Place(f"{place.prefix}{name}/", _split_of(name) or place.split), depth + 1)
                    for name in place.folder.folders
                    if VIDEO_FOLDERS.fullmatch(name)
                ]
        return places

    @cached_property
    def class_folders(self) -> dict[str, list[Place]]:
        """The folders in the containers by the key of their name."""
        found: dict[str, list[Place]] = {}
        for place in self.containers:
            for name in place.folder.folders:
                found.setdefault(class_key(name), []).append(Place(f"{place.prefix}{name}/", place.split))
        return found

    def _opened(self, place: Place) -> Place:
        return replace(place, folder=self.tree.listing(place.prefix[:-1]))

    @cached_property
    def fullness(self) -> dict[str, int]:
        """Number of videos and class folders of each container."""
        return {
            place.prefix: sum(name.lower().endswith(VIDEO_ENDINGS) for name in place.folder.files)
            + sum(not (VIDEO_FOLDERS.fullmatch(n) or LIST_FOLDERS.fullmatch(n)) for n in place.folder.folders)
            for place in self.containers
        }

    def home(self, split: str | None) -> Place:
        """Return the container in which a missing video is most likely to appear: the fullest, of this split if any."""
        return max(
            self.containers,
            key=lambda place: (split is not None and place.split == split, self.fullness[place.prefix]),
        )

    def of_class(self, label: str, split: str | None, where: str) -> list[Place]:
        """Return where videos of a class may lie, never nothing: in its folders, or flat in the containers.

        Raises UserError for a label that leads out of the folder.
        """
        key = (label, split)
        if key not in self.classes:
            folders = _by_split(self.class_folders.get(class_key(label), ()), split)
            folders = folders or [Place(f"{self.home(split).prefix}{self.tree.inside(label, where)}/", split)]
            self.classes[key] = [
                *map(self._opened, folders),
                *(place for place in self.flat(split) if place.folder.files),
            ]
        return self.classes[key]

    def flat(self, split: str | None) -> list[Place]:
        """Return the containers: where a folder holds the videos of all classes."""
        return _by_split(self.containers, split)

    def of_folder(self, folder: str, split: str | None) -> list[Place]:
        """Return where the videos of a listed folder may lie: in it below the root, or below a container."""
        key = (folder, split)
        if key not in self.relatives:
            places = [
                Place(f"{place.prefix}{folder}/" if folder else place.prefix, place.split) for place in self.containers
            ]
            places = [self._opened(place) for place in (places[0], *_by_split(places[1:], split))]
            self.relatives[key] = [place for place in places if place.folder.files]
        return self.relatives[key]

    def find(self, places: Iterable[Place], names: Sequence[str]) -> str | None:
        """Return the path of the first of the names that lies in one of the places."""
        for place in places:
            files = place.folder.files
            for name in names:
                if name in files:
                    return place.prefix + name
        return None

    def find_any_case(self, places: Iterable[Place], names: Sequence[str]) -> str | None:
        """Return as `find`, else the path of a file whose name differs by case only."""
        places = list(places)
        found = self.find(places, names)
        for place in places if found is None else ():
            if place.prefix not in self.by_case:
                self.by_case[place.prefix] = {name.casefold(): name for name in sorted(place.folder.files)}
            for name in names:
                if name.casefold() in self.by_case[place.prefix]:
                    return place.prefix + self.by_case[place.prefix][name.casefold()]
        return found


def with_endings(stem: str, first: str) -> list[str]:
    """Return the file names that a video may have: its official ending first, then those of converted copies."""
    return [stem + first, *(stem + ending for ending in ENDINGS if ending != first)]


def split_in_name(name: str) -> str | None:
    """Return the split that a list's name tells: train_list, kinetics400_val_list, trainlist01; None for none."""
    found = {SPLIT_NAMES[match[1].lower()] for match in SPLIT_IN_NAME.finditer(name)}
    return found.pop() if len(found) == 1 else None


def _split_of(name: str) -> str | None:
    return SPLIT_NAMES.get(re.split(r"[-_]", name.lower(), maxsplit=1)[0])


def _by_split(places: Iterable[Place], split: str | None) -> list[Place]:
    """Return the places, those whose folder names the split first."""
    return sorted(places, key=lambda place: split is None or place.split != split)
