"""Videos that are kept decoded: in this process's memory, in memory that all processes of a host share, or on a GPU.

torch is imported when something is decoded: listing a folder needs none.
"""

from __future__ import annotations

import math
import mmap
import os
import shlex
import socket
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing import TimeoutError as PoolTimeoutError
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pvnas.config import DataConfig
from pvnas.data.cache_room import room_for
from pvnas.data.video.decode import DecodedVideo
from pvnas.errors import UserError
from pvnas.runtime.files import write_all
from pvnas.runtime.memory import shown_bytes
from pvnas.runtime.progress import Progress, begin
from pvnas.runtime.signals import ends_waits

if TYPE_CHECKING:
    import torch

    from pvnas.runtime.distributed import World

CACHE_THREADS = 2
WAKE_SECONDS = 0.2


class Videos(Protocol):
    """What is asked of a data set of videos here."""

    cached: list[DecodedVideo] | None
    config: DataConfig
    pack: Any

    @property
    def device(self) -> torch.device:
        """Where the frames are."""

    def __len__(self) -> int:
        """Return how many videos there are."""

    def whole(self, index: int) -> DecodedVideo:
        """Return a video, decoded."""

    def decoded_bytes(self, index: int) -> float:
        """Return the memory that it takes then."""


def keep_decoded(
    datasets: Sequence[Videos],
    device: torch.device | None = None,
    progress: Progress | None = None,
    world: World | None = None,
) -> bool:
    """Decode the videos of all datasets into memory, or onto ``device``, as their config says; whether they are there.

    With ``auto`` they are kept where all of them together fit into the room that there is, and a line says what was
    decided. Of the processes of ``world`` on a host one decodes them for all. A stop request ends it. Raises UserError
    where ``ram`` or ``gpu`` cannot be.
    """
    cache = datasets[0].config.cache if any(map(len, datasets)) else "none"
    if cache == "none":
        return False
    if world is None or world.size == 1:
        return _keep(datasets, device, progress)
    # The same calls in all processes, whatever each has to do in them.
    shares = cache != "gpu" and world.local_size > 1 and hasattr(os, "memfd_create")
    leads = not shares or world.local_rank == 0
    shared = SharedFrames() if shares and leads else None
    try:
        world.together(lambda: leads and _keep(datasets, device, progress, shared), patient=True)
        described = world.exchange(None if shared is None else shared.described())
        world.together(lambda: leads or _take(datasets, described, device, progress), patient=True)
    finally:
        if shared is not None:
            shared.close()
    return datasets[0].cached is not None


def _keep(
    datasets: Sequence[Videos],
    device: torch.device | None,
    progress: Progress | None,
    shared: SharedFrames | None = None,
) -> bool:
    config, room = datasets[0].config, room_for(datasets[0].config, device)
    faster = (
        f"; a pack is faster: pvnas data pack {shlex.quote(config.path or 'DATA')} PACK"
        if datasets[0].pack is None
        else ""
    )
    needed = _bytes_up_to(room.bytes, datasets)
    taken = math.inf if needed > room.bytes else _decode_all(datasets, room.bytes, device, progress, shared)
    if taken <= room.bytes:
        if progress is not None:
            place = "on the GPU" if datasets[0].device.type == "cuda" else "in memory"
            progress.line(f"{shown_bytes(taken)} of videos are kept {place}")
        return True
    if config.cache != "auto":
        raise UserError(
            f"data.cache {config.cache}: decoded videos take more than the {room}: --data.cache none{faster}"
        )
    if progress is not None:
        progress.line(f"decoded, the videos take more than the {room}: they are not kept in memory{faster}")
    return False


def _take(datasets: Sequence[Videos], described: Any, device: torch.device | None, progress: Progress | None) -> bool:
    """Keep what another process of this host has decoded, if it has; where it is out of reach, decode it here.

    ``described``: by all processes, None by those that have decoded nothing for others.
    """
    here = next((each for each in described if each is not None and each["host"] == socket.gethostname()), None)
    if here is not None and here["videos"] is None:  # there was no room
        return False
    try:
        videos = iter(SharedFrames.of(here))
    except OSError:
        return _keep(datasets, device, progress)
    for dataset in datasets:
        dataset.cached = list(islice(videos, len(dataset)))
    return True


def _bytes_up_to(limit: float, datasets: Sequence[Videos]) -> float:
    """Return what the decoded videos take, with those that are being decoded; counted no further than the limit."""
    total = largest = 0.0
    for dataset in datasets:
        for index in range(len(dataset)):
            size = dataset.decoded_bytes(index)
            total, largest = total + size, max(largest, size)
            if total + CACHE_THREADS * largest > limit:
                return math.inf
    return total


def _decode_all(
    datasets: Sequence[Videos],
    limit: float,
    device: torch.device | None,
    progress: Progress | None,
    shared: SharedFrames | None,
) -> float:
    """Decode all videos, keep them where they take no more than the limit, and return their bytes, infinity for more.

    Headers lie: what is decoded is counted.
    """
    on_device = device if datasets[0].config.cache == "gpu" else None
    videos = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    taken, decoded_videos = 0.0, []
    # Threads that do not outlive the program where they hang on a file.
    with begin(progress, "decoding videos into memory", len(videos)) as bar, ThreadPool(CACHE_THREADS) as pool:
        decoded = pool.imap(lambda place: place[0].whole(place[1]), videos)
        for _ in videos:
            video = _next(decoded)
            taken += video.frames_TCHW.nbytes
            if taken > limit:
                return math.inf
            if shared is not None:
                shared.add(video)
            else:
                decoded_videos.append(video if on_device is None else video.to(on_device))
            bar.advance(1)
    rest = iter(shared.videos() if shared is not None else decoded_videos)
    for dataset in datasets:
        dataset.cached = list(islice(rest, len(dataset)))
    return taken


def _next(decoded: Any) -> DecodedVideo:
    """Return the next item of a pool; a stop request ends the wait for it.

    It wakes now and then: a signal that reaches another thread does not end this one's wait.
    """
    while True:
        with ends_waits(), suppress(PoolTimeoutError):
            video: DecodedVideo = decoded.next(WAKE_SECONDS)
            return video


class SharedFrames:
    """Decoded videos in memory that other processes of this host can map; it is gone when the last of them ends.

    Linux's memory files: no name that a killed process could leave behind, and no /dev/shm that is too small.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("pvnas-videos")
        self._sizes: list[tuple[tuple[int, ...], float]] = []
        self._complete = False

    def add(self, video: DecodedVideo) -> None:
        """Add a video behind the others."""
        frames_THWC = video.frames_TCHW.permute(0, 2, 3, 1).contiguous().numpy()  # as decoding leaves them
        padding = bytes(-frames_THWC.nbytes % 8)
        write_all(self._file, video.times_T.astype(np.float64).tobytes() + frames_THWC.tobytes() + padding)
        self._sizes.append((frames_THWC.shape, video.duration))

    def videos(self) -> list[DecodedVideo]:
        """Return all that were added, out of the shared memory."""
        self._complete = True
        return _mapped(self._file, self._sizes)

    def described(self) -> dict[str, Any]:
        """Return what another process needs to know to map them, as JSON data; videos None where they are not kept."""
        path = f"/proc/{os.getpid()}/fd/{self._file}"
        return {"host": socket.gethostname(), "path": path, "videos": self._sizes if self._complete else None}

    def close(self) -> None:
        """Let go of the file; what is mapped of it stays."""
        os.close(self._file)

    @staticmethod
    def of(described: dict[str, Any] | None) -> list[DecodedVideo]:
        """Return the videos of another process of this host. Raises OSError where they are out of reach."""
        if described is None:
            raise FileNotFoundError
        file = os.open(described["path"], os.O_RDWR | os.O_CLOEXEC)
        try:
            return _mapped(file, described["videos"])
        finally:
            os.close(file)


def _mapped(file: int, sizes: Sequence[tuple[Sequence[int], float]]) -> list[DecodedVideo]:
    import torch

    memory, videos, offset = mmap.mmap(file, 0), [], 0
    for shape, duration in sizes:
        times_T = np.frombuffer(memory, np.float64, shape[0], offset)
        offset += times_T.nbytes
        frames = torch.frombuffer(memory, dtype=torch.uint8, count=math.prod(shape), offset=offset)
        offset += -(-len(frames) // 8) * 8
        videos.append(DecodedVideo(frames.view(*shape).permute(0, 3, 1, 2), times_T, duration))
    return videos
