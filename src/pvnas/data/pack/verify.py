"""Every byte of a pack against what was written: hashes, and each member against the catalogue."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pvnas.data.pack.format import BLOCK, END, DamageError, padded, parse_member, shown
from pvnas.data.pack.read import Pack, check_jpeg, open_pack
from pvnas.data.pack.shard import member_header
from pvnas.data.pack.storage import Storage
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
    shard = pack.info.shards[number]
    size = pack.storage.size(shard.name)
    if size is None:
        raise DamageError("is missing")
    if size >= 0 and size != shard.bytes:
        raise DamageError(f"has {size} bytes, not {shard.bytes}")
    first = int(pack.members.shards.searchsorted(number))
    file = _Sequence(pack.storage, shard.name, shard.bytes)
    problem = ""
    try:
        for row in range(first, first + shard.videos):
            _verify_video(pack, row, file)
        if file.take(len(END)) != END:
            raise DamageError("does not end as a tar file does")
    except DamageError as damage:
        problem = str(damage)
    file.finish()
    if file.digest.hexdigest() != shard.sha256:
        raise DamageError(f"is not what was written (SHA-256{problem and '; ' + problem})")
    if problem:
        raise DamageError(problem)


def _verify_video(pack: Pack, row: int, file: _Sequence) -> None:
    """Raise DamageError unless the two members of a video come next in the file."""
    video, members = pack.catalog.videos[row], pack.members
    height, width = members.heights.item(row), members.widths.item(row)
    json_size, mjpeg_size = members.json_sizes.item(row), members.mjpeg_sizes.item(row)
    head = file.take(BLOCK)
    key = head[:100].rstrip(b"\0").removesuffix(b".json").decode("ascii", "replace")
    stem = file.name.removesuffix(".tar")
    name = shown(video.path)
    if not key.startswith(f"{stem}-") or head != member_header(f"{key}.json", json_size):
        raise DamageError(f"video {name} has no json member where it should begin")
    content = file.take(padded(json_size))[:json_size]
    if file.take(BLOCK) != member_header(f"{key}.mjpeg", mjpeg_size):
        raise DamageError(f"video {name} has no mjpeg member where it should begin")
    try:
        frames = members.frames.item(row)
        member = parse_member(content, frames=frames, size=mjpeg_size, height=height, width=width)
        listed = {"path": video.path, "class": pack.catalog.classes[video.label], "label": video.label}
        for field, value in {**listed, "split": video.split, "group": video.group}.items():
            if member.about.get(field) != value:
                raise DamageError(f"its json and the catalogue differ in {field}")
        for index, size in enumerate((member.starts[1:] - member.starts[:-1]).tolist()):
            jpeg = file.take(size)
            try:
                check_jpeg(jpeg, height, width)
            except DamageError as damage:
                raise DamageError(f"frame {index} {damage}") from None
    except DamageError as damage:
        raise DamageError(f"video {name}: {damage}") from None
    file.take(padded(mjpeg_size) - mjpeg_size)


class _Sequence:
    """A file read from its beginning on, piece by piece, with its digest."""

    def __init__(self, storage: Storage, name: str, size: int) -> None:
        self.storage, self.name, self.size = storage, name, size
        self.digest = hashlib.sha256()
        self._next, self._rest, self._taken = 0, b"", 0

    def take(self, size: int) -> bytes:
        """Return the next bytes. Raises DamageError where there are fewer."""
        while len(self._rest) - self._taken < size:
            if not self._read():
                raise DamageError(f"ends before its last member does, after {self.size} bytes")
        content = self._rest[self._taken : self._taken + size]
        self._taken += size
        return content

    def finish(self) -> None:
        """Read on to the end."""
        while self._read():
            self._taken = len(self._rest)

    def _read(self) -> int:
        size = min(PIECE, self.size - self._next)
        if size > 0:
            piece = self.storage.read(self.name, self._next, size)
            self.digest.update(piece)
            self._rest, self._taken = self._rest[self._taken :] + piece, 0
            self._next += size
        return size
