"""Batches of clips: of training, reproducible whoever decodes them, and of validation and test, without chance.

Every random choice is keyed by (seed, epoch, step, sample). Legend: N clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, TestConfig
from pvnas.data.clips.augment import (
    NEVER,
    CropBox,
    crop_batch,
    flipped_labels,
    random_crop_box,
    spatial_view_box,
    validation_box,
)
from pvnas.data.clips.order import Part, epoch_order
from pvnas.data.clips.parallel import work
from pvnas.data.clips.sampling import centre_indices, draws, test_indices, training_indices
from pvnas.data.dataset import VideoDataset
from pvnas.runtime.device import copied_to
from pvnas.runtime.random import generator

WHOLE = Part()


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

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; out of page-locked memory the copy runs beside other work."""
        clips, labels = copied_to(device, (self.clips_NCTHW, self.labels_N))
        return Batch(clips, labels, self.paths)


def training_batches(
    source: VideoDataset,
    clip: ClipConfig,
    augment: AugmentConfig,
    batch: BatchConfig,
    *,
    seed: int,
    epoch: int,
    first_step: int = 0,
    workers: int = 0,
    stream: str = "train",
    part: Part = WHOLE,
) -> Iterator[Batch]:
    """Yield the batches of an epoch from ``first_step`` on, with random clips, crops and flips.

    The batches are the same for any number of workers and however often the run was interrupted; of several processes
    each gets the clips of its own logical shards. Raises UserError for a video that cannot be read and where a worker
    process is killed.
    """
    order = epoch_order(len(source), batch, seed=seed, epoch=epoch, stream=stream, pack_shards_V=source.pack_shards())
    positions = part.positions(batch)
    # One step at a time: as lists, a large epoch would be a hundred megabytes of small objects.
    places = ([(step, n, int(order[step, n])) for n in positions] for step in range(first_step, len(order)))
    clips = _RandomClips(source, clip, augment, (seed, stream, epoch))
    yield from work(clips.make, places, clips.collate, workers=source.workers(workers), pin_memory=source.pins_memory())


@dataclass(frozen=True)
class Sample:
    """One clip before its crop."""

    frames_TCHW: Tensor
    """uint8."""
    box: CropBox
    label: int
    path: str


class _RandomClips:
    """Random clips by (step, position in the batch, video)."""

    def __init__(
        self, source: VideoDataset, clip: ClipConfig, augment: AugmentConfig, key: tuple[int, str, int]
    ) -> None:
        self.source, self.clip, self.augment, self.key = source, clip, augment, key
        self.flipped_labels = flipped_labels(source.catalog.classes, augment.flip)

    def make(self, place: tuple[int, int, int]) -> Sample:
        """Return the clip of (step, position, video), the same whoever asks for it and when."""
        step, position, index = place
        seed, stream, epoch = self.key
        draw = generator(seed, stream, "clip", epoch, step, position)
        u = [float(torch.rand((), generator=draw, dtype=torch.float64)) for _ in range(draws(self.clip))]
        frames_TCHW = self.source.frames(index, lambda times_T, length: training_indices(times_T, length, self.clip, u))
        video = self.source.catalog.videos[index]
        flipped = self.flipped_labels[video.label]
        height, width = frames_TCHW.shape[2:]
        box = random_crop_box(height, width, self.augment, draw, may_flip=flipped != NEVER)
        return Sample(frames_TCHW, box, flipped if box.flip else video.label, video.path)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return cropped(samples, self.augment.crop)


def cropped(samples: Sequence[Sample], size: int) -> Batch:
    """Return the crops of clips as a batch."""
    clips_NCTHW = crop_batch([sample.frames_TCHW for sample in samples], [sample.box for sample in samples], size)
    labels_N = torch.tensor([sample.label for sample in samples], device=clips_NCTHW.device)
    return Batch(clips_NCTHW, labels_N, tuple(sample.path for sample in samples))


@dataclass(frozen=True)
class ViewBatch:
    """Views of test videos."""

    clips_NCTHW: Tensor
    """uint8."""
    videos_N: Tensor
    """int64, index of the video in the catalog."""
    views_N: Tensor
    """int64; view v is temporal clip v // S and spatial crop v % S of S crops."""


def validation_batches(
    source: VideoDataset, clip: ClipConfig, augment: AugmentConfig, clips_per_batch: int, *, workers: int = 0
) -> Iterator[Batch]:
    """Yield the centre crop of the centre clip of every video once; the last batch may be smaller."""

    def centre(index: int) -> Sample:
        frames_TCHW = source.frames(index, lambda times_T, duration: centre_indices(times_T, duration, clip))
        height, width = frames_TCHW.shape[2:]
        video = source.catalog.videos[index]
        return Sample(frames_TCHW, validation_box(height, width, augment), video.label, video.path)

    videos = range(len(source))
    batches = [videos[first : first + clips_per_batch] for first in videos[::clips_per_batch]]
    yield from work(centre, batches, lambda samples: cropped(samples, augment.crop), workers=source.workers(workers))


def test_batches(
    source: VideoDataset, clip: ClipConfig, test: TestConfig, clips_per_batch: int, *, workers: int
) -> Iterator[ViewBatch]:
    """Yield every view of every video once, video after video; the last batch may be smaller."""
    views = test.temporal_views * test.spatial_views
    # One video at a time, so that what is in memory hangs on the views of a video and not on the batch.
    of_each_video = work(
        lambda index: _views(source, index, clip, test),
        [[index] for index in range(len(source))],
        lambda found: found[0],
        workers=source.workers(workers),
    )
    pending: list[tuple[Tensor, int, int]] = []
    for index, clips_VCTHW in enumerate(of_each_video):
        pending += [(clips_VCTHW[view], index, view) for view in range(views)]
        while len(pending) >= clips_per_batch:
            yield _collated(pending[:clips_per_batch])
            pending = pending[clips_per_batch:]
    if pending:
        yield _collated(pending)


def _views(source: VideoDataset, index: int, clip: ClipConfig, test: TestConfig) -> Tensor:
    """Return the (V, C, T, H, W) views of one video, temporal clips first; it is decoded once for all of them."""

    def all_clips(times_T: NDArray[np.float64], duration: float) -> NDArray[np.int64]:
        return test_indices(times_T, duration, clip, test.temporal_views, test.rule).ravel()

    clips = source.frames(index, all_clips).split(clip.frames)
    boxes = [_view_box(clips[0], test, view) for view in range(test.spatial_views)]
    repeated = [frames_TCHW for frames_TCHW in clips for _ in boxes]
    return crop_batch(repeated, boxes * len(clips), test.crop)


def _view_box(frames_TCHW: Tensor, test: TestConfig, view: int) -> CropBox:
    height, width = frames_TCHW.shape[2:]
    return spatial_view_box(height, width, test.crop, test.short_side, view, test.spatial_views)


def _collated(views: list[tuple[Tensor, int, int]]) -> ViewBatch:
    clips, videos, numbers = zip(*views, strict=True)
    return ViewBatch(torch.stack(clips), torch.tensor(videos), torch.tensor(numbers))


def display_frames(source: VideoDataset, index: int, clip: ClipConfig, test: TestConfig) -> NDArray[np.uint8]:
    """Return the (T, H, W, C) uint8 frames of a video's centre view, as the network sees them."""
    frames_TCHW = source.frames(index, lambda times_T, duration: centre_indices(times_T, duration, clip))
    box = _view_box(frames_TCHW, test, test.spatial_views // 2)
    return crop_batch([frames_TCHW], [box], test.crop)[0].permute(1, 2, 3, 0).cpu().numpy()
