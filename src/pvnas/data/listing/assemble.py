"""From what a reader found to a catalogue: splits of our own where the lists name none, and the checks for training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from pvnas.data.catalog import Catalog, VideoTable
from pvnas.data.listing.entries import Entry, Listing
from pvnas.data.listing.hold_out import hold_out
from pvnas.data.listing.source import Source
from pvnas.data.listing.text import shown
from pvnas.errors import UserError

# Their test labels are not public: results are on the official validation videos, so we choose models on others.
VALIDATION_IS_TEST = ("kinetics", "ssv2", "jester")


def as_listed(source: Source, format: str, listing: Listing) -> Catalog:
    """Return exactly what the lists say; a video without a named split is for training."""
    entries = [] if listing.unlabelled and not listing.entries else _sorted(source, listing)
    return _catalog(source, format, listing, entries, [entry.split or "train" for entry in entries])


def for_training(
    source: Source, format: str, listing: Listing, validation_share: float, test_share: float, seed: int
) -> Catalog:
    """Return the catalogue with all splits. Raises UserError where it cannot be trained on."""
    entries = _sorted(source, listing)
    if format in VALIDATION_IS_TEST and all(entry.split != "test" for entry in entries):
        entries = [entry._replace(split="test") if entry.split == "val" else entry for entry in entries]
    named = {entry.split for entry in entries if entry.split}
    shares = {"val": validation_share, "test": test_share}
    splits = hold_out(entries, {split: share for split, share in shares.items() if split not in named}, seed)
    catalog = _catalog(source, format, listing, entries, [splits[entry.path] for entry in entries])
    check_classes(catalog, [split for split, share in shares.items() if share > 0])
    return catalog


def check_shares(validation_share: float, test_share: float) -> None:
    """Raise UserError unless the shares leave training videos."""
    if not (0 <= validation_share < 1 and 0 <= test_share < 1 and validation_share + test_share < 1):
        raise UserError(
            f"validation_share={validation_share:g} and test_share={test_share:g} leave nothing to train on; "
            "give shares from 0 that add up to less than 1"
        )


def _sorted(source: Source, listing: Listing) -> list[Entry]:
    """Return the entries sorted by path. Raises UserError for none, and for a video that is listed twice."""
    entries = sorted(listing.entries, key=lambda entry: (entry.path, entry.file, entry.line))
    if not entries:
        if listing.unlabelled:
            raise UserError(f"{source.folder}: no listed video has a label; add the list of training videos")
        raise UserError(
            f"no videos found in {source.root}; expected class/video files such as walking/a.mp4, or split.csv, "
            "or the official lists of a data set (type --format NAME to say which)"
        )
    for first, second in pairwise(entries):
        if first.path == second.path:
            before = f"line {first.line}" if first.file == second.file else first.where
            raise UserError(f"{second.where}: {shown(second.path)} is listed before, in {before}; remove one")
    return entries


def _catalog(source: Source, format: str, listing: Listing, entries: Sequence[Entry], splits: Sequence[str]) -> Catalog:
    classes = tuple(listing.classes or sorted({entry.label for entry in entries}))
    ids = {name: number for number, name in enumerate(classes)}
    table = VideoTable.of_columns(
        [entry.path for entry in entries],
        [ids[entry.label] for entry in entries],
        splits,
        [entry.group for entry in entries],
    )
    return Catalog(source.root, classes, table, format, listing.unlabelled)


def check_classes(catalog: Catalog, wanted_splits: Iterable[str]) -> None:
    """Raise UserError unless there are two classes or more, all with training videos, and no wanted split is empty."""
    if len(catalog.classes) == 1:
        raise UserError(
            f"only one class, {catalog.classes[0]!r}, in {catalog.root}; add a second one: a folder with its videos"
        )
    counts = catalog.counts()
    if not sum(counts["train"].values()):
        raise UserError(f"no training videos in {catalog.root} or its lists; add the list of training videos")
    untrained = [name for name, number in counts["train"].items() if not number]
    if untrained:
        more = f" and {len(untrained) - 1} more classes have" if len(untrained) > 1 else " has"
        raise UserError(
            f"class {shown(untrained[0])}{more} no training video in {catalog.root}; add some, or take its videos away "
            "(and its name, where a file names the classes)"
        )
    for split in wanted_splits:
        if not sum(counts[split].values()):
            share = {"val": "validation_share", "test": "test_share"}[split]
            raise UserError(
                f"too few videos in {catalog.root} to hold any out for split {split!r}; add videos (three of each "
                f"class are enough), name them in a folder or split.csv, or do without: type --data.{share} 0"
            )
