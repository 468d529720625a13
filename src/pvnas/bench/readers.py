"""Clips per second of every reader in one run: files (by us and by others), packs and memory.

A clip is what one training sample needs: 8 frames of a random window of 64, at the short side that is asked for. The
readers take turns, so that a machine that gets slower gets slower for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pvnas.config import ClipConfig, DataConfig
from pvnas.data.catalog import Catalog
from pvnas.data.clips.sampling import training_indices
from pvnas.data.dataset import VideoDataset
from pvnas.data.pack import open_pack, pack_videos
from pvnas.data.video.decode import decode_video

ROUNDS = 5


OtherReader = Callable[["FramesOfAFile"], Any]
"""Returns (T, H, W, C) or (T, C, H, W) uint8 frames."""


@dataclass(frozen=True)
class ClipRequest:
    """One clip to read."""

    video: int
    u: float
    """Where in the video its window begins, in [0, 1)."""


def clip_requests(videos: int, clips: int) -> list[ClipRequest]:
    """Return the clips that every reader reads: the videos in turn, at random positions."""
    draw = np.random.default_rng(0)
    return [ClipRequest(number % videos, float(draw.random())) for number in range(clips)]


def reading_rates(
    catalog: Catalog, folder: Path, *, short_side: int, clips: int, others: Mapping[str, OtherReader]
) -> dict[str, float]:
    """Return clips per second by reader: ``direct.pvnas``, ``direct.<another's name>``, ``packed`` and ``ram``.

    ``folder`` takes the pack.
    """
    requests = clip_requests(len(catalog.videos), clips)
    memory = VideoDataset(catalog, DataConfig(cache="ram"), short_side)
    memory.prepare_cache()
    datasets = {
        "direct.pvnas": VideoDataset(catalog, DataConfig(cache="none"), short_side),
        "packed": _packed(catalog, folder, short_side),
        "ram": memory,
    }
    readers: dict[str, Callable[[ClipRequest], Any]] = {name: partial(_read, data) for name, data in datasets.items()}
    told = _told(requests, catalog, short_side) if others else {}
    readers |= {f"direct.{name}": partial(_read_as_told, read, told) for name, read in others.items()}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            started = time.perf_counter()
            for request in requests:
                read(request)
            seconds[name].append(time.perf_counter() - started)
    return {name: clips / median(of_rounds) for name, of_rounds in seconds.items()}


def _read(dataset: VideoDataset, request: ClipRequest) -> Any:
    def choose(times_T: Any, duration: float) -> Any:
        return training_indices(times_T, duration, ClipConfig(), [request.u])

    return dataset.frames(request.video, choose)


def _read_as_told(read: OtherReader, told: Mapping[ClipRequest, FramesOfAFile], request: ClipRequest) -> Any:
    return read(told[request])


def _packed(catalog: Catalog, folder: Path, short_side: int) -> VideoDataset:
    pack_videos(catalog, folder, short_side=short_side)
    pack = open_pack(str(folder))
    row_of = {path: row for row, path in enumerate(pack.catalog.videos.paths)}
    ordered = pack.catalog.take([row_of[path] for path in catalog.videos.paths])
    return VideoDataset(ordered, DataConfig(cache="none"), short_side, pack)


@dataclass(frozen=True)
class FramesOfAFile:
    """A clip as another reader is asked for it."""

    path: Path
    indices: list[int]
    rate: float
    """Frames a second."""
    size: tuple[int, int]
    """Height and width to scale to."""


def _told(requests: Sequence[ClipRequest], catalog: Catalog, short_side: int) -> dict[ClipRequest, FramesOfAFile]:
    """Return what other readers are told of each clip, which they could not know without us."""
    frames = {}
    for number, video in enumerate(catalog.videos):
        path = catalog.root / video.path
        whole = decode_video(path, short_side=short_side)
        height, width = whole.frames_TCHW.shape[2:]
        for request in (request for request in requests if request.video == number):
            indices = training_indices(whole.times_T, whole.duration, ClipConfig(), [request.u]).tolist()
            frames[request] = FramesOfAFile(path, indices, whole.rate, (height, width))
    return frames


def read_by_pyav(frames: FramesOfAFile) -> Any:
    """Seek to the key frame before the first wanted frame, decode on, convert the wanted ones, on one thread."""
    import av

    wanted, pictures = set(frames.indices), {}
    height, width = frames.size
    with av.open(str(frames.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        container.seek(round(frames.indices[0] / frames.rate / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            index = round(frame.time * frames.rate)
            if index in wanted:
                pictures[index] = frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
                if len(pictures) == len(wanted):
                    break
    return np.stack([pictures[index] for index in frames.indices])
