"""The list of videos, read from what people have: folders, or the annotation files of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pvnas.data.catalog import Catalog
from pvnas.data.readers.folders import read_folders
from pvnas.data.readers.hold_out import hold_out
from pvnas.data.readers.split_file import SPLIT_FILE, read_split_file
from pvnas.data.table import Video
from pvnas.errors import UserError


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
    entries = list(read_split_file(root) if (root / SPLIT_FILE).is_file() else read_folders(root))
    if not entries:
        raise UserError(f"no videos found in {root}; expected class/video files such as walking/a.mp4, or {SPLIT_FILE}")
    entries.sort(key=lambda entry: entry.path)
    shares = {"val": validation_share, "test": test_share}
    named = {entry.split for entry in entries if entry.split}
    splits = hold_out(entries, {split: share for split, share in shares.items() if split not in named}, seed)
    classes = tuple(sorted({entry.label for entry in entries}))
    labels = {name: label for label, name in enumerate(classes)}
    videos = (Video(entry.path, labels[entry.label], splits[entry.path], entry.group) for entry in entries)
    catalog = Catalog.of(root, classes, videos)
    _check_classes(catalog, [split for split, share in shares.items() if share > 0])
    return catalog


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
