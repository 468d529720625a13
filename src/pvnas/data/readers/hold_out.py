"""Our own split, where a data set names none: videos held out of the training ones, by class and whole groups."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pvnas.data.readers.entries import Entry
from pvnas.data.table import SPLITS


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
