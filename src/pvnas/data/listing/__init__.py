"""The list of videos, read from what people have: folders, lists, or the annotation files of a data set.

Each format is one file here with a `ListFormat`, which is found by itself, and a name in ``config.DataConfig.format``.
"""

import gc
import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import get_args, get_type_hints

from pvnas.config import DataConfig
from pvnas.data.catalog import Catalog
from pvnas.data.listing import folders, other_formats, own_lists
from pvnas.data.listing.content import unlisted
from pvnas.data.listing.registry import ListFolder, ListFormat, Listing
from pvnas.data.listing.splits import catalog_of, check_classes, complete_splits, shares_of, sorted_entries
from pvnas.errors import UserError


def _formats() -> dict[str, ListFormat]:
    """Return the formats of this package's files by name, in the order in which the config names them."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    formats = {value.name: value for each in modules for value in vars(each).values() if isinstance(value, ListFormat)}
    return {name: formats[name] for name in get_args(get_type_hints(DataConfig)["format"]) if name in formats}


FORMATS = _formats()
OURS = (folders.FOLDERS, folders.CLASSES, own_lists.SPLIT_CSV, own_lists.PATH_LIST)
FOLDERS = (folders.FOLDERS, folders.CLASSES)
OFFICIAL = tuple(format for format in FORMATS.values() if format not in OURS)


def read_catalog(config: DataConfig, seed: int = 0, *, as_listed: bool = False) -> Catalog:
    """Return the listed videos, sorted by path, whether their files exist or not; class ids are the official ones.

    The config's `path` is a folder of videos and lists, or a list whose folder holds the videos; `annotations` is the
    file or folder of lists that lie elsewhere. Paths and links may lead out of the folder only into `allow_outside`.

    A split that the lists do not name is held out of train: stratified by class, whole groups, and depending on `seed`
    and the names alone. The shares are of each class's training videos; a class with three groups or more gives at
    least one to each. Kinetics, Something-Something V2 and Jester have no public test labels: their validation list is
    the test split, and validation is held out. `as_listed` returns the splits as they are named, and checks less.

    Raises UserError, one line with file and line number, for whatever is wrong with the folder or its lists, for paths
    that lead out of it, and, unless `as_listed`, for one class, a class without training videos and an empty split.
    """
    shares = shares_of(config)
    with _collector_at_rest():
        folder, name, listing = read_lists(config)
        if folder.video and not as_listed:
            raise UserError(f"{config.path!r} is one video; give a folder of videos (class/video), or a list")
        nothing = as_listed and listing.unlabelled and not listing.entries
        entries = [] if nothing else sorted_entries(folder, listing)
        if as_listed:
            splits = [entry.split or "train" for entry in entries]
        else:
            splits = complete_splits(entries, FORMATS[name].validation_is_test, shares, seed)
        catalog = catalog_of(folder, name, listing, entries, splits)
        if not as_listed:
            check_classes(catalog, shares)
        return catalog


def read_lists(config: DataConfig) -> tuple[ListFolder, str, Listing]:
    """Return the folder, the name of its format, and all that is listed there. Raises UserError."""
    folder = ListFolder.of(config)
    name = detect_format(folder) if config.format == "auto" else config.format
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}; type --data.format NAME, one of {', '.join(('auto', *FORMATS))}")
    format = FORMATS[name]
    if format in FOLDERS:
        unread = own_lists.unread_lists(folder, set()) if config.format == "auto" else {}
        told = frozenset(os.path.relpath(path, folder.root) for path in unread)
        listing = format.read(folder._replace(told=told))
        return folder, name, listing._replace(remarks=(*listing.remarks, *unread.values()))
    listing = format.read(folder)
    if format in OURS:
        unread = own_lists.unread_lists(folder, {entry.file for entry in listing.entries})
        remarks = [*listing.remarks, *own_lists.remarks_on_folders(folder, listing), *unread.values()]
        if not folder.chosen:
            remarks += unlisted(folder.tree, {entry.path for entry in listing.entries})
        listing = listing._replace(remarks=tuple(remarks))
    return folder, name, listing


def detect_format(folder: ListFolder) -> str:
    """Return the format, told by what lies in a folder, or by the one list that the user named.

    Raises UserError where the lists of several data sets lie together, and where no list is known.
    """
    if folder.video:
        return folders.FOLDERS.name
    if own_lists.holds_split_file(folder):
        return own_lists.SPLIT_CSV.name
    names = [format.name for format in OFFICIAL if format.recognises(folder)]
    if len(names) > 1 and not folder.chosen:
        raise UserError(
            f"{folder.folder} holds lists of {' and '.join(names)}; say which to read: type --data.format {names[0]}"
        )
    if names:
        return names[0]
    if own := own_lists.own_format(folder):
        return own
    if folder.chosen:
        if other := other_formats.described(folder.chosen):
            raise UserError(f"{folder.chosen} is {other}")
        raise UserError(
            f"{folder.chosen} is no list of a known format; type --data.format NAME, one of {', '.join(FORMATS)}"
        )
    if folder.folder != folder.root:
        raise UserError(
            f"no list of a known format in {folder.folder}; give official lists, or type --data.format NAME, "
            f"one of {', '.join(FORMATS)}"
        )
    return folders.FOLDERS.name


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
