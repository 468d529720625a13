"""Lists of some of a data set's videos, which `pvnas` reads in place: nothing is copied.

A list is a split.csv in a folder of its own; `pvnas run DATA --data.annotations LIST` reads it in place of
DATA's own.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pvnas.config import DataConfig
from pvnas.data.catalog import Video
from pvnas.data.dataset import open_videos
from pvnas.data.listing.table import SPLIT_FILE
from pvnas.runtime.files import write_atomic


@dataclass(frozen=True)
class Listed:
    """One labelled video of a data set; videos of one ``group`` (a film) belong together."""

    path: str
    label: str
    split: str  # train, val or test
    group: str
    start: float = 0.0
    end: float = math.inf

    @property
    def name(self) -> str:
        """Its path, and of a segment its seconds: what predictions.csv calls it."""
        return Video(self.path, 0, self.split, None, self.start, self.end).name


def listed_videos(data: str | Path, seed: int = 0) -> list[Listed]:
    """Return the videos of a folder or list with splits and groups; one without a group is a group of its own.

    Splits that are not named are held out as a run of this seed holds them out. Raises UserError.
    """
    catalog = open_videos(DataConfig(path=str(data)), seed).catalog
    return [
        Listed(v.path, catalog.classes[v.label], v.split, v.group or f"video {v.name}", v.start, v.end)
        for v in catalog.videos
    ]


def write_list(folder: Path, videos: Iterable[Listed]) -> Path:
    """Write ``folder/split.csv`` of these videos and return it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split", "group", "start", "end"])
    for v in videos:
        writer.writerow([v.path, v.label, v.split, v.group, v.start or "", v.end if v.end < math.inf else ""])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SPLIT_FILE, text.getvalue())
    return folder / SPLIT_FILE


def list_options(path: Path) -> list[str]:
    """Return the options with which `pvnas` reads a list that write_list wrote, and holds nothing more out."""
    return ["--data.annotations", str(path), "--data.format", SPLIT_FILE, "--data.validation_share", "0"]
