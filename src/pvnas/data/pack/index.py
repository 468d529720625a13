"""`catalog.safetensors`: the list of videos in columns, with the place of each sample's members.

A quarter of a million videos open at once, without reading a shard. Every number is checked when it is opened, so that
what reads a clip later can trust it: all places lie inside of their shard, in order, and none overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pvnas.data.catalog import SPLITS, TextColumn, Video, VideoTable
from pvnas.data.pack.info import CATALOG, DamageError, PackInfo
from pvnas.data.pack.shard import BLOCK, END
from pvnas.data.video.container import MAX_PIXELS

JSON_LIMIT = 1 << 30  # bytes
TABLE: dict[str, type[np.generic]] = {
    "paths": np.uint8,
    "path_lengths": np.int32,
    "group_names": np.uint8,
    "group_name_lengths": np.int32,
    "labels": np.int32,
    "splits": np.uint8,
    "groups": np.int32,
}


@dataclass(frozen=True, eq=False)
class Places:
    """Where the members of each video lie, (N,) each; bytes are counted from the beginning of the shard."""

    shards: NDArray[np.int32]
    """Index into the shards of `pack.json`."""
    json_offsets: NDArray[np.int64]
    json_sizes: NDArray[np.int64]
    mjpeg_offsets: NDArray[np.int64]
    mjpeg_sizes: NDArray[np.int64]
    heights: NDArray[np.int32]
    """Of the frames, in pixels."""
    widths: NDArray[np.int32]
    frames: NDArray[np.int64]
    """Number of frames."""

    @classmethod
    def of(cls, rows: Iterable[tuple[int, ...]]) -> Places:
        """Return the columns of rows in the order of the fields."""
        values = np.array(list(rows), dtype=np.int64).reshape(-1, len(PLACES))
        columns = (values[:, i].astype(kind) for i, kind in enumerate(PLACES.values()))
        return cls(*columns)


PLACES: dict[str, type[np.generic]] = {
    field.name: np.int64 if "int64" in str(field.type) else np.int32 for field in fields(Places)
}


def index_bytes(videos: Iterable[Video], places: Places) -> bytes:
    """Return the content of the file."""
    from safetensors.numpy import save

    table = VideoTable.of(videos)
    columns: dict[str, NDArray[Any]] = {
        "paths": np.frombuffer(table.paths.block, np.uint8),
        "path_lengths": table.paths.lengths.astype(np.int32),
        "group_names": np.frombuffer(table.group_names.block, np.uint8),
        "group_name_lengths": table.group_names.lengths.astype(np.int32),
        "labels": table.labels,
        "splits": table.splits,
        "groups": table.groups,
    }
    return bytes(save({**columns, **{name: getattr(places, name) for name in PLACES}}))


def parse_index(content: bytes, info: PackInfo) -> tuple[VideoTable, Places]:
    """Return the videos and their places. Raises DamageError where one does not fit the shards of `pack.json`."""
    found = _columns(content)
    _check_lengths(found, sum(info.counts.values()))
    places = Places(**{name: found[name] for name in PLACES})
    _check_places(places, info)
    _check_table(found, info, places)
    n = len(found["labels"])
    table = VideoTable(
        _text(found["paths"], found["path_lengths"]),
        found["labels"],
        found["splits"],
        found["groups"],
        _text(found["group_names"], found["group_name_lengths"]),
        np.arange(n),
    )
    return table, places


def _columns(content: bytes) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DamageError(f"{CATALOG} is no safetensors file ({type(error).__name__})") from None
    expected = {**TABLE, **PLACES}
    if found.keys() != expected.keys():
        raise DamageError(f"{CATALOG} has other columns than a pack's")
    for name, kind in expected.items():
        if found[name].dtype != kind or found[name].ndim != 1:
            raise DamageError(f"{CATALOG}: column {name} is no list of {np.dtype(kind).name}")
    return found


def _check_lengths(found: dict[str, NDArray[Any]], videos: int) -> None:
    for name in {**TABLE, **PLACES}:
        if name not in ("paths", "group_names", "group_name_lengths") and len(found[name]) != videos:
            raise DamageError(f"{CATALOG}: column {name} has {len(found[name])} rows for {videos} videos")


def _check_table(found: dict[str, NDArray[Any]], info: PackInfo, places: Places) -> None:
    _check_range("labels", found["labels"], 0, len(info.classes) - 1)
    _check_range("groups", found["groups"], -1, len(found["group_name_lengths"]) - 1)
    expected_S = np.array([SPLITS.index(shard.split) for shard in info.shards], dtype=np.uint8)
    if not np.array_equal(found["splits"], expected_S[places.shards]):
        raise DamageError(f"{CATALOG}: a video's split is not that of its shard")
    for name, lengths in (("paths", "path_lengths"), ("group_names", "group_name_lengths")):
        _check_range(lengths, found[lengths], 0, len(found[name]))
        if int(found[lengths].sum(dtype=np.int64)) != len(found[name]):
            raise DamageError(f"{CATALOG}: {lengths} do not add up to the bytes of {name}")


def _check_places(places: Places, info: PackInfo) -> None:
    """Check that the members follow one another in each shard, as they were written, to its last byte."""
    n_shards = len(info.shards)
    _check_range("shards", places.shards, 0, n_shards - 1)
    counts = np.bincount(places.shards, minlength=n_shards)
    if (np.diff(places.shards) < 0).any() or counts.tolist() != [shard.videos for shard in info.shards]:
        raise DamageError(f"{CATALOG}: the videos of a shard are not those that pack.json counts")
    biggest = max((shard.bytes for shard in info.shards), default=0)
    _check_range("json_sizes", places.json_sizes, 2, min(biggest, JSON_LIMIT))
    _check_range("mjpeg_sizes", places.mjpeg_sizes, 1, biggest)
    _check_range("heights", places.heights, 1, MAX_PIXELS)
    _check_range("widths", places.widths, 1, MAX_PIXELS)
    _check_range("frames", places.frames, 1, biggest)
    if (places.heights.astype(np.int64) * places.widths > MAX_PIXELS).any():
        raise DamageError(f"{CATALOG}: a video has frames of more than {MAX_PIXELS} pixels")
    if (places.frames > places.mjpeg_sizes).any():
        raise DamageError(f"{CATALOG}: a video has more frames than bytes")
    _check_layout(places, info, counts)


def _check_layout(places: Places, info: PackInfo, counts: NDArray[np.intp]) -> None:
    heads, bodies = _padded(places.json_sizes), _padded(places.mjpeg_sizes)
    ends = np.cumsum(heads + bodies + 2 * BLOCK)  # as if all shards were one file
    starts = np.concatenate([[0], ends])[:-1] if len(ends) else ends
    firsts = np.cumsum(counts) - counts
    base = np.repeat(np.append(starts, 0)[np.minimum(firsts, max(0, len(ends) - 1))], counts)
    expected = starts - base + BLOCK
    if not np.array_equal(places.json_offsets, expected):
        raise DamageError(f"{CATALOG}: a video's json does not begin where the one before it ends")
    if not np.array_equal(places.mjpeg_offsets, expected + heads + BLOCK):
        raise DamageError(f"{CATALOG}: a video's frames do not begin where its json ends")
    sizes = np.bincount(places.shards, weights=heads + bodies + 2 * BLOCK, minlength=len(counts))
    for shard, size in zip(info.shards, sizes.tolist(), strict=True):
        if shard.bytes != int(size) + len(END):
            raise DamageError(f"{CATALOG}: the videos of {shard.name} take {int(size)} bytes of its {shard.bytes}")


def _padded(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return -(-sizes // BLOCK) * BLOCK


def _check_range(name: str, column: NDArray[Any], low: int, high: int) -> None:
    if len(column) and not (low <= int(column.min()) and int(column.max()) <= high):
        raise DamageError(f"{CATALOG}: column {name} has a number outside of {low} to {high}")


def _text(block: NDArray[Any], lengths: NDArray[Any]) -> TextColumn:
    wide = lengths.astype(np.int64)
    return TextColumn(block.tobytes(), np.cumsum(wide) - wide, wide)
