"""A set of two numbered films that is listed in segments."""

from __future__ import annotations

import math
from pathlib import Path

from numbered import write_numbered

from pvnas.data.catalog import Catalog, Video

CLASSES = ("dark", "light")
SECONDS = [(0.0, 1.0), (0.75, 1.2), (1.2, 1.25), (2.0, math.inf)]
"""Of each film, at 10 frames a second."""
NUMBERS = [list(range(10)), [7, 8, 9, 10, 11], [12], list(range(20, 40))]


def segments_of_films(folder: Path) -> Catalog:
    """Return the catalogue of two films in four segments each, and of one whole video."""
    videos = [Video("c.mp4", 0, "train")]
    write_numbered(folder / "c.mp4", 5)
    for label, name in enumerate(("films/a.mp4", "films/b.mkv")):
        write_numbered(folder / name)
        videos += [Video(name, label, "train", None, *seconds) for seconds in SECONDS]
    return Catalog.of(folder, CLASSES, sorted(videos, key=lambda v: (v.path, v.start, v.end)))
