"""One tar file of a pack: for each video two members, ``{key}.json`` and ``{key}.mjpeg``, one after another.

A video is decoded once from its first frame to its last; frames are coded as they come, so that memory holds one
picture. Headers carry no time and no owner: the bytes depend on the videos and the options alone. A tar file gets its
name when all of it is on the disk; a record beside it then says that it is finished, and where its members lie.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import simplejpeg

from pvnas.data.catalog import Catalog, Video
from pvnas.data.pack.format import END, PackOptions, load_object, member_header, padded, place_of
from pvnas.data.processes import Allowed, Tell, allowed_seconds, too_slow
from pvnas.data.video.decode import InOrder, OnLength, Painter, VideoError, actual_rate
from pvnas.data.video.footage import Footage
from pvnas.data.video.pictures import folder_stamp
from pvnas.errors import UserError
from pvnas.runtime.files import explained, new_file, write_all

# JPEG frames of a single video, which are held in memory: an hour and a half of a shorter side of 164 pixels.
VIDEO_BYTES_LIMIT = 2 << 30
JPEG_SIDE_LIMIT = 65500
TIMEOUT = "timeout"  # how the reason begins for which a video is left out that took too long


class PackShardJob(NamedTuple):
    """A tar file to write and its videos, in their order."""

    name: str
    catalog: Catalog
    late: tuple[tuple[int, float], ...] = ()
    """(number in the job, seconds) of videos whose decoding has taken longer than so many seconds."""


class PackShardRecord(NamedTuple):
    """What is known of a finished tar file."""

    name: str
    bytes: int
    sha256: str
    samples: tuple[tuple[int, ...], ...]
    """(number in the job, offset and size of the json, offset and size of the mjpeg, height, width, frames)."""
    left_out: tuple[tuple[int, str, str], ...]
    """(number in the job, reason, state of the file): the tar file is written again where the state is another one."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the record in a file. Raises an exception of any kind for one that is not there or not whole."""
        values = load_object(path.read_bytes(), path.name)
        samples = tuple(tuple(map(int, row)) for row in values["samples"])
        left_out = tuple((int(number), str(reason), str(state)) for number, reason, state in values["left_out"])
        return cls(str(values["name"]), int(values["bytes"]), str(values["sha256"]), samples, left_out)


def pack_shard(
    job: PackShardJob, tell: Tell, *, folder: Path, options: PackOptions, deadline: float = math.inf
) -> PackShardRecord:
    """Write a tar file into the folder and return its record; ``tell`` is told each path before the video is opened.

    And how long it may take: ``deadline`` seconds, and as many more for its size and length. Videos that cannot be read
    are left out with the reason. Raises UserError where the disk is full.
    """
    late = dict(job.late)
    samples: list[tuple[int, ...]] = []
    left_out: list[tuple[int, str, str]] = []
    stem = job.name.removesuffix(".tar")
    with new_file(folder / job.name) as descriptor:
        file = _TarFile(folder / job.name, descriptor)
        for number, video in enumerate(job.catalog.videos):
            tell(video.name)
            footage = Footage.of(job.catalog, video, job.catalog.frame_rate)
            state = file_state(footage.path)
            if number in late:
                left_out.append((number, f"{TIMEOUT}: {too_slow(late[number])}", late_state(state, deadline)))
                continue
            allow = _allowance(footage.path, tell, deadline)
            try:
                jpegs, size = encode_video(
                    footage, short_side=options.short_side, quality=options.quality, on_length=allow
                )
            except VideoError as error:
                left_out.append((number, str(error), state))
                continue
            key = f"{stem}-{number:05d}"  # without a dot, as WebDataset asks
            about = _describe(video, job.catalog.classes[video.label], jpegs, size)
            head = file.member(f"{key}.json", [about])
            body = file.member(f"{key}.mjpeg", jpegs.items)
            samples.append((number, *head, *body, *size, len(jpegs.items)))
        file.write(END)
    return PackShardRecord(job.name, file.size, file.digest.hexdigest(), tuple(samples), tuple(left_out))


def _allowance(path: Path, tell: Tell, deadline: float) -> OnLength:
    """Return what tells the time that a video may take, given its length in seconds; tells it for the size alone."""
    size = int(file_state(path).partition(" ")[0] or 0)

    def allow(length: float) -> None:
        tell(Allowed(allowed_seconds(deadline, size, length)))

    allow(0.0)
    return allow


def encode_video(
    footage: Footage,
    *,
    short_side: int,
    quality: int,
    limit: int = VIDEO_BYTES_LIMIT,
    on_length: OnLength = lambda seconds: None,
) -> tuple[InOrder, tuple[int, int]]:
    """Return all frames as upright JPEG files with their times, and their height and width.

    The shorter side is scaled down to ``short_side`` pixels, never up: that is cheaper after reading than in every byte
    read. Frames and times are those of ``Footage.whole``. Raises VideoError, also where the JPEG files are more than
    ``limit`` bytes, and UserError where the computer has too little memory, which is no fault of the video.
    """
    painter = Painter(short_side, enlarges=False)
    total, shape = 0, None

    def encode(frame: Any) -> bytes:
        nonlocal total, shape
        picture_HWC = np.ascontiguousarray(painter.paint(frame))
        shape = shape or picture_HWC.shape
        if picture_HWC.shape != shape:
            raise VideoError("refused", "its pictures are turned in the middle of the video")
        if max(shape) > JPEG_SIDE_LIMIT:
            raise VideoError("refused", f"{shape[1]}x{shape[0]} pixels are more than a JPEG file can hold")
        # The fast transform differs between processors; the slow one gives the same bits everywhere.
        content: bytes = simplejpeg.encode_jpeg(
            picture_HWC, quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
        )
        total += len(content)
        if total > limit:
            smaller = "a smaller --short-side or --quality, or a list of its segments (columns start and end)"
            raise VideoError("refused", f"its frames take more than {limit >> 20} MiB as JPEG: {smaller}")
        return content

    try:
        jpegs = footage.in_order(encode, painter, on_length)
    except MemoryError:
        raise UserError(
            f"too little memory to decode {str(footage.path)!r}; type the command again, with fewer --workers"
        ) from None
    except (OSError, ValueError) as error:
        raise VideoError("unreadable", f"{type(error).__name__}: {error}") from None
    assert shape is not None
    return jpegs, (shape[0], shape[1])


def _describe(video: Video, class_name: str, jpegs: InOrder, size: tuple[int, int]) -> bytes:
    """Return the json member of a video: the row of the list, size, times in seconds and bytes of each frame."""
    about = {
        **place_of(video),
        "class": class_name,
        "label": video.label,
        "split": video.split,
        "group": video.group,
        "height": size[0],
        "width": size[1],
        "rate": actual_rate(jpegs.times_T, 1.0 / jpegs.duration),
        "duration": jpegs.duration,
        "frames_bad": jpegs.frames_bad,
        "times": jpegs.times_T.tolist(),
        "sizes": [len(frame) for frame in jpegs.items],
    }
    return json.dumps(about, separators=(",", ":"), allow_nan=False).encode()


def file_state(path: Path) -> str:
    """Return what changes when a file is mended: its size and time of change; empty where there is no file."""
    try:
        if path.is_dir():
            return "{} {}".format(*folder_stamp(path))
        status = path.stat()
    except (OSError, ValueError, VideoError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def late_state(state: str, deadline: float) -> str:
    """Return what also changes when a video whose decoding took too long is given more time."""
    return f"{state}, {deadline:g} s"


class _TarFile:
    """Writes members and their digest to a descriptor. Raises UserError where the disk is full."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor, self.size, self.digest = path, descriptor, 0, hashlib.sha256()

    def member(self, name: str, parts: list[bytes]) -> tuple[int, int]:
        """Write a member and return offset and size of its data."""
        size = sum(map(len, parts))
        self.write(member_header(name, size))
        offset = self.size
        for part in (*parts, bytes(padded(size) - size)):  # not joined: a long video would be in memory twice
            self.write(part)
        return offset, size

    def write(self, content: bytes) -> None:
        """Write and count."""
        with explained(self.path):
            write_all(self.descriptor, content)
        self.digest.update(content)
        self.size += len(content)
