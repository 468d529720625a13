"""The list of videos with their labels, splits and groups, read from folders or from a split.csv.

Three forms are understood: a `split.csv` (path,label,split,group), folders {train,val,test}/class/video, and folders
class/video, which we split ourselves. Nothing here opens a video.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pvnas.errors import UserError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
VIDEO_ENDINGS = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
SPLIT_FILE = "split.csv"
# UCF-101 names the film a clip was cut from: v_Archery_g08_c01.avi. Clips of one film must not be on both sides.
GROUP_IN_NAME = re.compile(r"_(g\d+)_")


@dataclass(frozen=True)
class Video:
    """One labelled video."""

    path: str
    """POSIX path relative to the catalog's root."""
    label: int
    """Index into the catalog's classes."""
    split: str
    """train, val or test."""
    group: str | None = None
    """Videos of one group (the same source) share a split where we choose it; None: a group of its own."""


@dataclass(frozen=True)
class Catalog:
    """The videos of a data set; classes are the sorted names of the labels."""

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]

    def select(self, split: str) -> Catalog:
        """Return the videos of one split (train, val or test), with the classes unchanged."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
        return replace(self, videos=tuple(video for video in self.videos if video.split == split))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of videos by split and class name, zeros included."""
        found = Counter((video.split, video.label) for video in self.videos)
        return {split: {name: found[split, label] for label, name in enumerate(self.classes)} for split in SPLITS}

    def without(self, paths: Collection[str]) -> Catalog:
        """Return the catalog without the videos of these paths, with the classes unchanged."""
        dropped = frozenset(paths)
        return replace(self, videos=tuple(video for video in self.videos if video.path not in dropped))

    def missing(self) -> tuple[Video, ...]:
        """Return the videos whose file does not exist."""
        return tuple(video for video in self.videos if not (self.root / video.path).is_file())

    def summary(self) -> str:
        """Return one line with the counts: copies of the same data set differ in size, so they are always shown."""
        totals = {split: sum(by_class.values()) for split, by_class in self.counts().items()}
        parts = ", ".join(f"{split} {total}" for split, total in totals.items())
        return f"{len(self.videos)} videos of {len(self.classes)} classes ({parts})"


def read_catalog(
    path: str | Path,
    *,
    validation_share: float = 0.15,
    test_share: float = 0.2,
    seed: int = 0,
) -> Catalog:
    """Return the videos of a folder, sorted by path. A split that the folder does not name is held out of train.

    What is held out is stratified by class, keeps groups together, and depends on `seed` and the names alone. The
    shares are of each class's training videos; a class with three groups or more gives at least one to each.
    Raises UserError for a wrong path, an empty folder, one class, a class without training videos, a faulty row of
    split.csv (with its line number), and for paths that lead out of the folder.
    """
    _check_shares(validation_share, test_share)
    root = Path(path)
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{str(path)!r} {problem}; give a folder of videos: class/video, or one with a {SPLIT_FILE}")
    entries = list(_read_split_file(root) if (root / SPLIT_FILE).is_file() else _read_folders(root))
    if not entries:
        raise UserError(f"no videos found in {root}; expected class/video files such as walking/a.mp4, or {SPLIT_FILE}")
    entries.sort(key=lambda entry: entry.path)
    shares = {"val": validation_share, "test": test_share}
    named = {entry.split for entry in entries if entry.split}
    splits = hold_out(entries, {split: share for split, share in shares.items() if split not in named}, seed)
    classes = tuple(sorted({entry.label for entry in entries}))
    labels = {name: label for label, name in enumerate(classes)}
    videos = tuple(Video(entry.path, labels[entry.label], splits[entry.path], entry.group) for entry in entries)
    catalog = Catalog(root, classes, videos)
    _check_classes(catalog, [split for split, share in shares.items() if share > 0])
    return catalog


@dataclass(frozen=True)
class Entry:
    """A video as the folder or the csv names it; split is None where we are to choose."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None


def _check_shares(validation_share: float, test_share: float) -> None:
    if not (0 <= validation_share < 1 and 0 <= test_share < 1 and validation_share + test_share < 1):
        raise UserError(
            f"validation_share={validation_share:g} and test_share={test_share:g} leave nothing to train on; "
            "give shares from 0 that add up to less than 1"
        )


def _check_classes(catalog: Catalog, wanted_splits: Iterable[str]) -> None:
    """Raise UserError unless there are two classes or more, all with training videos, and no wanted split is empty."""
    if len(catalog.classes) == 1:
        raise UserError(
            f"only one class, {catalog.classes[0]!r}, in {catalog.root}; add a second one: a folder with its videos"
        )
    counts = catalog.counts()
    untrained = [name for name, number in counts["train"].items() if not number]
    if untrained:
        more = f" and {len(untrained) - 1} more classes have" if len(untrained) > 1 else " has"
        raise UserError(
            f"class {untrained[0]!r}{more} no training video in {catalog.root}; add some, or take its videos away"
        )
    for split in wanted_splits:
        if not sum(counts[split].values()):
            raise UserError(
                f"too few videos in {catalog.root} to hold any out for split {split!r}; "
                "add videos (three of each class are enough) or name them in a folder or split.csv"
            )


# ---- split.csv ----


def _read_split_file(root: Path) -> Iterator[Entry]:
    """Yield the rows of split.csv: header path,label,split,group, of which group may be missing."""
    file_path = root / SPLIT_FILE
    inside = _Inside(root)
    seen: dict[str, int] = {}
    with file_path.open(encoding="utf-8-sig", newline="", errors="strict") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            _check_header(file_path, rows.fieldnames)
            for row in rows:
                where = f"{file_path}, line {rows.line_num}"
                entry = _parse_row(row, where)
                inside.check(entry.path, where)
                if entry.path in seen:
                    raise UserError(f"{where}: {entry.path!r} is listed before, in line {seen[entry.path]}; remove one")
                seen[entry.path] = rows.line_num
                yield entry
        except csv.Error as error:
            raise UserError(
                f"{file_path}, line {rows.reader.line_num}: {error}; expected path,label,split,group"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"{file_path} is not UTF-8 text; save it as UTF-8") from None


def _check_header(file_path: Path, names: Iterable[str] | None) -> None:
    absent = [name for name in ("path", "label", "split") if name not in (names or ())]
    if absent:
        raise UserError(f"{file_path}, line 1: no column {absent[0]!r}; the header must be path,label,split,group")


def _parse_row(row: Mapping[str | None, str | None], where: str) -> Entry:
    """Return the entry of one row. Raises UserError that says where and what."""
    if None in row:
        raise UserError(f"{where}: more cells than the header; quote a path or label that holds a comma")
    path, label, split, group = ((row.get(name) or "").strip() for name in ("path", "label", "split", "group"))
    if not path or not label:
        raise UserError(f"{where}: no {'label' if path else 'path'}; expected path,label,split,group")
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{where}: unknown split {split!r}; use train, val or test")
    # An empty split column means train: the other splits are then held out of it where no row names them.
    return Entry(_clean_path(path, where), label, SPLIT_NAMES[split or "train"], group or None)


def _clean_path(path: str, where: str) -> str:
    """Return the path in its shortest form. Raises UserError when it may lead out of the folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise UserError(f"{where}: path {path!r} leads out of the folder; give paths below it, without '..'")
    return str(pure)


# ---- folders ----


def _read_folders(root: Path) -> Iterator[Entry]:
    """Yield the videos of {train,val,test}/class/video or of class/video."""
    inside = _Inside(root)
    folders = _subfolders(root)
    if not _is_split_layout(root, folders):
        yield from _read_classes(root, folders, None, inside)
        return
    for folder in folders:
        if folder.name in SPLIT_NAMES:
            inside.check(folder.name, str(root))
            yield from _read_classes(root, _subfolders(folder), SPLIT_NAMES[folder.name], inside)


def _is_split_layout(root: Path, folders: list[Path]) -> bool:
    """Return whether the folders name splits: a `train` that itself holds videos is a class, the vehicle."""
    names = {folder.name for folder in folders}
    if "train" in names:
        return not _holds_videos(root / "train")
    if names and names <= set(SPLIT_NAMES) and not any(map(_holds_videos, folders)):
        raise UserError(f"{root} has no folder 'train' beside {sorted(names)[0]!r}; add train/class/video")
    return False


def _read_classes(root: Path, folders: list[Path], split: str | None, inside: _Inside) -> Iterator[Entry]:
    """Yield the videos of each class folder. Raises UserError for one without any."""
    for folder in folders:
        found = False
        inside.check(folder.relative_to(root).as_posix(), str(root))
        for file in _files(folder, root):
            path = file.relative_to(root).as_posix()
            inside.check(path, str(root))
            found = True
            match = GROUP_IN_NAME.search(file.name)
            group = f"{folder.name}/{match[1]}" if match else None
            yield Entry(path, folder.name, split, group)
        if not found:
            raise UserError(f"class folder {folder} holds no videos (such as .mp4, .avi, .webm); fill it or remove it")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the videos below a class folder in sorted order; a link to a folder in it could lead round in circles."""
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():
            if path.is_symlink():
                raise UserError(f"{root}: {path} is a link to a folder inside a class; put the folder itself there")
            yield from _files(path, root)
        elif _is_video(name):
            yield path


def _holds_videos(folder: Path) -> bool:
    return any(map(_is_video, os.listdir(folder)))


def _is_video(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_ENDINGS


@dataclass
class _Inside:
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


# ---- our own split ----


def hold_out(entries: Iterable[Entry], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the split of every path: as named, else train, out of which each split of `shares` takes its share.

    Groups are dealt in the order of a hash of (seed, name), to test and then to val, while no class exceeds its share
    (rounded, at least one video) and every class keeps a group to train on. A group may span classes.
    """
    entries = list(entries)
    splits = {entry.path: entry.split or "train" for entry in entries}
    dealer = _Dealer([entry for entry in entries if splits[entry.path] == "train"], seed)
    asked = [split for split in ("test", "val") if shares.get(split, 0.0) > 0]
    for number, split in enumerate(asked):
        held = dealer.deal(shares[split], splits_to_come=len(asked) - number - 1)
        splits.update(dict.fromkeys(held, split))
    return splits


@dataclass(frozen=True)
class _Unit:
    """Videos that must share a split."""

    paths: tuple[str, ...]
    sizes: Mapping[str, int]
    """Number of its videos by label."""


class _Dealer:
    """Takes units out of the training videos."""

    def __init__(self, entries: Iterable[Entry], seed: int) -> None:
        self.units = dict(enumerate(_units(entries, seed)))  # those that are still for training
        self.first_units = Counter(label for unit in self.units.values() for label in unit.sizes)
        self.left_units = Counter(self.first_units)
        self.videos: Counter[str] = Counter()
        for unit in self.units.values():
            self.videos.update(unit.sizes)

    def deal(self, share: float, splits_to_come: int) -> list[str]:
        """Take about `share` of each class's videos out of training and return their paths."""
        room = Counter({label: max(1, round(share * number)) for label, number in self.videos.items()})
        taken = []
        for number, unit in list(self.units.items()):
            if self._spare(unit, splits_to_come) and all(room[label] >= size for label, size in unit.sizes.items()):
                room.subtract(unit.sizes)
                taken.append(self._take(number))
        served = {label for unit in taken for label in unit.sizes}
        for label in sorted(self.videos.keys() - served):  # where every group is larger than the share: the smallest
            spare = [
                (len(unit.paths), number)
                for number, unit in self.units.items()
                if label in unit.sizes and self._spare(unit, splits_to_come)
            ]
            if spare:
                taken.append(self._take(min(spare)[1]))
        return [path for unit in taken for path in unit.paths]

    def _spare(self, unit: _Unit, splits_to_come: int) -> bool:
        """Return whether all classes of the unit keep one for training, and one for each split to come if they can."""
        return all(
            self.left_units[label] > 1 + (splits_to_come if self.first_units[label] >= len(SPLITS) else 0)
            for label in unit.sizes
        )

    def _take(self, number: int) -> _Unit:
        unit = self.units.pop(number)
        self.left_units.subtract(unit.sizes.keys())
        return unit


def _units(entries: Iterable[Entry], seed: int) -> list[_Unit]:
    """Gather the entries by group, in an order that only (seed, names) decide."""
    members: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        members["group" if entry.group else "path", entry.group or entry.path].append(entry)

    def order(key: tuple[str, str]) -> bytes:
        name = "\0".join((str(seed), *key)).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(name, digest_size=16).digest()

    return [
        _Unit(tuple(entry.path for entry in members[key]), Counter(entry.label for entry in members[key]))
        for key in sorted(members, key=order)
    ]
