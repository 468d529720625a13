"""Every byte of a pack against what was written: hashes, and each member against the catalogue."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pvnas.data.catalog import Video
from pvnas.data.pack.index import Places
from pvnas.data.pack.info import DamageError, shown
from pvnas.data.pack.member import Sample, parse_sample
from pvnas.data.pack.opening import Pack, open_pack
from pvnas.data.pack.reader import check_jpeg
from pvnas.data.pack.shard import BLOCK, END, member_header, padded
from pvnas.data.pack.storage import Storage
from pvnas.data.progress import Progress, begin
from pvnas.errors import UserError

PIECE = 8 << 20  # bytes read at once


def verify_pack(path_or_url: str | Path, progress: Progress | None = None) -> list[str]:
    """Read all of a pack and return what is wrong with it, one line each; an empty list for a sound one.

    Each shard must have the SHA-256 of `pack.json`, and its members be those of the catalogue, with JPEG frames of the
    recorded size. Of each shard the first problem is named.
    """
    try:
        pack = open_pack(path_or_url)
    except UserError as error:
        return [str(error)]
    problems = []
    with begin(progress, "verifying shards", len(pack.info.shards)) as bar:
        for number in range(len(pack.info.shards)):
            try:
                _verify_shard(pack, number)
            except DamageError as damage:
                problems.append(f"{pack.info.shards[number].name}: {damage}")
            except UserError as error:
                problems.append(str(error))
            bar.advance(1)
    return problems


def _verify_shard(pack: Pack, number: int) -> None:
    """Raise DamageError, or UserError where the shard cannot be read, with the first problem of a shard."""
    shard = pack.info.shards[number]
    size = pack.storage.size(shard.name)
    if size is None:
        raise DamageError("is missing")
    if size >= 0 and size != shard.bytes:
        raise DamageError(f"has {size} bytes, not {shard.bytes}")
    first = int(pack.places.shards.searchsorted(number))
    file = _Sequence(pack.storage, shard.name, shard.bytes)
    members = None
    try:
        for row in range(first, first + shard.videos):
            _verify_sample(pack, row, file)
        if file.take(len(END)) != END:
            raise DamageError("does not end as a tar file does")
    except DamageError as damage:
        members = str(damage)
    file.finish()
    if file.digest.hexdigest() != shard.sha256:
        raise DamageError(f"is not what was written (SHA-256{'' if members is None else '; ' + members})")
    if members is not None:
        raise DamageError(members)


def _verify_sample(pack: Pack, row: int, file: _Sequence) -> None:
    video, places = pack.catalog.videos[row], pack.places
    name = shown(video.path)
    head = file.take(BLOCK)
    key = head[:100].rstrip(b"\0").removesuffix(b".json").decode("ascii", "replace")
    shard = file.name.removesuffix(".tar")
    json_size, mjpeg_size = places.json_sizes.item(row), places.mjpeg_sizes.item(row)
    if not key.startswith(f"{shard}-") or head != member_header(f"{key}.json", json_size):
        raise DamageError(f"video {name} has no json member where it should begin")
    content = file.take(padded(json_size))
    if file.take(BLOCK) != member_header(f"{key}.mjpeg", mjpeg_size):
        raise DamageError(f"video {name} has no mjpeg member where it should begin")
    try:
        sample = _sample(content[:json_size], places, row)
        _compare(sample, video, pack.catalog.classes[video.label])
        for index, size in enumerate((sample.starts[1:] - sample.starts[:-1]).tolist()):
            _verify_frame(file.take(size), index, places, row)
    except DamageError as damage:
        raise DamageError(f"video {name}: {damage}") from None
    file.take(padded(mjpeg_size) - mjpeg_size)


def _sample(content: bytes, places: Places, row: int) -> Sample:
    return parse_sample(
        content,
        frames=places.frames.item(row),
        size=places.mjpeg_sizes.item(row),
        height=places.heights.item(row),
        width=places.widths.item(row),
    )


def _verify_frame(content: bytes, index: int, places: Places, row: int) -> None:
    try:
        check_jpeg(content, places.heights.item(row), places.widths.item(row))
    except DamageError as damage:
        raise DamageError(f"frame {index} {damage}") from None


def _compare(sample: Sample, video: Video, class_name: str) -> None:
    expected = {
        "path": video.path,
        "class": class_name,
        "label": video.label,
        "split": video.split,
        "group": video.group,
    }
    for name, value in expected.items():
        if sample.about.get(name) != value:
            raise DamageError(f"its json and the catalogue differ in {name}")


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
