"""One tar file of a pack: samples of two members, ``{key}.json`` and ``{key}.mjpeg``, one after another.

Headers carry no time and no owner, so that the bytes depend on the videos and the options alone. A shard gets its name
when all of it is on the disk; a record beside it then says that it is finished, and where its members lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pvnas.data.catalog import Video
from pvnas.data.pack.encode import EncodedVideo, encode_video
from pvnas.data.pack.info import PackOptions, load_object
from pvnas.data.video.container import VideoError
from pvnas.runtime.files import explained, hold, sync_folder, temporary_path, write_all

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


@dataclass(frozen=True)
class ShardJob:
    """What a process needs to pack a shard."""

    name: str
    root: Path
    keys: tuple[str, ...]
    videos: tuple[Video, ...]
    classes: tuple[str, ...]
    """Class name of each video."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard."""

    name: str
    bytes: int
    sha256: str
    samples: tuple[tuple[int, ...], ...]
    """(place in the job, offset and size of the json, offset and size of the mjpeg, height, width, frames)."""
    left_out: tuple[tuple[int, str, str], ...]
    """(place in the job, reason, state of the file): the shard is packed again where the state is another one."""

    def to_json(self) -> str:
        """Return the text of the record's file."""
        return json.dumps(asdict(self))


def pack_shard(job: ShardJob, folder: Path, options: PackOptions, on_video: Callable[[str], None]) -> ShardRecord:
    """Write a shard into the folder and return its record; ``on_video`` is told the path before each video is opened.

    Videos that cannot be read are left out with the reason. Raises UserError where the disk is full.
    """
    samples: list[tuple[int, ...]] = []
    left_out: list[tuple[int, str, str]] = []
    with _new_file(folder / job.name) as file:
        for place, (key, video, name) in enumerate(zip(job.keys, job.videos, job.classes, strict=True)):
            on_video(video.path)
            state = file_state(job.root / video.path)
            try:
                encoded = encode_video(job.root / video.path, short_side=options.short_side, quality=options.quality)
            except VideoError as error:
                left_out.append((place, str(error), state))
                continue
            with explained(folder / job.name):
                head = file.member(f"{key}.json", [describe(video, name, encoded)])
                body = file.member(f"{key}.mjpeg", encoded.frames)
            samples.append((place, *head, *body, encoded.height, encoded.width, len(encoded.frames)))
        with explained(folder / job.name):
            file.write(END)
    return ShardRecord(job.name, file.size, file.digest.hexdigest(), tuple(samples), tuple(left_out))


def describe(video: Video, class_name: str, encoded: EncodedVideo) -> bytes:
    """Return the json member of a sample: the row of the list, size, times in seconds and bytes of each frame."""
    about = {
        "path": video.path,
        "class": class_name,
        "label": video.label,
        "split": video.split,
        "group": video.group,
        "height": encoded.height,
        "width": encoded.width,
        "rate": encoded.rate,
        "duration": encoded.duration,
        "frames_bad": encoded.frames_bad,
        "times": encoded.times_T.tolist(),
        "sizes": [len(frame) for frame in encoded.frames],
    }
    return json.dumps(about, separators=(",", ":"), allow_nan=False).encode()


def member_header(name: str, size: int) -> bytes:
    """Return the tar header (512 bytes) of a member."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def padded(size: int) -> int:
    """Return the bytes that a member's data takes in a tar file."""
    return -(-size // BLOCK) * BLOCK


def read_record(path: Path) -> ShardRecord | None:
    """Return a record that a finished shard left, or None where there is none or it is not whole."""
    try:
        found: dict[str, Any] = load_object(path.read_bytes(), path.name)
        samples = tuple(tuple(map(int, row)) for row in found["samples"])
        left_out = tuple((int(place), str(reason), str(state)) for place, reason, state in found["left_out"])
        return ShardRecord(str(found["name"]), int(found["bytes"]), str(found["sha256"]), samples, left_out)
    except Exception:
        return None


def file_state(path: Path) -> str:
    """Return what changes when a file is mended: its size and time of change; empty where there is no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


class _TarFile:
    """Writes members and their digest to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.size, self.digest = descriptor, 0, hashlib.sha256()

    def member(self, name: str, parts: list[bytes]) -> tuple[int, int]:
        """Write a member and return offset and size of its data."""
        size = sum(map(len, parts))
        self.write(member_header(name, size))
        offset = self.size
        self.write(b"".join([*parts, bytes(padded(size) - size)]))
        return offset, size

    def write(self, content: bytes) -> None:
        """Write and count."""
        write_all(self.descriptor, content)
        self.digest.update(content)
        self.size += len(content)


@contextmanager
def _new_file(path: Path) -> Iterator[_TarFile]:
    """Yield a file that gets its name, whole and on the disk, when the block ends well, and is gone otherwise."""
    temporary = temporary_path(path)
    with explained(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        hold(descriptor)
        yield _TarFile(descriptor)
        with explained(path):
            os.fsync(descriptor)
            os.rename(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
