"""What a pack's files hold: `pack.json`, `catalog.safetensors`, and the json member of each video in a tar file.

A pack may come from anywhere, so what it says is taken for nothing more than a claim: every text and number is checked
for its type and range when the pack is opened, so that what reads a clip later can trust it. A tar file's name can only
be that of a file beside `pack.json`; all members lie inside of their file, in order, and none overlap.
"""

import json
import math
import re
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any, Self, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from pvnas.data.catalog import SPLITS, TextColumn, Video, VideoTable, whole_files
from pvnas.data.video.decode import MAX_PIXELS

FORMAT, VERSION = "pvnas-pack", 1
INFO, CATALOG = "pack.json", "catalog.safetensors"
INFO_LIMIT = 256 << 20  # bytes; 100,000 shards and as many videos left out are a tenth of it
JSON_LIMIT = 1 << 30  # bytes of a json member
CLASSES_LIMIT = 1_000_000
PACK_SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-[0-9]{{5,9}}\.tar", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
BIGGEST = 1 << 53  # the largest number that every JSON reader keeps exact
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # of a tar file


class DamageError(Exception):
    """Why something in a pack cannot be trusted, in one line; who opened the pack adds where it lies."""


def shown(value: object) -> str:
    """Return a value out of a pack such that it can be shown: on one line, short, without control characters."""
    text = ascii(value) if not isinstance(value, int) or abs(value) < BIGGEST else "a huge number"
    return text if len(text) <= 100 else f"{text[:97]}..."


# ---- pack.json: how the pack was made, its tar files with their hashes, and what was left out and why


@dataclass(frozen=True)
class PackOptions:
    """What, with the list of videos, decides every byte of a pack."""

    short_side: int  # pixels of the shorter side; a smaller video keeps its size
    quality: int  # of the JPEG frames, 1 to 100
    videos_per_shard: int
    seed: int  # of the order of the videos


@dataclass(frozen=True)
class PackShard:
    """One tar file."""

    name: str
    bytes: int
    sha256: str
    videos: int

    @property
    def split(self) -> str:
        """Return train, val or test: a tar file holds videos of one split."""
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class LeftOut:
    """A video of the list that is not in the pack."""

    path: str  # its name: of a segment with its seconds
    split: str
    reason: str


@dataclass(frozen=True)
class PackedList:
    """The list of videos that was packed."""

    format: str  # how it was written: a name out of ``listing.FORMATS``
    videos: int
    sha256: str  # over path, class, split, group and segment of every video, whatever their order


@dataclass(frozen=True)
class CatalogFile:
    """`catalog.safetensors`."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackInfo:
    """All of `pack.json`."""

    made_by: str  # programs and versions; for people, nothing depends on it
    options: PackOptions
    source: PackedList
    classes: tuple[str, ...]
    counts: dict[str, int]  # videos in the pack by split
    frames: int  # in all videos together
    shards: tuple[PackShard, ...]
    left_out: tuple[LeftOut, ...]
    catalog: CatalogFile

    def to_json(self) -> str:
        """Return the text of `pack.json`."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    def summary(self) -> str:
        """Return one line of counts and bytes."""
        total = sum(self.counts.values())
        gib = (self.catalog.bytes + sum(shard.bytes for shard in self.shards)) / (1 << 30)
        parts = ", ".join(f"{split} {number}" for split, number in self.counts.items())
        missing = f"; {len(self.left_out)} left out" if self.left_out else ""
        return f"{total} videos ({parts}), {self.frames} frames, {len(self.shards)} shards, {gib:.2f} GiB{missing}"


def load_object(content: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object. Raises DamageError for anything else, NaN and endless nesting among it."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{what} is no JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise DamageError(f"{what} is no JSON object")
    return value


def parse_info(content: bytes) -> PackInfo:
    """Return what a `pack.json` says. Raises DamageError."""
    values = load_object(content, INFO)
    if values.get("format") != FORMAT:
        raise DamageError(f"{INFO} is not that of a {FORMAT}")
    version = values.get("version")
    if version != VERSION or isinstance(version, bool):
        raise DamageError(f"{INFO} is of version {shown(version)}; this program reads version {VERSION}")
    info: PackInfo = _parse(PackInfo, values, INFO)
    names = [shard.name for shard in info.shards]
    for name in names:
        if not PACK_SHARD_NAME.fullmatch(name):
            raise DamageError(f"{INFO} names a shard {shown(name)}; a shard is called like train-00000.tar")
    if len(set(names)) < len(names):
        raise DamageError(f"{INFO} names a shard twice")
    for digest in (info.source.sha256, info.catalog.sha256, *(shard.sha256 for shard in info.shards)):
        if not SHA256.fullmatch(digest):
            raise DamageError(f"{INFO} has a sha256 that is none: {shown(digest)}")
    if not 0 < len(info.classes) <= CLASSES_LIMIT or len(set(info.classes)) < len(info.classes):
        raise DamageError(f"{INFO} has no classes, too many or one of them twice")
    if not all(info.classes):
        raise DamageError(f"{INFO}: classes holds something that is no text")
    for split in SPLITS:
        if info.counts[split] != sum(shard.videos for shard in info.shards if shard.split == split):
            raise DamageError(f"{INFO} counts {info.counts[split]} {split} videos, its shards another number")
    return info


def _parse(kind: Any, value: Any, name: str) -> Any:
    """Return a JSON value as a field of this type: a text, a whole number from 0, a record, or several of them."""
    if kind is str:
        if not isinstance(value, str):
            raise DamageError(f"{INFO}: {name} is {shown(value)}, not a text")
        return value
    if kind is int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < BIGGEST:
            raise DamageError(f"{INFO}: {name} is {shown(value)}, not a whole number from 0")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise DamageError(f"{INFO}: {name} is no list")
        return tuple(_parse(get_args(kind)[0], item, name) for item in value)
    if not isinstance(value, dict):
        raise DamageError(f"{INFO}: {name} is no JSON object")
    if get_origin(kind) is dict:
        return {split: _parse(int, value.get(split), split) for split in SPLITS}
    return kind(**{field: _parse(hint, value.get(field), field) for field, hint in _hints(kind).items()})


_hints = cache(get_type_hints)


# ---- catalog.safetensors: the videos in columns, a quarter of a million of them open at once without a tar file


@dataclass(frozen=True, eq=False)
class MemberIndex:
    """Where the members of each video lie, (N,) each; bytes are counted from the beginning of the tar file."""

    shards: NDArray[np.int32]  # index into the tar files of `pack.json`
    json_offsets: NDArray[np.int64]
    json_sizes: NDArray[np.int64]
    mjpeg_offsets: NDArray[np.int64]
    mjpeg_sizes: NDArray[np.int64]
    heights: NDArray[np.int32]  # of the frames, in pixels
    widths: NDArray[np.int32]
    frames: NDArray[np.int64]  # number of frames

    @classmethod
    def of(cls, rows: Iterable[tuple[int, ...]]) -> Self:
        """Return the columns of rows in the order of the fields."""
        values = np.array(list(rows), dtype=np.int64).reshape(-1, len(MEMBER_COLUMNS))
        return cls(*(values[:, i].astype(kind) for i, kind in enumerate(MEMBER_COLUMNS.values())))


MEMBER_COLUMNS: dict[str, type[np.generic]] = {
    field.name: np.int64 if "int64" in str(field.type) else np.int32 for field in fields(MemberIndex)
}
COLUMNS: dict[str, type[np.generic]] = {
    "paths": np.uint8,
    "path_lengths": np.int32,
    "group_names": np.uint8,
    "group_name_lengths": np.int32,
    "labels": np.int32,
    "splits": np.uint8,
    "groups": np.int32,
    **MEMBER_COLUMNS,
}
SEGMENT_COLUMNS: dict[str, type[np.generic]] = {"starts": np.float64, "ends": np.float64}
"""Only where a video is a segment: seconds of the file that it was cut from."""


def index_bytes(videos: Iterable[Video], members: MemberIndex) -> bytes:
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
    if table.has_segments:
        columns |= {"starts": table.starts, "ends": table.ends}
    return bytes(save({**columns, **{name: getattr(members, name) for name in MEMBER_COLUMNS}}))


def parse_index(content: bytes, info: PackInfo) -> tuple[VideoTable, MemberIndex]:
    """Return the videos and where they lie. Raises DamageError where one does not fit the tar files of `pack.json`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        columns = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DamageError(f"{CATALOG} is no safetensors file ({type(error).__name__})") from None
    expected = COLUMNS | (SEGMENT_COLUMNS if columns.keys() & SEGMENT_COLUMNS.keys() else {})
    if columns.keys() != expected.keys():
        raise DamageError(f"{CATALOG} has other columns than a pack's")
    videos = sum(info.counts.values())
    for name, kind in expected.items():
        if columns[name].dtype != kind or columns[name].ndim != 1:
            raise DamageError(f"{CATALOG}: column {name} is no list of {np.dtype(kind).name}")
        if name not in ("paths", "group_names", "group_name_lengths") and len(columns[name]) != videos:
            raise DamageError(f"{CATALOG}: column {name} has {len(columns[name])} rows for {videos} videos")
    members = MemberIndex(**{name: columns[name] for name in MEMBER_COLUMNS})
    _check_members(members, info)
    _check_range("labels", columns["labels"], 0, len(info.classes) - 1)
    _check_range("groups", columns["groups"], -1, len(columns["group_name_lengths"]) - 1)
    expected_S = np.array([SPLITS.index(shard.split) for shard in info.shards], dtype=np.uint8)
    if not np.array_equal(columns["splits"], expected_S[members.shards]):
        raise DamageError(f"{CATALOG}: a video's split is not that of its shard")
    texts = {}
    for name, lengths in (("paths", "path_lengths"), ("group_names", "group_name_lengths")):
        _check_range(lengths, columns[lengths], 0, len(columns[name]))
        wide = columns[lengths].astype(np.int64)
        if int(wide.sum()) != len(columns[name]):
            raise DamageError(f"{CATALOG}: {lengths} do not add up to the bytes of {name}")
        texts[name] = TextColumn(columns[name].tobytes(), np.cumsum(wide) - wide, wide)
    labels, splits, groups = (columns[name] for name in ("labels", "splits", "groups"))
    segments = (columns["starts"], columns["ends"]) if "starts" in columns else whole_files(videos)
    if not ((segments[0] >= 0) & (segments[0] < segments[1])).all():
        raise DamageError(f"{CATALOG}: a segment does not end after its start")
    table = VideoTable(texts["paths"], labels, splits, groups, texts["group_names"], np.arange(videos), *segments)
    return table, members


def _check_members(members: MemberIndex, info: PackInfo) -> None:
    """Check that the members follow one another in each tar file, as they were written, to its last byte."""
    _check_range("shards", members.shards, 0, len(info.shards) - 1)
    counts = np.bincount(members.shards, minlength=len(info.shards))
    if (np.diff(members.shards) < 0).any() or counts.tolist() != [shard.videos for shard in info.shards]:
        raise DamageError(f"{CATALOG}: the videos of a shard are not those that pack.json counts")
    biggest = max((shard.bytes for shard in info.shards), default=0)
    _check_range("json_sizes", members.json_sizes, 2, min(biggest, JSON_LIMIT))
    _check_range("mjpeg_sizes", members.mjpeg_sizes, 1, biggest)
    _check_range("heights", members.heights, 1, MAX_PIXELS)
    _check_range("widths", members.widths, 1, MAX_PIXELS)
    _check_range("frames", members.frames, 1, biggest)
    if (members.heights.astype(np.int64) * members.widths > MAX_PIXELS).any():
        raise DamageError(f"{CATALOG}: a video has frames of more than {MAX_PIXELS} pixels")
    if (members.frames > members.mjpeg_sizes).any():
        raise DamageError(f"{CATALOG}: a video has more frames than bytes")
    heads, bodies = padded(members.json_sizes), padded(members.mjpeg_sizes)
    sizes = heads + bodies + 2 * BLOCK
    starts = np.cumsum(sizes) - sizes  # as if all tar files were one
    expected = starts - starts[members.shards.searchsorted(members.shards)] + BLOCK
    if not np.array_equal(members.json_offsets, expected):
        raise DamageError(f"{CATALOG}: a video's json does not begin where the one before it ends")
    if not np.array_equal(members.mjpeg_offsets, expected + heads + BLOCK):
        raise DamageError(f"{CATALOG}: a video's frames do not begin where its json ends")
    totals = np.bincount(members.shards, weights=sizes, minlength=len(counts))
    for shard, size in zip(info.shards, totals.tolist(), strict=True):
        if shard.bytes != int(size) + len(END):
            raise DamageError(f"{CATALOG}: the videos of {shard.name} take {int(size)} bytes of its {shard.bytes}")


def padded(size: Any) -> Any:
    """Return the bytes that members' data of these sizes (a number or an array) take in a tar file."""
    return -(-size // BLOCK) * BLOCK


def member_header(name: str, size: int) -> bytes:
    """Return the tar header (512 bytes) of a member."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _check_range(name: str, column: NDArray[Any], low: int, high: int) -> None:
    if len(column) and not (low <= int(column.min()) and int(column.max()) <= high):
        raise DamageError(f"{CATALOG}: column {name} has a number outside of {low} to {high}")


# ---- the json member of a video: when its frames begin and where their bytes lie


@dataclass(frozen=True, eq=False)
class PackedFrames:
    """What reading a clip of a video needs."""

    times_T: NDArray[np.float64]  # when each frame begins, in seconds; the first at 0
    duration: float  # seconds from the first frame to the end of the last
    starts: NDArray[np.int64]  # (T + 1,) where each frame begins in the mjpeg data, and where the last one ends
    about: dict[str, Any]  # all of the member but times and sizes


def place_of(video: Video) -> dict[str, str | float | None]:
    """Return where a video was, for its json member: path, and start and end of a segment (none: the file's end)."""
    end = video.end if video.end < math.inf else None
    return {"path": video.path, **({"start": video.start, "end": end} if video.is_segment else {})}


def parse_member(content: bytes, *, frames: int, size: int, height: int, width: int) -> PackedFrames:
    """Return what a json member says. Raises DamageError where it does not fit what the catalogue says of the video.

    ``frames``: their number; ``size``: bytes of the mjpeg data; ``height`` and ``width`` in pixels.
    """
    about = load_object(content, "its json")
    times_T = _numbers(about.pop("times", None), frames, "times", float)
    sizes_T = _numbers(about.pop("sizes", None), frames, "sizes", int)
    duration = about.get("duration")
    if times_T[0] != 0 or not np.isfinite(times_T).all() or (np.diff(times_T) <= 0).any():
        raise DamageError("its json has times that do not rise from 0")
    if not isinstance(duration, float) or not times_T[-1] < duration < np.inf:
        raise DamageError("its json has a duration that is none")
    if sizes_T.min() < 1 or sizes_T.max() > size or int(sizes_T.sum()) != size:
        raise DamageError("its json has sizes of frames that do not add up")
    if about.get("height") != height or about.get("width") != width:
        raise DamageError("its json and the catalogue differ in the size of the frames")
    return PackedFrames(times_T, duration, np.append(0, np.cumsum(sizes_T)), about)


def _numbers(values: Any, frames: int, name: str, kind: type[int] | type[float]) -> NDArray[Any]:
    """Return a list of so many numbers of this kind alone; whatever else converts to a number is refused."""
    if not isinstance(values, list) or len(values) != frames or set(map(type, values)) != {kind}:
        raise DamageError(f"its json has no list of {frames} {name}")
    try:
        return np.array(values, dtype=np.int64 if kind is int else np.float64)
    except OverflowError:
        raise DamageError(f"its json has {name} that are too large") from None
