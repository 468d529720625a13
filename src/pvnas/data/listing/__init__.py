"""The list of videos, read from what people have: folders, lists, or the annotation files of a data set."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pvnas.data.catalog import Catalog
from pvnas.data.listing.assemble import as_listed as assemble_as_listed
from pvnas.data.listing.assemble import check_shares, for_training
from pvnas.data.listing.detect import detect_format
from pvnas.data.listing.entries import Listing
from pvnas.data.listing.folders import read_folders
from pvnas.data.listing.hmdb51 import read_hmdb51
from pvnas.data.listing.jester import read_jester
from pvnas.data.listing.kinetics import read_kinetics
from pvnas.data.listing.path_list import read_list
from pvnas.data.listing.source import Source
from pvnas.data.listing.split_file import read_split_file
from pvnas.data.listing.ssv2 import read_ssv2
from pvnas.data.listing.ucf101 import read_ucf101
from pvnas.errors import UserError

READERS: Mapping[str, Callable[[Source], Listing]] = {
    "folders": read_folders,
    "split.csv": read_split_file,
    "list": read_list,
    "kinetics": read_kinetics,
    "ssv2": read_ssv2,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "jester": read_jester,
}
FORMATS = tuple(READERS)


def read_catalog(
    path: str | Path,
    *,
    format: str = "auto",
    split: int = 1,
    annotations: str | Path = "",
    allow_outside: str | Path = "",
    validation_share: float = 0.15,
    test_share: float = 0.2,
    seed: int = 0,
    as_listed: bool = False,
) -> Catalog:
    """Return the listed videos, sorted by path, whether their files exist or not; class ids are the official ones.

    `path` is a folder of videos and lists, or a list whose folder holds the videos; `annotations` is the file or folder
    of lists that lie elsewhere, `split` the number of the split of UCF-101 and HMDB-51. Paths and links may lead out of
    the folder only into `allow_outside`.

    A split that the lists do not name is held out of train: stratified by class, whole groups, and depending on `seed`
    and the names alone. The shares are of each class's training videos; a class with three groups or more gives at
    least one to each. Kinetics, Something-Something V2 and Jester have no public test labels: their validation list is
    the test split, and validation is held out. `as_listed` returns the splits as they are named, and checks less.

    Raises UserError, one line with file and line number, for whatever is wrong with the folder or its lists, for paths
    that lead out of it, and, unless `as_listed`, for one class, a class without training videos and an empty split.
    """
    check_shares(validation_share, test_share)
    with _collector_at_rest():
        source = Source.of(path, annotations, str(allow_outside), split)
        name = detect_format(source, FORMATS) if format == "auto" else format
        if name not in READERS:
            raise UserError(f"unknown format {name!r}; type --format NAME, one of {', '.join(('auto', *FORMATS))}")
        listing = READERS[name](source)
        if as_listed:
            return assemble_as_listed(source, name, listing)
        return for_training(source, name, listing, validation_share, test_share, seed)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Stop the cyclic garbage collector, which would walk all entries again and again: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
