"""Catalogues for tests, with the options of the config as keywords."""

from __future__ import annotations

from pathlib import Path

from pvnas.config import DataConfig
from pvnas.data import listing
from pvnas.data.catalog import Catalog


def read_catalog(path: str | Path, *, seed: int = 0, as_listed: bool = False, **options: object) -> Catalog:
    """Return the videos of a folder or list."""
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return listing.read_catalog(DataConfig(path=str(path), **texts), seed, as_listed=as_listed)  # type: ignore[arg-type]
