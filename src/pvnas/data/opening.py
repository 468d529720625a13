"""Videos opened as a config says: a folder or list of files, or a pack of them on a disk or behind a URL.

Packs and sources are imported when there is one: listing a folder needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pvnas.config import DataConfig
from pvnas.data.catalog import Catalog
from pvnas.data.pack.info import INFO, PackInfo
from pvnas.data.readers import read_catalog
from pvnas.data.readers.assemble import VALIDATION_IS_TEST, check_classes, check_shares
from pvnas.data.readers.entries import Entry
from pvnas.data.readers.hold_out import hold_out
from pvnas.data.table import SPLITS
from pvnas.errors import UserError

if TYPE_CHECKING:
    from pvnas.data.pack import Pack, PackReader
    from pvnas.data.source import VideoSource


@dataclass(frozen=True)
class OpenedVideos:
    """A catalogue and how its frames are read."""

    catalog: Catalog
    config: DataConfig
    pack: PackReader | None = None
    info: PackInfo | None = None
    """What the pack says of itself."""

    def source(self, split: str, short_side: int) -> VideoSource:
        """Return the source of one split (train, val or test)."""
        from pvnas.data.source import VideoSource

        return VideoSource(self.catalog.select(split), self.config, short_side, self.pack)


def open_videos(config: DataConfig, seed: int) -> OpenedVideos:
    """Return the videos to train on, with all splits: those that are named, the others held out of train.

    A pack and the files that it was made of have the same videos in the same order and the same splits. Raises
    UserError.
    """
    pack = _pack(config)
    if pack is None:
        return OpenedVideos(_read(config, seed, as_listed=False), config)
    check_shares(config.validation_share, config.test_share)
    catalog = pack.catalog
    catalog = catalog.take(np.array(sorted(range(len(catalog.videos)), key=list(catalog.videos.paths).__getitem__)))
    splits = _all_splits(catalog, pack.info.source.format, config, seed)
    catalog = replace(catalog, videos=replace(catalog.videos, splits=splits))
    shares = {"val": config.validation_share, "test": config.test_share}
    check_classes(catalog, [split for split, share in shares.items() if share > 0])
    return OpenedVideos(catalog, config, pack.reader(), pack.info)


def list_videos(config: DataConfig) -> Catalog:
    """Return the catalogue of a folder, list or pack as its lists say. Raises UserError."""
    pack = _pack(config)
    return pack.catalog if pack is not None else _read(config, 0, as_listed=True)


def _pack(config: DataConfig) -> Pack | None:
    """Return the pack that the config names, None for files."""
    remote = "://" in config.path
    if config.format != "pack" and not (config.format == "auto" and (remote or (Path(config.path) / INFO).is_file())):
        if remote:
            raise UserError(f"{config.path} cannot be read as {config.format}: behind a URL there can only be a pack")
        return None
    from pvnas.data.pack import open_pack

    return open_pack(config.path)


def _read(config: DataConfig, seed: int, *, as_listed: bool) -> Catalog:
    return read_catalog(
        config.path,
        format=config.format,
        split=config.split,
        annotations=config.annotations,
        allow_outside=config.allow_outside,
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=seed,
        as_listed=as_listed,
    )


def _all_splits(catalog: Catalog, format: str, config: DataConfig, seed: int) -> NDArray[np.uint8]:
    """Return the split of each video as an index into SPLITS: a pack keeps only the splits that its list named."""
    videos = list(catalog.videos)
    named = {video.split for video in videos} - {"train"}
    as_test = format in VALIDATION_IS_TEST and "test" not in named
    if as_test:
        named = {"test"} if "val" in named else set()
    entries = [
        Entry(v.path, catalog.classes[v.label], "test" if as_test and v.split == "val" else v.split, v.group)
        for v in videos
    ]
    shares = {"val": config.validation_share, "test": config.test_share}
    splits = hold_out(entries, {split: share for split, share in shares.items() if split not in named}, seed)
    return np.array([SPLITS.index(splits[video.path]) for video in videos], dtype=np.uint8)
