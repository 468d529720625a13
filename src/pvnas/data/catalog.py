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
        """Return the videos whose file does not exist."""
        root = os.fspath(self.root)
        isfile, join = os.path.isfile, os.path.join
        return self.videos.take([row for row, path in enumerate(self.videos.paths) if not isfile(join(root, path))])

    def summary(self) -> str:
        """Return one line with the counts: copies of the same data set differ in size, so they are always shown."""
        totals = {split: sum(by_class.values()) for split, by_class in self.counts().items()}
        parts = ", ".join(f"{split} {total}" for split, total in totals.items())
        return f"{len(self.videos)} videos of {len(self.classes)} classes ({parts})"
