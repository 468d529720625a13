"""Batches of clips, reproducible whoever decodes them: every choice is keyed by (seed, epoch, step, sample).

Legend: N clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pvnas.config import AugmentConfig, BatchConfig, ClipConfig
from pvnas.data.flips import NEVER, flipped_labels
from pvnas.data.order import Part, epoch_order
from pvnas.data.parallel import work
from pvnas.data.sampling import draws, training_indices
from pvnas.data.source import VideoSource
from pvnas.data.transforms import CropBox, crop_batch, random_crop_box
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
    part: Part = WHOLE,
) -> Iterator[Batch]:
    """Yield the batches of an epoch from ``first_step`` on, with random clips, crops and flips.

    The batches are the same for any number of workers and however often the run was interrupted; of several processes
    each gets the clips of its own logical shards. Raises UserError for a video that cannot be read and where a worker
    process is killed.
    """
    order = epoch_order(len(source), batch, seed=seed, epoch=epoch, stream=stream, shards_V=source.shards())
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
        self, source: VideoSource, clip: ClipConfig, augment: AugmentConfig, key: tuple[int, str, int]
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
