"""Every byte of a pack against what was written: hashes, and each member against the catalogue."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path

from pvnas.data.pack.format import BLOCK, END, DamageError, padded, parse_member, shown
from pvnas.data.pack.read import Pack, check_jpeg, open_pack
from pvnas.data.pack.shard import member_header
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress, begin

PIECE = 8 << 20  # bytes read at once


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
                problem = f"video {shown(pack.catalog.videos.paths[row])}{damage}"
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
        listed = {"path": video.path, "class": pack.catalog.classes[video.label], "label": video.label}
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
