"""Our own split, where a data set names none: videos held out of the training ones, by class and whole groups."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pvnas.data.catalog import SPLITS
from pvnas.data.listing.entries import Entry


def hold_out(entries: Iterable[Entry], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the split of every path: as named, else train, out of which each split of `shares` takes its share.

    Groups are dealt in the order of a hash of (seed, name), to test and then to val, while no class exceeds its share
    (rounded, at least one video) and every class keeps a group to train on. A group may span classes.
    """
    entries = list(entries)
    splits = {entry.path: entry.split or "train" for entry in entries}
    asked = [split for split in ("test", "val") if shares.get(split, 0.0) > 0]
    if asked:
        dealer = _Dealer([entry for entry in entries if splits[entry.path] == "train"], seed)
        for number, split in enumerate(asked):
            held = dealer.deal(shares[split], splits_to_come=len(asked) - number - 1)
            splits.update(dict.fromkeys(held, split))
    return splits


class _Unit(NamedTuple):
    """Videos that must share a split."""

    sizes: dict[str, int]
    """Number of its videos by label."""
    entries: list[Entry] | Entry

    def paths(self) -> list[str]:
        return [self.entries.path] if isinstance(self.entries, Entry) else [entry.path for entry in self.entries]


class _Dealer:
    """Takes units out of the training videos."""

    def __init__(self, entries: Iterable[Entry], seed: int) -> None:
        self.units = dict(enumerate(_units(entries, seed)))  # those that are still for training
        self.first_units: Counter[str] = Counter()
        self.videos: Counter[str] = Counter()
        for unit in self.units.values():
            for label, size in unit.sizes.items():
                self.first_units[label] += 1
                self.videos[label] += size
        self.left_units = Counter(self.first_units)

    def deal(self, share: float, splits_to_come: int) -> list[str]:
        """Take about `share` of each class's videos out of training and return their paths."""
        room = {label: max(1, round(share * number)) for label, number in self.videos.items()}
        keep = {label: 1 + (splits_to_come if n >= len(SPLITS) else 0) for label, n in self.first_units.items()}
        taken = []
        for number, unit in list(self.units.items()):
            for label, size in unit.sizes.items():
                if room[label] < size or self.left_units[label] <= keep[label]:
                    break
            else:
                for label, size in unit.sizes.items():
                    room[label] -= size
                taken.append(self._take(number))
        served = {label for unit in taken for label in unit.sizes}
        for label in sorted(self.videos.keys() - served):  # where every group is larger than the share: the smallest
            smallest = self._smallest(label, keep)
            if smallest is not None:
                taken.append(self._take(smallest))
        return [path for unit in taken for path in unit.paths()]

    def _smallest(self, label: str, keep: Mapping[str, int]) -> int | None:
        """Return the smallest unit with videos of a class that all its classes can spare."""
        if self.left_units[label] <= keep[label]:
            return None
        spare = [
            (sum(unit.sizes.values()), number)
            for number, unit in self.units.items()
            if label in unit.sizes and all(self.left_units[each] > keep[each] for each in unit.sizes)
        ]
        return min(spare)[1] if spare else None

    def _take(self, number: int) -> _Unit:
        unit = self.units.pop(number)
        for label in unit.sizes:
            self.left_units[label] -= 1
        return unit


def _units(entries: Iterable[Entry], seed: int) -> list[_Unit]:
    """Gather the entries by group, in an order that only (seed, names) decide."""
    units: dict[bytes, _Unit] = {}
    alone: dict[str, dict[str, int]] = {}  # most units are one video; those of a class share their sizes
    for entry in entries:
        name = f"{seed}\0group\0{entry.group}" if entry.group else f"{seed}\0path\0{entry.path}"
        key = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        unit = units.get(key)
        if unit is None:
            sizes = alone.get(entry.label) or alone.setdefault(entry.label, {entry.label: 1})
            units[key] = _Unit(sizes, entry)
        elif isinstance(unit.entries, Entry):
            units[key] = _Unit(Counter((unit.entries.label, entry.label)), [unit.entries, entry])
        else:
            unit.sizes[entry.label] += 1
            unit.entries.append(entry)
    return [units[key] for key in sorted(units)]
