"""From what the lists say to a catalogue for training: splits of our own where they name none, and checks."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from pvnas.config import DataConfig
from pvnas.data.catalog import SPLITS, Catalog, VideoTable, bytes_of
from pvnas.data.listing.registry import Entry, ListFolder, Listing
from pvnas.data.listing.text import shown
from pvnas.errors import UserError

REMARKS_SHOWN = 2


def sorted_entries(folder: ListFolder, listing: Listing) -> list[Entry]:
    """Return the entries sorted by path. Raises UserError for none, and for a video that is listed twice."""
    entries = sorted(listing.entries, key=lambda e: (e.path, e.start, e.end, e.file, e.line))
    if not entries:
        if listing.unlabelled:
            raise UserError(f"{folder.folder}: no listed video has a label; add the list of training videos")
        raise UserError(
            f"no videos found in {folder.root}; expected class/video files such as walking/a.mp4, or split.csv, "
            f"or the official lists of a data set (type --data.format NAME to say which){_noted(listing.remarks)}"
        )
    for first, second in pairwise(entries):
        if (first.path, first.start, first.end) == (second.path, second.start, second.end):
            before = f"line {first.line}" if first.file == second.file else first.where
            mend = "remove one" if first.label == second.label else "give each video one label"
            raise UserError(f"{second.where}: {shown(second.path)} is listed before, in {before}; {mend}")
    return entries


def catalog_of(
    folder: ListFolder, format: str, listing: Listing, entries: Sequence[Entry], splits: Sequence[str]
) -> Catalog:
    """Return the catalogue of entries and the split of each."""
    classes = tuple(listing.classes or sorted({entry.label for entry in entries}))
    ids = {name: number for number, name in enumerate(classes)}
    labels = [ids[entry.label] for entry in entries]
    paths, groups = [entry.path for entry in entries], [entry.group for entry in entries]
    segments = [(entry.start, entry.end) for entry in entries]
    videos = VideoTable.of_columns(paths, labels, splits, groups, segments)
    return Catalog(folder.root, classes, videos, format, listing.unlabelled, listing.remarks, folder.frame_rate)


def shares_of(config: DataConfig) -> dict[str, float]:
    """Return the shares of val and test. Raises UserError unless they leave training videos."""
    val, test = config.validation_share, config.test_share
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UserError(
            f"validation_share={val:g} and test_share={test:g} leave nothing to train on; "
            "give shares from 0 that add up to less than 1"
        )
    return {"val": val, "test": test}


def check_classes(catalog: Catalog, shares: Mapping[str, float]) -> None:
    """Raise UserError for one class, one without training videos, and an empty split that should have a share."""
    counts, noted = catalog.counts(), _noted(catalog.remarks)
    if not sum(counts["train"].values()):
        raise UserError(
            f"no training videos in {catalog.root} or its lists; add the list of training videos, or a folder 'train' "
            f"(train/class/video){noted}"
        )
    if len(catalog.classes) == 1:
        raise UserError(
            f"only one class, {catalog.classes[0]!r}, in {catalog.root}; add a second one: a folder with its videos"
            f"{noted}"
        )
    untrained = [name for name, number in counts["train"].items() if not number]
    if untrained:
        more = f" and {len(untrained) - 1} more classes have" if len(untrained) > 1 else " has"
        raise UserError(
            f"class {shown(untrained[0])}{more} no training video in {catalog.root}; add some, or take its videos away "
            f"(and its name, where a file names the classes){noted}"
        )
    options = {"val": "--data.validation_share 0", "test": "--data.test_share 0"}
    lacking = [split for split in options if shares[split] > 0 and not sum(counts[split].values())]
    if lacking:
        raise UserError(
            f"too few videos in {catalog.root} to hold any out for split {' and '.join(map(repr, lacking))}; add "
            "videos (three of each class are enough), name them in a folder or split.csv, or do without: type "
            f"{' '.join(options[split] for split in lacking)}"
        )


def _noted(remarks: Sequence[str]) -> str:
    """Return what an error adds of the first things that were remarked on: they may be why."""
    return f"; note: {'; '.join(remarks[:REMARKS_SHOWN])}" if remarks else ""


def complete_splits(
    entries: Sequence[Entry], validation_is_test: bool, shares: Mapping[str, float], seed: int
) -> list[str]:
    """Return the split of each entry: as named, the others held out of train. Without test labels val is the test."""
    entries = with_test(entries, validation_is_test)
    named = {entry.split for entry in entries}
    return hold_out(entries, {split: share for split, share in shares.items() if split not in named}, seed)


def with_test(entries: Sequence[Entry], validation_is_test: bool) -> Sequence[Entry]:
    """Return the entries; where test labels are not public and none are named, with val as the test."""
    if not validation_is_test or any(entry.split == "test" for entry in entries):
        return entries
    return [entry._replace(split="test") if entry.split == "val" else entry for entry in entries]


# ---- our own split: videos held out of the training ones, by class and whole groups


def hold_out(entries: Sequence[Entry], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return the split of every entry: as named, else train, out of which each split of `shares` takes its share.

    Groups are dealt in the order of a hash of (seed, name), to test and then to val, while no class exceeds its share
    (rounded, at least one video) and every class keeps a group to train on. A group may span classes.
    """
    splits = [entry.split or "train" for entry in entries]
    asked = [split for split in ("test", "val") if shares.get(split, 0.0) > 0]
    if not asked:
        return splits
    training = [number for number, split in enumerate(splits) if split == "train"]
    units = dict(enumerate(_units(entries, training, seed)))  # those that are still for training
    videos, units_of = Counter(entries[number].label for number in training), _by_label(units)
    while asked:
        split, *asked = asked
        room = {label: max(1, round(shares[split] * number)) for label, number in videos.items()}
        keep = {label: 1 + (len(asked) if number >= len(SPLITS) else 0) for label, number in units_of.items()}
        for unit in _deal(units, room, keep):
            for number in unit.entries:
                splits[number] = split
    return splits


class _Unit(NamedTuple):
    """Videos that must share a split."""

    sizes: dict[str, int]  # number of its videos by label
    entries: list[int]  # their numbers


def _by_label(units: Mapping[int, _Unit]) -> Counter[str]:
    return Counter(label for unit in units.values() for label in unit.sizes)


def _deal(units: dict[int, _Unit], room: dict[str, int], keep: Mapping[str, int]) -> list[_Unit]:
    """Take units with at most ``room`` videos of each label out of ``units``, so that ``keep`` of each label's stay."""
    left, taken = _by_label(units), list[_Unit]()

    def spare(unit: _Unit) -> bool:
        return all(left[label] > keep[label] for label in unit.sizes)

    def take(number: int) -> None:
        taken.append(units.pop(number))
        left.subtract(taken[-1].sizes.keys())

    for number, unit in list(units.items()):
        if spare(unit) and all(room[label] >= size for label, size in unit.sizes.items()):
            room |= {label: room[label] - size for label, size in unit.sizes.items()}
            take(number)
    served = {label for unit in taken for label in unit.sizes}
    for label in sorted(room.keys() - served):  # where every group is larger than the share: the smallest
        candidates = units.items() if left[label] > keep[label] else ()
        sizes = [(sum(u.sizes.values()), number) for number, u in candidates if label in u.sizes and spare(u)]
        if sizes:
            take(min(sizes)[1])
    return taken


def _units(entries: Sequence[Entry], numbers: Iterable[int], seed: int) -> list[_Unit]:
    """Gather the entries of these numbers by group, in an order that only (seed, names) decide.

    Segments of one video that name no group are one.
    """
    groups: dict[bytes, list[int]] = {}
    for number in numbers:
        entry = entries[number]
        name = f"{seed}\0group\0{entry.group}" if entry.group else f"{seed}\0path\0{entry.path}"
        key = hashlib.blake2b(bytes_of(name), digest_size=16).digest()
        groups.setdefault(key, []).append(number)
    label = [entry.label for entry in entries]
    alone = {label[first]: {label[first]: 1} for (first, *_) in groups.values()}  # most are one video: they share sizes
    units = (groups[key] for key in sorted(groups))
    return [_Unit(Counter(label[n] for n in unit) if len(unit) > 1 else alone[label[unit[0]]], unit) for unit in units]
