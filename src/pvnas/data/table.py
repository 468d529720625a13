"""Videos in columns: a quarter of a million of them open quickly, take little memory, and worker processes share them.

A Python object for each video would cost about half a kilobyte, and a forked worker that only looks at it would copy
its page. Arrays and one long text are neither counted nor copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Video:
    """One labelled video."""

    path: str
    """POSIX path relative to the catalog's root, or absolute where it lies in a folder that was allowed by name."""
    label: int
    """Index into the catalog's classes."""
    split: str
    """train, val or test."""
    group: str | None = None
    """Videos of one group (the same source) share a split where we choose it; None: a group of its own."""


@dataclass(frozen=True, eq=False)
class TextColumn:
    """Texts one after another in one block of bytes; file names that are no UTF-8 survive."""

    block: bytes
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextColumn:
        """Return the column of these texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(b"".join(encoded), np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:
        start = self.starts.item(index)
        return self.block[start : start + self.lengths.item(index)].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for rows in _blocks(len(self)):
            for start, length in zip(self.starts[rows].tolist(), self.lengths[rows].tolist(), strict=True):
                yield self.block[start : start + length].decode("utf-8", "surrogateescape")

    def take(self, rows: NDArray[np.int64]) -> TextColumn:
        """Return the texts of these rows; the block is shared."""
        return TextColumn(self.block, self.starts[rows], self.lengths[rows])


def _blocks(length: int) -> Iterator[slice]:
    """Yield slices of some thousand rows: a whole column as Python numbers would take more memory than all columns."""
    for start in range(0, length, 4096):
        yield slice(start, start + 4096)


@dataclass(frozen=True, eq=False)
class VideoTable(Sequence[Video]):
    """A sequence of videos; ``table[i]`` makes the Video of a row when it is asked for."""

    paths: TextColumn
    labels: NDArray[np.int32]
    splits: NDArray[np.uint8]
    """Index into SPLITS."""
    groups: NDArray[np.int32]
    """Index into group_names, -1 for none."""
    group_names: TextColumn
    rows: NDArray[np.int64]
    """Row of each video in the table that was first read, whatever has been selected since."""

    @classmethod
    def of(cls, videos: Iterable[Video]) -> VideoTable:
        """Return the table of these videos."""
        videos = list(videos)
        return cls.of_columns(
            [video.path for video in videos],
            [video.label for video in videos],
            [video.split for video in videos],
            [video.group for video in videos],
        )

    @classmethod
    def of_columns(
        cls, paths: Sequence[str], labels: Sequence[int], splits: Sequence[str], groups: Sequence[str | None]
    ) -> VideoTable:
        """Return the table of these columns, one item of each for a video; no object per video is made."""
        names = dict.fromkeys(group for group in groups if group is not None)
        codes: dict[str | None, int] = {None: -1, **{name: code for code, name in enumerate(names)}}
        split_codes = {split: code for code, split in enumerate(SPLITS)}
        n = len(paths)
        return cls(
            TextColumn.of(paths),
            np.fromiter(labels, np.int32, n),
            np.fromiter(map(split_codes.__getitem__, splits), np.uint8, n),
            np.fromiter(map(codes.__getitem__, groups), np.int32, n),
            TextColumn.of(names),
            np.arange(n),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Video: ...

    @overload
    def __getitem__(self, index: slice) -> VideoTable: ...

    def __getitem__(self, index: int | slice) -> Video | VideoTable:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        code = self.groups.item(index)
        group = self.group_names[code] if code >= 0 else None
        return Video(self.paths[index], self.labels.item(index), SPLITS[self.splits.item(index)], group)

    def __iter__(self) -> Iterator[Video]:
        paths = iter(self.paths)
        for rows in _blocks(len(self)):
            columns = (self.labels[rows].tolist(), self.splits[rows].tolist(), self.groups[rows].tolist())
            for label, split, group in zip(*columns, strict=True):
                yield Video(next(paths), label, SPLITS[split], self.group_names[group] if group >= 0 else None)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, VideoTable) and len(self) == len(other) and all(map(Video.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> VideoTable:
        """Return the videos of these rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return VideoTable(
            self.paths.take(index),
            self.labels[index],
            self.splits[index],
            self.groups[index],
            self.group_names,
            self.rows[index],
        )

    def select(self, split: str) -> VideoTable:
        """Return the videos of one split."""
        return self.take(np.flatnonzero(self.splits == SPLITS.index(split)))
