"""The list of videos with their labels, splits and groups. Nothing here opens a video; `readers` make the list."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pvnas.data.table import SPLITS, Video, VideoTable


@dataclass(frozen=True)
class Catalog:
    """The videos of a data set; a label is an index into classes, whose order is the official one of the format."""

    root: Path
    classes: tuple[str, ...]
    videos: VideoTable
    format: str = "folders"
    """How the list was written: a name out of ``readers.FORMATS``."""
    unlabelled: int = 0
    """Number of listed videos that were left out because the list gives them no label: public test lists."""

    @classmethod
    def of(cls, root: Path, classes: Iterable[str], videos: Iterable[Video], format: str = "folders") -> Catalog:
        """Return the catalogue of single videos."""
        return cls(root, tuple(classes), VideoTable.of(videos), format)

    def select(self, split: str) -> Catalog:
        """Return the videos of one split (train, val or test), with the classes unchanged."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
        return replace(self, videos=self.videos.select(split))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Catalog:
        """Return the videos of these indices in this order, with the classes unchanged."""
        return replace(self, videos=self.videos.take(indices))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of videos by split and class name, zeros included."""
        k = len(self.classes)
        found = np.bincount(self.videos.splits.astype(np.int64) * k + self.videos.labels, minlength=len(SPLITS) * k)
        return {
            split: dict(zip(self.classes, found[number * k : (number + 1) * k].tolist(), strict=True))
            for number, split in enumerate(SPLITS)
        }

    def without(self, paths: Collection[str]) -> Catalog:
        """Return the catalog without the videos of these paths, with the classes unchanged."""
        dropped = frozenset(paths)
        return self.take([row for row, path in enumerate(self.videos.paths) if path not in dropped])

    def missing(self) -> VideoTable:
        """Return the videos whose file does not exist. Lists each folder once instead of asking for every file."""
        present = _Present(os.fspath(self.root))
        return self.videos.take([row for row, path in enumerate(self.videos.paths) if path not in present])

    def summary(self) -> str:
        """Return one line with the counts: copies of the same data set differ in size, so they are always shown."""
        totals = {split: sum(by_class.values()) for split, by_class in self.counts().items()}
        parts = ", ".join(f"{split} {total}" for split, total in totals.items())
        left_out = f"; {self.unlabelled} more have no label" if self.unlabelled else ""
        return f"{len(self.videos)} videos of {len(self.classes)} classes ({parts}){left_out}"


class _Present:
    """The files that exist; remembers folders."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folders: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = os.path.join(self.root, path).rpartition("/")
        if folder not in self.folders:
            self.folders[folder] = _files(folder)
        names = self.folders[folder]
        # A file system that ignores case knows a file by names that its listing does not show.
        return name in names or (bool(names) and os.path.isfile(f"{folder}/{name}"))


def _files(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder or "/") as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()
