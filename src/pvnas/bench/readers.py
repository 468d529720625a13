"""Clips per second of every reader in one run (files by us and by others, packs, memory), and where a file's time goes.

A clip is what one training sample needs: 8 frames of a random window of 64, at the short side that is asked for. The
readers take turns, so that a machine that gets slower gets slower for all of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.config import AugmentConfig, ClipConfig, DataConfig
from pvnas.data.catalog import Catalog
from pvnas.data.clips.augment import crop_batch, random_crop_box
from pvnas.data.clips.sampling import training_indices
from pvnas.data.dataset import VideoDataset
from pvnas.data.pack import open_pack, pack_videos
from pvnas.data.video.decode import Painter, decode_video, open_video, stacked
from pvnas.data.video.seek import decode_runs, packets_and_table
from pvnas.runtime.random import generator

ROUNDS = 5


OtherReader = Callable[["FramesOfAFile"], Any]
"""Returns (T, H, W, C) or (T, C, H, W) uint8 frames."""

ClipRequest = tuple[int, float]
"""One clip to read: of which video, and where in it its window begins, in [0, 1)."""


def clip_requests(videos: int, clips: int) -> list[ClipRequest]:
    """Return the clips that every reader reads: the videos in turn, at random positions."""
    draw = np.random.default_rng(0)
    return [(number % videos, float(draw.random())) for number in range(clips)]


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
    readers |= {f"direct.{name}": lambda request, read=read: read(told[request]) for name, read in others.items()}  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            started = time.perf_counter()
            for request in requests:
                read(request)
            seconds[name].append(time.perf_counter() - started)
    return {name: clips / median(of_rounds) for name, of_rounds in seconds.items()}


def _read(dataset: VideoDataset, request: ClipRequest) -> Any:
    video, u = request
    return dataset.frames(video, lambda times_T, duration: training_indices(times_T, duration, ClipConfig(), [u]))


def _packed(catalog: Catalog, folder: Path, short_side: int) -> VideoDataset:
    pack_videos(catalog, folder, short_side=short_side)
    pack = open_pack(str(folder))
    row_of = {name: row for row, name in enumerate(pack.catalog.videos.names)}
    ordered = pack.catalog.take([row_of[name] for name in catalog.videos.names])
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
        for u in (u for of_video, u in requests if of_video == number):
            indices = training_indices(whole.times_T, whole.duration, ClipConfig(), [u]).tolist()
            frames[number, u] = FramesOfAFile(path, indices, whole.rate, (height, width))
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


CLIPS_PER_BATCH = 8


class _TimedPainter(Painter):
    """A painter that counts the seconds of converting."""

    seconds = 0.0

    def paint(self, frame: Any) -> NDArray[np.uint8]:
        started = time.perf_counter()
        picture = super().paint(frame)
        self.seconds += time.perf_counter() - started
        return picture


def stage_milliseconds(catalog: Catalog, *, short_side: int, clips: int, augment: AugmentConfig) -> dict[str, float]:
    """Return the milliseconds of a clip by stage: what a dataset does with a sound file, step by step."""
    spent = dict.fromkeys(("open", "seek", "decode", "convert", "augment", "collate"), 0.0)
    since, batch = 0.0, []

    def passed(stage: str) -> None:
        nonlocal since
        now = time.perf_counter()
        spent[stage], since = spent[stage] + now - since, now

    for number, (video, u) in enumerate(clip_requests(len(catalog.videos), clips)):
        path, painter, since = catalog.root / catalog.videos[video].path, _TimedPainter(short_side), time.perf_counter()
        with open_video(path) as (container, stream):
            passed("open")
            packets, table = packets_and_table(path, container, stream)
            assert table is not None, f"{path}: without usable time stamps there are no stages to tell apart"
            wanted = table.order_T[training_indices(table.times_T, table.duration, ClipConfig(), [u])].tolist()
            passed("seek")
            painter.fit(stream.codec_context.width, stream.codec_context.height)
            pictures = decode_runs(
                container, stream, packets, table, set(wanted), table.runs(set(wanted)), painter.paint
            )
            passed("decode")
        frames_TCHW = stacked([pictures[packet] for packet in wanted])
        passed("convert")
        spent["decode"] -= painter.seconds
        spent["convert"] += painter.seconds
        height, width = frames_TCHW.shape[2:]
        box = random_crop_box(height, width, augment, generator(0, number), may_flip=True)
        batch.append(crop_batch([frames_TCHW], [box], augment.crop))
        passed("augment")
        if len(batch) == CLIPS_PER_BATCH or number == clips - 1:
            torch.cat(batch)
            batch = []
            passed("collate")
    return {stage: 1000.0 * seconds / clips for stage, seconds in spent.items()}
