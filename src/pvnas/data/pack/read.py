"""A finished pack, opened without reading its tar files, and clips out of it: the frames they need and nothing else.

Or every byte of it against what was written: hashes, and each member against the catalogue.

row ─ catalogue ─▶ json range ─▶ times, sizes ─ indices ─▶ ranges of frames ─▶ JPEG ─▶ (T, C, H, W)
"""

import hashlib
from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pvnas.data.catalog import Catalog
from pvnas.data.pack.format import (
    BLOCK,
    CATALOG,
    END,
    INFO,
    INFO_LIMIT,
    DamageError,
    MemberIndex,
    PackedFrames,
    PackInfo,
    member_header,
    padded,
    parse_index,
    parse_info,
    parse_member,
    place_of,
    shown,
)
from pvnas.data.pack.storage import Storage, storage_of
from pvnas.data.video.decode import channels_first
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress, begin

if TYPE_CHECKING:
    from torch import Tensor

CATALOG_LIMIT = 4 << 30  # bytes; ten million videos are a quarter of it
CACHED_MEMBERS = 64
PIECE = 8 << 20  # bytes that a check reads at once


def is_pack(path_or_url: str | Path) -> bool:
    """Return whether a finished pack lies there. Raises UserError for a URL that does not answer."""
    return storage_of(path_or_url).size(INFO) is not None


def open_pack(path_or_url: str | Path) -> "Pack":
    """Return the pack of a folder or URL. Raises UserError where there is none, and for what does not fit."""
    storage = storage_of(path_or_url)
    try:
        info = parse_info(_content(storage, INFO, INFO_LIMIT))
        content = _content(storage, CATALOG, CATALOG_LIMIT)
        if len(content) != info.catalog.bytes or hashlib.sha256(content).hexdigest() != info.catalog.sha256:
            raise DamageError(f"{CATALOG} is not the one that {INFO} was written with (SHA-256)")
        table, members = parse_index(content, info)
    except DamageError as damage:
        raise UserError(f"{storage.address}: {damage}; copy the pack anew, or write it anew") from None
    return Pack(storage, info, Catalog(Path(storage.address), info.classes, table, "pack"), members)


def _content(storage: Storage, name: str, limit: int) -> bytes:
    size = storage.size(name)
    if size is None:
        what = "is no finished pack: it has no" if name == INFO else "lacks"
        raise UserError(f"{storage.address} {what} {name}; finish it with the command that it was begun with")
    if not 0 <= size <= limit:
        raise DamageError(f"{name} has {size} bytes" if size >= 0 else f"its server does not say how large {name} is")
    return storage.read(name, 0, size) if size else b""


class Pack:
    """Reads clips by a video's row in the pack (``VideoTable.rows``); threads and forked processes may share one.

    All methods raise UserError, in one line with video and tar file, for what is damaged or cannot be read.
    """

    def __init__(self, storage: Storage, info: PackInfo, catalog: Catalog, members: MemberIndex) -> None:
        self.storage, self.info, self.catalog, self.members = storage, info, catalog, members
        self.bytes_read = 0  # bytes read in this process so far
        self.member = lru_cache(CACHED_MEMBERS)(self._member)
        """Return the json member of a video, by row; the last ones are held."""

    def __len__(self) -> int:
        return len(self.catalog.videos)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.storage, self.info, self.catalog, self.members)

    @property
    def pack_shards(self) -> NDArray[np.int64]:
        """Return the tar file (N,) that each video lies in, as an index."""
        return self.members.shards.astype(np.int64)

    def size(self, row: int) -> tuple[int, int]:
        """Return height and width of a video's frames in pixels, without reading."""
        return self.members.heights.item(row), self.members.widths.item(row)

    def length(self, row: int) -> int:
        """Return the number of a video's frames, without reading."""
        return self.members.frames.item(row)

    def times(self, row: int) -> tuple[NDArray[np.float64], float]:
        """Return when a video's frames begin (T,), from 0, and its duration, in seconds."""
        member = self.member(row)
        return member.times_T, member.duration

    def frames(self, row: int, indices: NDArray[np.int64]) -> "Tensor":
        """Return the (T, C, H, W) uint8 RGB frames at these indices, a view of (T, H, W, C) in memory."""
        member = self.member(row)
        wanted = indices.tolist()
        if wanted and not (min(wanted) >= 0 and max(wanted) < len(member.times_T)):
            raise IndexError(f"frames {min(wanted)} to {max(wanted)} of a video with {len(member.times_T)}")
        frames_THWC = np.empty((len(wanted), *self.size(row), 3), dtype=np.uint8)
        jpegs = self._jpegs(row, member, sorted(set(wanted)))
        first: dict[int, int] = {}
        for number, index in enumerate(wanted):
            if index in first:
                frames_THWC[number] = frames_THWC[first[index]]
                continue
            first[index] = number
            try:
                decode_jpeg(jpegs[index], frames_THWC[number])
            except DamageError as damage:
                raise self._fault(row, f"frame {index} {damage}") from None
        return channels_first(frames_THWC)

    def _member(self, row: int) -> PackedFrames:
        members, (height, width) = self.members, self.size(row)
        content = self._bytes(row, members.json_offsets.item(row), members.json_sizes.item(row))
        size = members.mjpeg_sizes.item(row)
        try:
            return parse_member(content, frames=self.length(row), size=size, height=height, width=width)
        except DamageError as damage:
            raise self._fault(row, str(damage)) from None

    def _jpegs(self, row: int, member: PackedFrames, indices: list[int]) -> dict[int, memoryview]:
        """Return the JPEG files of frames in rising order; near ones are read at once."""
        offset = self.members.mjpeg_offsets.item(row)
        jpegs: dict[int, memoryview] = {}
        for group in near_groups([(i, *member.starts[i : i + 2].tolist()) for i in indices], self.storage.gap):
            first, end = group[0][1], group[-1][2]
            content = memoryview(self._bytes(row, offset + first, end - first))
            jpegs |= {index: content[start - first : stop - first] for index, start, stop in group}
        return jpegs

    def _bytes(self, row: int, start: int, size: int) -> bytes:
        try:
            content = self.storage.read(self._file(row), start, size)
        except DamageError as damage:
            raise self._fault(row, str(damage)) from None
        self.bytes_read += size
        return content

    def _file(self, row: int) -> str:
        return self.info.shards[self.members.shards.item(row)].name

    def _fault(self, row: int, text: str) -> UserError:
        name = shown(self.catalog.videos[row].name)
        return UserError(
            f"{self.storage.address}/{self._file(row)}: video {name}: {text}; copy the shard anew: "
            "what is damaged can be found with pvnas data verify"
        )


def near_groups(ranges: list[tuple[int, int, int]], gap: int) -> list[list[tuple[int, int, int]]]:
    """Return ranges (index, start, end) in groups of which each is cheaper to read at once."""
    groups: list[list[tuple[int, int, int]]] = []
    for one in ranges:
        if groups and one[1] - groups[-1][-1][2] <= gap:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def decode_jpeg(content: memoryview | bytes, frame_HWC: NDArray[np.uint8]) -> None:
    """Decode a JPEG file of exactly this size into an array. Raises DamageError, before decoding for another size."""
    check_jpeg(content, *frame_HWC.shape[:2])
    try:
        simplejpeg.decode_jpeg(content, colorspace="RGB", fastdct=False, fastupsample=False, buffer=frame_HWC)
    except ValueError as error:
        raise DamageError(f"is no whole JPEG ({error})") from None


def check_jpeg(content: memoryview | bytes, height: int, width: int) -> None:
    """Raise DamageError unless the header is that of a JPEG file of this size."""
    try:
        header = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        raise DamageError("is no JPEG") from None
    if header[:2] != (height, width):
        raise DamageError(f"is {header[1]}x{header[0]}, not {width}x{height} pixels")


# ---- a check of all its bytes


def verify_pack(path_or_url: str | Path, progress: Progress | None = None) -> list[str]:
    """Read all of a pack and return what is wrong with it, one line each; an empty list for a sound one.

    Each tar file must have the SHA-256 of `pack.json`, and its members be those of the catalogue, with JPEG frames of
    the recorded size. Of each tar file the first problem is named.
    """
    try:
        pack = open_pack(path_or_url)
    except UserError as error:
        return [str(error)]
    problems = []
    with begin(progress, "verifying shards", len(pack.info.shards)) as bar:
        for number, shard in enumerate(pack.info.shards):
            try:
                _verify_shard(pack, number)
            except DamageError as damage:
                problems.append(f"{shard.name}: {damage}")
            except UserError as error:
                problems.append(str(error))
            bar.advance(1)
    return problems


def _verify_shard(pack: Pack, number: int) -> None:
    """Raise DamageError, or UserError where the file cannot be read, with the first problem of a tar file."""
    shard, members = pack.info.shards[number], pack.members
    size = pack.storage.size(shard.name)
    if size is None:
        raise DamageError("is missing")
    if size >= 0 and size != shard.bytes:
        raise DamageError(f"has {size} bytes, not {shard.bytes}")
    first = int(members.shards.searchsorted(number))
    rows = slice(first, first + shard.videos)
    ends = (members.mjpeg_offsets[rows] + padded(members.mjpeg_sizes[rows])).tolist()
    digest, problem, start, piece, piece_end = hashlib.sha256(), "", 0, b"", 0
    for row, end in enumerate(ends, start=first):
        if end > piece_end:  # as many videos at once as a piece holds, at least this one
            piece_end = ends[max(row - first, bisect_right(ends, start + PIECE) - 1)]
            piece = pack.storage.read(shard.name, start, piece_end - start)
            digest.update(piece)
            piece_start = start
        if not problem:
            try:
                _verify_video(pack, row, shard.name, memoryview(piece)[start - piece_start : end - piece_start])
            except DamageError as damage:
                problem = f"video {shown(pack.catalog.videos[row].name)}{damage}"
        start = end
    tail = pack.storage.read(shard.name, start, shard.bytes - start)
    digest.update(tail)
    if tail != END:
        problem = problem or "does not end as a tar file does"
    if digest.hexdigest() != shard.sha256:
        raise DamageError(f"is not what was written (SHA-256{problem and '; ' + problem})")
    if problem:
        raise DamageError(problem)


def _verify_video(pack: Pack, row: int, file: str, content: memoryview) -> None:
    """Raise DamageError unless these bytes are the two members of a video."""
    video, members = pack.catalog.videos[row], pack.members
    height, width, frames = (column.item(row) for column in (members.heights, members.widths, members.frames))
    json_size, mjpeg_size = members.json_sizes.item(row), members.mjpeg_sizes.item(row)
    head = bytes(content[:BLOCK])
    key = head[:100].rstrip(b"\0").removesuffix(b".json").decode("ascii", "replace")
    if not key.startswith(f"{file.removesuffix('.tar')}-") or head != member_header(f"{key}.json", json_size):
        raise DamageError(" has no json member where it should begin")
    body = BLOCK + padded(json_size)
    if content[body : body + BLOCK] != member_header(f"{key}.mjpeg", mjpeg_size):
        raise DamageError(" has no mjpeg member where it should begin")
    text = bytes(content[BLOCK : BLOCK + json_size])
    jpegs = content[body + BLOCK :]
    try:
        member = parse_member(text, frames=frames, size=mjpeg_size, height=height, width=width)
        listed = {**place_of(video), "class": pack.catalog.classes[video.label], "label": video.label}
        for name, value in {**listed, "split": video.split, "group": video.group}.items():
            if member.about.get(name) != value:
                raise DamageError(f"its json and the catalogue differ in {name}")
        for index, (start, end) in enumerate(pairwise(member.starts.tolist())):
            try:
                check_jpeg(jpegs[start:end], height, width)
            except DamageError as damage:
                raise DamageError(f"frame {index} {damage}") from None
    except DamageError as damage:
        raise DamageError(f": {damage}") from None
