"""A finished pack, opened without reading its shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pvnas.data.catalog import Catalog
from pvnas.data.pack.index import Places, parse_index
from pvnas.data.pack.info import CATALOG, INFO, INFO_LIMIT, DamageError, PackInfo, parse_info
from pvnas.data.pack.reader import PackReader
from pvnas.data.pack.storage import Storage, storage_of
from pvnas.errors import UserError

CATALOG_LIMIT = 4 << 30  # bytes; ten million videos are a quarter of it


@dataclass(frozen=True, eq=False)
class Pack:
    """What is known of a pack once it is open."""

    storage: Storage
    info: PackInfo
    catalog: Catalog
    """Format "pack"; ``videos.rows`` are the rows that the reader asks for, a path is that of the packed video."""
    places: Places

    def reader(self) -> PackReader:
        """Return a reader of its clips."""
        return PackReader(self.storage, self.info, self.places, self.catalog.videos.paths)


def is_pack(path_or_url: str | Path) -> bool:
    """Return whether a finished pack lies there. Raises UserError for a URL that does not answer."""
    return storage_of(path_or_url).size(INFO) is not None


def open_pack(path_or_url: str | Path) -> Pack:
    """Return the pack of a folder or URL. Raises UserError where there is none, and for what does not fit."""
    storage = storage_of(path_or_url)
    try:
        info = parse_info(_content(storage, INFO, INFO_LIMIT))
        content = _content(storage, CATALOG, CATALOG_LIMIT)
        if len(content) != info.catalog.bytes or hashlib.sha256(content).hexdigest() != info.catalog.sha256:
            raise DamageError(f"{CATALOG} is not the one that {INFO} was written with (SHA-256)")
        table, places = parse_index(content, info)
    except DamageError as damage:
        raise UserError(f"{storage.place}: {damage}; copy the pack anew, or write it anew") from None
    catalog = Catalog(Path(storage.place), info.classes, table, "pack")
    return Pack(storage, info, catalog, places)


def _content(storage: Storage, name: str, limit: int) -> bytes:
    size = storage.size(name)
    if size is None:
        what = "is no finished pack: it has no" if name == INFO else "lacks"
        raise UserError(f"{storage.place} {what} {name}; finish it with the command that it was begun with")
    if not 0 <= size <= limit:
        raise DamageError(f"{name} has {size} bytes" if size >= 0 else f"its server does not say how large {name} is")
    return storage.read(name, 0, size) if size else b""
