"""The list of videos with their labels, splits and groups, in columns; nothing here opens a video.

A quarter of a million videos open quickly, take little memory, and worker processes share them: a Python object for
each would cost about half a kilobyte, and a forked worker that only looks at it would copy its page. Arrays and one
long text are neither counted nor copied.
"""

import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pvnas.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Video:
    """One labelled video."""

    path: str  # POSIX, relative to the catalog's root, or absolute in a folder that was allowed by name
    label: int  # index into the catalog's classes
    split: str  # train, val or test
    group: str | None = None  # videos of one share a split where we choose it; None: a group of its own
    start: float = 0.0  # of the segment that is meant, in seconds of the file
    end: float = math.inf  # of it; as far as the file goes where that is less

    @property
    def is_segment(self) -> bool:
        """Whether a part of the file is meant, and not all of it."""
        return self.start > 0 or self.end < math.inf

    @property
    def name(self) -> str:
        """The path, and for a segment its seconds: what tells the videos of a catalogue apart."""
        if not self.is_segment:
            return self.path
        # Ten digits, not the usual six: of a film of hours, too, two segments have two names.
        end = f"{self.end:.10g}" if self.end < math.inf else ""
        return f"{self.path} [{self.start:.10g}-{end} s]"


def bytes_of(text: str) -> bytes:
    """Return the bytes of a file's name, and of a text that names no file: a list may hold half of a character."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, eq=False)
class TextColumn:
    """Texts one after another in one block of bytes; file names that are no UTF-8 survive."""

    block: bytes
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Return the column of these texts."""
        encoded = [bytes_of(text) for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(b"".join(encoded), np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:
        start = self.starts.item(index)
        return self.block[start : start + self.lengths.item(index)].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the texts of these rows; the block is shared."""
        return replace(self, starts=self.starts[rows], lengths=self.lengths[rows])


@dataclass(frozen=True, eq=False)
class VideoTable:
    """A sequence of videos; ``table[i]`` makes the Video of a row when it is asked for."""

    paths: TextColumn
    labels: NDArray[np.int32]
    splits: NDArray[np.uint8]  # index into SPLITS
    groups: NDArray[np.int32]  # index into group_names, -1 for none
    group_names: TextColumn
    rows: NDArray[np.int64]  # row of each video in the table that was first read, whatever was selected since
    starts: NDArray[np.float64]  # of each video's segment, in seconds of its file
    ends: NDArray[np.float64]

    @classmethod
    def of(cls, videos: Iterable[Video]) -> Self:
        """Return the table of these videos."""
        rows = [(v.path, v.label, v.split, v.group, (v.start, v.end)) for v in videos]
        return cls.of_columns(*zip(*rows, strict=True)) if rows else cls.of_columns((), (), (), ())

    @classmethod
    def of_columns(
        cls,
        paths: Sequence[str],
        labels: Sequence[int],
        splits: Sequence[str],
        groups: Sequence[str | None],
        segments: Sequence[tuple[float, float]] | None = None,
    ) -> Self:
        """Return the table of these columns, one item of each for a video; no object per video is made.

        ``segments``: (start, end) in seconds; without them each video is the whole of its file.
        """
        names = dict.fromkeys(group for group in groups if group is not None)
        codes: dict[str | None, int] = {None: -1, **{name: code for code, name in enumerate(names)}}
        split_codes = {split: code for code, split in enumerate(SPLITS)}
        n = len(paths)
        splits_N = np.fromiter(map(split_codes.__getitem__, splits), np.uint8, n)
        groups_N = np.fromiter(map(codes.__getitem__, groups), np.int32, n)
        labels_N = np.fromiter(labels, np.int32, n)
        starts_N, ends_N = columns_of(segments) if segments is not None else whole_files(n)
        columns = TextColumn.of(paths), labels_N, splits_N, groups_N, TextColumn.of(names), np.arange(n)
        return cls(*columns, starts_N, ends_N)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Video:
        code = self.groups.item(index)
        group = self.group_names[code] if code >= 0 else None
        label, split = self.labels.item(index), SPLITS[self.splits.item(index)]
        return Video(self.paths[index], label, split, group, self.starts.item(index), self.ends.item(index))

    def __iter__(self) -> Iterator[Video]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, VideoTable) and len(self) == len(other) and all(map(Video.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    @property
    def names(self) -> Iterable[str]:
        """The name of each video: its path, and of a segment its seconds."""
        return (video.name for video in self) if self.has_segments else self.paths

    @property
    def has_segments(self) -> bool:
        """Whether any video is a part of its file."""
        return bool((self.starts > 0).any() or (self.ends < math.inf).any())

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """Return the videos of these rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        arrays = {name: getattr(self, name)[index] for name in ("labels", "splits", "groups", "rows", "starts", "ends")}
        return replace(self, paths=self.paths.take(index), **arrays)


def columns_of(segments: Sequence[tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return starts and ends (n,) in seconds, each a block of memory of its own."""
    starts_N = np.array([start for start, _ in segments], dtype=np.float64)
    return starts_N, np.array([end for _, end in segments], dtype=np.float64)


def whole_files(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return start and end (n,) in seconds of videos that are the whole of their files."""
    return np.zeros(n), np.full(n, math.inf)


@dataclass(frozen=True)
class Catalog:
    """The videos of a data set; a label is an index into classes, whose order is the official one of the format."""

    root: Path
    classes: tuple[str, ...]
    videos: VideoTable
    format: str = "folders"  # how the list was written: a name out of ``listing.FORMATS``
    unlabelled: int = 0  # listed videos left out because the list gives them no label: public test lists
    remarks: tuple[str, ...] = ()  # one line each: how what lies there was read where it could be read otherwise,
    # and what was not read at all
    frame_rate: float = 25.0  # of videos that lie as folders of pictures, in pictures a second

    @classmethod
    def of(cls, root: Path, classes: Iterable[str], videos: Iterable[Video], format: str = "folders") -> Self:
        """Return the catalogue of single videos."""
        return cls(root, tuple(classes), VideoTable.of(videos), format)

    def select(self, *splits: str) -> Self:
        """Return the videos of one split (train, val or test) or several, with the classes and the order unchanged."""
        for split in splits:
            if split not in SPLITS:
                raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
        return self.take(np.flatnonzero(np.isin(self.videos.splits, [SPLITS.index(split) for split in splits])))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """Return the videos of these indices in this order, with the classes unchanged."""
        return replace(self, videos=self.videos.take(indices))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of videos by split and class name, zeros included."""
        k = len(self.classes)
        totals = np.bincount(self.videos.splits.astype(np.int64) * k + self.videos.labels, minlength=len(SPLITS) * k)
        return {
            split: dict(zip(self.classes, totals[number * k : (number + 1) * k].tolist(), strict=True))
            for number, split in enumerate(SPLITS)
        }

    def without(self, names: Collection[str]) -> Self:
        """Return the catalog without the videos of these names, with the classes unchanged."""
        dropped = frozenset(names)
        return self.take([row for row, name in enumerate(self.videos.names) if name not in dropped])

    def without_bad(
        self, bad: Sequence[tuple[str, str]], max_bad_share: float, *, verb: str, listed: object, advice: str
    ) -> Self:
        """Return the catalog without bad videos, name and reason of each.

        `verb`: what cannot be done with them; `listed`: where all are; `advice`: what to do, with {:g} for the share
        that would be enough. Raises UserError for more than a share of all, and for all of a class's training videos.
        """
        rest, n = self.without({name for name, _ in bad}), len(self.videos)
        if not bad:
            return rest
        # A repr keeps a file name with control characters on one line.
        missing = [path for path, reason in bad if reason.startswith("missing")]
        if len(missing) > max(0.9, max_bad_share) * n:
            raise UserError(
                f"{len(missing)} of {n} listed videos are missing; the first was looked for as "
                f"{os.path.join(self.root, missing[0])!r}; list paths that begin in {os.fspath(self.root)!r}, or name "
                "the folder in which they begin as that of the videos, and the lists with --data.annotations"
            )
        first = f"the first is {bad[0][0]!r} ({bad[0][1]}); all are in {listed}"
        if len(bad) > max_bad_share * n:
            enough = advice.format(math.ceil(1000 * len(bad) / n) / 1000)
            share = f"max_bad_share={max_bad_share:g}"
            raise UserError(f"{len(bad)} of {n} videos cannot be {verb}, more than {share} allows; {first}; {enough}")
        before, after = self.counts()["train"], rest.counts()["train"]
        reasons = dict(bad)
        for label, name in enumerate(self.classes):
            if before[name] and not after[name]:
                own = next(v.name for v in self.videos if v.label == label and v.name in reasons)
                first = f"the first is {own!r} ({reasons[own]}); all are in {listed}"
                mend = "mend them or remove the class"
                raise UserError(f"no training video of class {name!r} can be {verb}; {first}; {mend}")
        return rest

    def missing(self) -> VideoTable:
        """Return the videos whose file does not exist. Lists each folder once instead of asking for every file."""
        root = os.fspath(self.root)

        @cache
        def content_of(folder: str) -> tuple[frozenset[str], frozenset[str]]:
            """Return the names of the files and of the folders in a folder."""
            try:
                with os.scandir(folder or "/") as scan:
                    entries = list(scan)
                files = frozenset(entry.name for entry in entries if entry.is_file())
                return files, frozenset(entry.name for entry in entries if entry.is_dir())
            except OSError:
                return frozenset(), frozenset()

        def is_there(path: str) -> bool:
            folder, _, name = os.path.join(root, path).rpartition("/")
            files, folders = content_of(folder)
            if name in files or (name in folders and content_of(f"{folder}/{name}")[0]):  # a folder: of pictures
                return True
            # A file system that ignores case knows a file by names that its listing does not show.
            return bool(files) and os.path.isfile(f"{folder}/{name}")

        return self.videos.take([row for row, path in enumerate(self.videos.paths) if not is_there(path)])

    def summary(self) -> str:
        """Return one line with the counts: copies of the same data set differ in size, so they are always shown."""
        totals = {split: sum(by_class.values()) for split, by_class in self.counts().items()}
        parts = ", ".join(f"{split} {total}" for split, total in totals.items())
        left_out = f"; {self.unlabelled} more have no label" if self.unlabelled else ""
        return f"{len(self.videos)} videos of {len(self.classes)} classes ({parts}){left_out}"
