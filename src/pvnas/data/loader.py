"""Batches of clips, reproducible whoever decodes them: every choice is keyed by (seed, epoch, step, sample).

Legend: N clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, TestConfig
from pvnas.data.catalog import Catalog
from pvnas.data.decode import DecodedVideo, VideoError, decode_video, frame_times, probe
from pvnas.data.progress import Progress, begin
from pvnas.data.sampling import centre_start, frame_indices, test_starts, training_start
from pvnas.data.transforms import CropBox, crop_resize, random_crop_box, spatial_view_box, validation_box
from pvnas.errors import UserError
from pvnas.runtime.random import generator

GIB = 1 << 30
CACHE_THREADS = 2
SECONDS_FOR_SIGNAL = 0.5


@dataclass(frozen=True)
class Batch:
    """Clips of one step, shard after shard."""

    clips_NCTHW: Tensor
    """uint8."""
    labels_N: Tensor
    """int64."""
    paths: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the name is what torch's DataLoader looks for."""
        return Batch(self.clips_NCTHW.pin_memory(), self.labels_N.pin_memory(), self.paths)


@dataclass(frozen=True)
class ViewBatch:
    """Views of test videos."""

    clips_NCTHW: Tensor
    """uint8."""
    videos_N: Tensor
    """int64, index of the video in the catalog."""
    views_N: Tensor
    """int64; view v is temporal clip v // S and spatial crop v % S of S crops."""


class VideoSource:
    """The videos of a catalog, decoded on demand or kept in memory at ``short_side`` pixels.

    ``load`` gives whole videos, ``frames`` those that a clip needs. Raises UserError for a video that cannot be read,
    with its path: it was whole when it was listed, and no other video takes its place.

    Worker processes are forked after the cache is filled and read it where it is. Shared memory in its place would cost
    an open file for each video, more than a process may have by default.
    """

    def __init__(self, catalog: Catalog, config: DataConfig, short_side: int) -> None:
        self.catalog, self.config, self.short_side = catalog, config, short_side
        self._cache: list[DecodedVideo | None] = [None] * len(catalog.videos)
        self._times: dict[int, tuple[NDArray[np.float64], float]] = {}

    def select(self, indices: Sequence[int]) -> VideoSource:
        """Return a source of some of the videos that shares what is cached."""
        part = VideoSource(self.catalog.take(indices), self.config, self.short_side)
        part._cache = [self._cache[i] for i in indices]
        return part

    def load(self, index: int) -> DecodedVideo:
        """Return a whole video, its shorter side scaled to ``short_side``."""
        cached = self._cache[index]
        if cached is not None:
            return cached
        with self._named(index) as path:
            return decode_video(path, short_side=self.short_side)

    def times(self, index: int) -> tuple[NDArray[np.float64], float]:
        """Return when a video's frames begin and its duration, in seconds."""
        cached = self._cache[index]
        if cached is not None:
            return cached.times_T, cached.duration
        if index not in self._times:
            with self._named(index) as path:
                self._times[index] = frame_times(path)
        return self._times[index]

    def frames(self, index: int, frames: NDArray[np.int64]) -> Tensor:
        """Return frames (T, C, H, W) uint8 of a video by their indices."""
        cached = self._cache[index]
        if cached is not None:
            return cached.frames_TCHW[torch.from_numpy(frames)]
        with self._named(index) as path:
            return decode_video(path, short_side=self.short_side, wanted=frames.tolist()).frames_TCHW

    def prepare_cache(self, progress: Progress | None = None) -> bool:
        """Decode all videos into memory if the config says so and they fit; return whether they are there."""
        if self.config.cache == "none" or not self.catalog.videos:
            return False
        if self.config.cache == "auto" and self.estimated_bytes() > self.config.cache_gib * GIB:
            return False
        n = len(self.catalog.videos)
        with begin(progress, "decoding videos into memory", n) as bar, ThreadPoolExecutor(CACHE_THREADS) as pool:
            try:
                for index, video in enumerate(pool.map(self.load, range(n))):
                    self._cache[index] = video
                    bar.advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return True

    def estimated_bytes(self, sample: int = 32) -> float:
        """Return the memory that a cache takes, from the headers of up to ``sample`` videos."""
        chosen = np.unique(np.linspace(0, len(self.catalog.videos) - 1, sample).astype(int))
        sizes = []
        for index in chosen.tolist():
            with self._named(index) as path:
                info = probe(path)
            frames = info.frames or round(info.seconds * info.rate) or 300
            area = self.short_side**2 * max(info.width, info.height) / max(1, min(info.width, info.height))
            sizes.append(3.0 * frames * area)
        return float(np.mean(sizes)) * len(self.catalog.videos)

    @contextmanager
    def _named(self, index: int) -> Iterator[Path]:
        """Yield a video's path; a VideoError becomes a UserError with the path in it."""
        path = self.catalog.root / self.catalog.videos[index].path
        try:
            yield path
        except VideoError as error:
            # A repr keeps a file name with control characters on one line.
            raise UserError(f"{str(path)!r} cannot be read ({error}); mend it or take it away") from None


def steps_per_epoch(n_videos: int, batch: BatchConfig) -> int:
    """Return the whole batches in an epoch; one, of repeated videos, where there are fewer videos than that."""
    return max(1, n_videos // batch.clips)


def epoch_order(n_videos: int, batch: BatchConfig, *, seed: int, epoch: int, stream: str) -> NDArray[np.int64]:
    """Return the videos (steps, clips) of an epoch: a permutation by (seed, epoch, stream), the remainder left out."""
    if n_videos == 0:
        raise UserError("no training videos; add some, or lower --data.validation_share and --data.test_share")
    order = torch.randperm(n_videos, generator=generator(seed, stream, "order", epoch)).numpy()
    return np.resize(order, (steps_per_epoch(n_videos, batch), batch.clips))


def training_batches(
    source: VideoSource,
    clip: ClipConfig,
    augment: AugmentConfig,
    batch: BatchConfig,
    *,
    seed: int,
    epoch: int,
    first_step: int = 0,
    workers: int = 0,
    stream: str = "train",
) -> Iterator[Batch]:
    """Yield the batches of an epoch from ``first_step`` on, with random clips, crops and flips.

    The batches are the same for any number of workers and however often the run was interrupted. Raises UserError for
    a video that cannot be read and where a worker process is killed.
    """
    order = epoch_order(len(source.catalog.videos), batch, seed=seed, epoch=epoch, stream=stream)
    steps = [
        [(step, position, int(video)) for position, video in enumerate(order[step])]
        for step in range(first_step, len(order))
    ]
    clips = _TrainingClips(source, clip, augment, (seed, stream, epoch))
    loader: DataLoader[Any] = DataLoader(
        clips,
        batch_sampler=steps,
        num_workers=workers,
        collate_fn=_collate_or_fault,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="fork" if workers and sys.platform != "win32" else None,
        generator=torch.Generator(),  # else it draws from the global one, which belongs to the network's dropout
    )
    found = iter(loader)
    while (batch_or_fault := _next(found, workers)) is not None:
        if isinstance(batch_or_fault, str):
            raise UserError(batch_or_fault)
        yield batch_or_fault


def _next(found: Iterator[Batch | str], workers: int) -> Batch | str | None:
    """Return what comes next, None at the end. Raises UserError where a worker process died: killed, most likely."""
    try:
        return next(found, None)
    except (RuntimeError, EOFError, OSError) as error:
        if not workers or "in DataLoader worker process" in str(error):
            raise  # a mistake in the work itself, with the worker's traceback as its text
        # The end of a pipe may be seen before the signal of the worker's death, whose handler (torch's) raises wherever
        # the program is at that moment: let it be here.
        with suppress(RuntimeError):
            time.sleep(SECONDS_FOR_SIGNAL)
        raise UserError(
            "a process that decodes videos was killed, perhaps for want of memory; "
            "start the same command again, with a smaller --data.workers if it happens twice"
        ) from None


Sample = tuple[Tensor, int, str]
"""A clip (C, T, H, W) uint8, its label and its video's path."""


class _TrainingClips(Dataset[Sample | str]):
    """Random clips by (step, position in the batch, video); in place of one that cannot be read, the text of why.

    A text, since a DataLoader hands on an exception as the text of its whole traceback.
    """

    def __init__(
        self, source: VideoSource, clip: ClipConfig, augment: AugmentConfig, key: tuple[int, str, int]
    ) -> None:
        self.source, self.clip, self.augment, self.key = source, clip, augment, key

    def __getitem__(self, place: tuple[int, int, int]) -> Sample | str:
        try:
            return self._clip(*place)
        except UserError as error:
            return str(error)

    def _clip(self, step: int, position: int, index: int) -> Sample:
        seed, stream, epoch = self.key
        draw = generator(seed, stream, "clip", epoch, step, position)
        times_T, duration = self.source.times(index)
        start = training_start(duration, self.clip, float(torch.rand((), generator=draw, dtype=torch.float64)))
        frames_TCHW = self.source.frames(index, frame_indices(times_T, duration, start, self.clip))
        height, width = frames_TCHW.shape[2:]
        box = random_crop_box(height, width, self.augment, draw)
        video = self.source.catalog.videos[index]
        return crop_resize(frames_TCHW, box, self.augment.crop), video.label, video.path


def _collate_or_fault(samples: list[Sample | str]) -> Batch | str:
    """Return the batch, or the first text of a clip that could not be read."""
    faults = [sample for sample in samples if isinstance(sample, str)]
    return faults[0] if faults else _collate([sample for sample in samples if not isinstance(sample, str)])


def _collate(samples: list[Sample]) -> Batch:
    clips, labels, paths = zip(*samples, strict=True)
    return Batch(torch.stack(clips), torch.tensor(labels), paths)


def validation_batches(
    source: VideoSource, clip: ClipConfig, augment: AugmentConfig, clips_per_batch: int
) -> Iterator[Batch]:
    """Yield the centre crop of the centre clip of every video once; the last batch may be smaller."""
    videos = range(len(source.catalog.videos))
    for first in videos[::clips_per_batch]:
        samples = []
        for index in videos[first : first + clips_per_batch]:
            times_T, duration = source.times(index)
            frames = frame_indices(times_T, duration, centre_start(duration, clip), clip)
            frames_TCHW = source.frames(index, frames)
            height, width = frames_TCHW.shape[2:]
            box = validation_box(height, width, augment)
            video = source.catalog.videos[index]
            samples.append((crop_resize(frames_TCHW, box, augment.crop), video.label, video.path))
        yield _collate(samples)


def test_batches(source: VideoSource, clip: ClipConfig, test: TestConfig, clips_per_batch: int) -> Iterator[ViewBatch]:
    """Yield every view of every video once, video after video; the last batch may be smaller."""
    pending: list[tuple[Tensor, int, int]] = []
    for index in range(len(source.catalog.videos)):
        for view, clip_CTHW in enumerate(_views(source, index, clip, test)):
            pending.append((clip_CTHW, index, view))
            if len(pending) == clips_per_batch:
                yield _collate_views(pending)
                pending = []
    if pending:
        yield _collate_views(pending)


def _views(source: VideoSource, index: int, clip: ClipConfig, test: TestConfig) -> Iterator[Tensor]:
    """Yield the (C, T, H, W) views of one video, temporal clips first; a video is decoded once for all of them."""
    times_T, duration = source.times(index)
    starts = test_starts(duration, clip, test.temporal_views, test.rule)
    wanted = np.stack([frame_indices(times_T, duration, start, clip, test.rule) for start in starts])
    frames_FCHW = source.frames(index, wanted.ravel())
    for frames_TCHW in frames_FCHW.split(clip.frames):
        for view in range(test.spatial_views):
            box = _view_box(frames_TCHW, test, view)
            yield crop_resize(frames_TCHW, box, test.crop)


def _view_box(frames_TCHW: Tensor, test: TestConfig, view: int) -> CropBox:
    height, width = frames_TCHW.shape[2:]
    return spatial_view_box(height, width, test.crop, test.short_side, view, test.spatial_views)


def _collate_views(views: list[tuple[Tensor, int, int]]) -> ViewBatch:
    clips, videos, numbers = zip(*views, strict=True)
    return ViewBatch(torch.stack(clips), torch.tensor(videos), torch.tensor(numbers))


def display_frames(source: VideoSource, index: int, clip: ClipConfig, test: TestConfig) -> NDArray[np.uint8]:
    """Return the (T, H, W, C) uint8 frames of a video's centre view, as the network sees them."""
    times_T, duration = source.times(index)
    frames = frame_indices(times_T, duration, centre_start(duration, clip), clip)
    frames_TCHW = source.frames(index, frames)
    box = _view_box(frames_TCHW, test, test.spatial_views // 2)
    return crop_resize(frames_TCHW, box, test.crop).permute(1, 2, 3, 0).numpy()
