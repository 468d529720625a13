"""What `pack.json` says of a pack: how it was made, its shards with their hashes, and what was left out and why.

A pack may come from anywhere, so its text is taken for nothing more than a claim: each field is checked for its type
and range before it is used, and a shard's name can only be that of a file beside `pack.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from pvnas.data.catalog import SPLITS

FORMAT, VERSION = "pvnas-pack", 1
INFO, CATALOG = "pack.json", "catalog.safetensors"
INFO_LIMIT = 256 << 20  # bytes; 100,000 shards and as many videos left out are a tenth of it
CLASSES_LIMIT = 1_000_000
SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-[0-9]{{5,9}}\.tar", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
BIGGEST = 1 << 53  # the largest number that every JSON reader keeps exact


class DamageError(Exception):
    """Why something in a pack cannot be trusted, in one line; who opened the pack adds where it lies."""


@dataclass(frozen=True)
class PackOptions:
    """What, with the list of videos, decides every byte of a pack."""

    short_side: int
    """Pixels of the shorter side; a smaller video keeps its size."""
    quality: int
    """Of the JPEG frames, 1 to 100."""
    videos_per_shard: int
    seed: int
    """Of the order of the videos."""


@dataclass(frozen=True)
class ShardInfo:
    """One tar file."""

    name: str
    bytes: int
    sha256: str
    videos: int

    @property
    def split(self) -> str:
        """Return train, val or test: a shard holds videos of one split."""
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class LeftOut:
    """A video of the list that is not in the pack."""

    path: str
    split: str
    reason: str


@dataclass(frozen=True)
class SourceInfo:
    """The list of videos that was packed."""

    format: str
    """How it was written: a name out of ``readers.FORMATS``."""
    videos: int
    sha256: str
    """Over path, class, split and group of every video, whatever their order."""


@dataclass(frozen=True)
class CatalogFile:
    """`catalog.safetensors`."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackInfo:
    """All of `pack.json`."""

    made_by: str
    """Programs and versions; for people, nothing depends on it."""
    options: PackOptions
    source: SourceInfo
    classes: tuple[str, ...]
    counts: dict[str, int]
    """Videos in the pack by split."""
    frames: int
    """In all videos together."""
    shards: tuple[ShardInfo, ...]
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


def parse_info(content: bytes) -> PackInfo:
    """Return what a `pack.json` says. Raises DamageError."""
    found = load_object(content, INFO)
    if found.pop("format", None) != FORMAT:
        raise DamageError(f"{INFO} is not that of a {FORMAT}")
    version = found.pop("version", None)
    if version != VERSION or isinstance(version, bool):
        raise DamageError(f"{INFO} is of version {shown(version)}; this program reads version {VERSION}")
    info = PackInfo(
        made_by=_text(found, "made_by"),
        options=_record(PackOptions, found.get("options"), "options"),
        source=_record(SourceInfo, found.get("source"), "source"),
        classes=tuple(_texts(found.get("classes"), "classes")),
        counts={split: _number(_object(found.get("counts"), "counts"), split) for split in SPLITS},
        frames=_number(found, "frames"),
        shards=tuple(_record(ShardInfo, item, "shards") for item in _list(found.get("shards"), "shards")),
        left_out=tuple(_record(LeftOut, item, "left_out") for item in _list(found.get("left_out"), "left_out")),
        catalog=_record(CatalogFile, found.get("catalog"), "catalog"),
    )
    _check(info)
    return info


def load_object(content: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object. Raises DamageError for anything else, NaN and endless nesting among it."""
    try:
        found = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{what} is no JSON ({type(error).__name__})") from None
    return _object(found, what)


def shown(value: object) -> str:
    """Return a value out of a pack such that it can be shown: on one line, short, without control characters."""
    text = ascii(value) if not isinstance(value, int) or abs(value) < BIGGEST else "a huge number"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _check(info: PackInfo) -> None:
    names = [shard.name for shard in info.shards]
    for name in names:
        if not SHARD_NAME.fullmatch(name):
            raise DamageError(f"{INFO} names a shard {shown(name)}; a shard is called like train-00000.tar")
    if len(set(names)) < len(names):
        raise DamageError(f"{INFO} names a shard twice")
    for digest in (info.source.sha256, info.catalog.sha256, *(shard.sha256 for shard in info.shards)):
        if not SHA256.fullmatch(digest):
            raise DamageError(f"{INFO} has a sha256 that is none: {shown(digest)}")
    if not 0 < len(info.classes) <= CLASSES_LIMIT or len(set(info.classes)) < len(info.classes):
        raise DamageError(f"{INFO} has no classes, too many or one of them twice")
    for split in SPLITS:
        if info.counts[split] != sum(shard.videos for shard in info.shards if shard.split == split):
            raise DamageError(f"{INFO} counts {info.counts[split]} {split} videos, its shards another number")


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DamageError(f"{what} is no JSON object")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise DamageError(f"{INFO}: {what} is no list")
    return value


def _texts(value: object, what: str) -> list[str]:
    texts = _list(value, what)
    if not all(isinstance(text, str) and text for text in texts):
        raise DamageError(f"{INFO}: {what} holds something that is no text")
    return texts


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise DamageError(f"{INFO}: {name} is {shown(value)}, not a text")
    return value


def _number(found: dict[str, Any], name: str) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < BIGGEST:
        raise DamageError(f"{INFO}: {name} is {shown(value)}, not a whole number from 0")
    return value


Record = TypeVar("Record", PackOptions, ShardInfo, LeftOut, SourceInfo, CatalogFile)


def _record(kind: type[Record], value: object, what: str) -> Record:
    """Return the dataclass, whose fields are texts and whole numbers from 0, of a JSON object."""
    found = _object(value, f"{INFO}: {what}")
    parsers: dict[str, Callable[[dict[str, Any], str], Any]] = {"str": _text, "int": _number}
    return kind(**{field.name: parsers[str(field.type)](found, field.name) for field in fields(kind)})
