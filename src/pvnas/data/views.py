"""Clips without chance: the centre clip of validation, and the many views of the test.

Legend: N clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pvnas.config import AugmentConfig, ClipConfig, TestConfig
from pvnas.data.loader import Batch, Sample, cropped
from pvnas.data.parallel import work
from pvnas.data.sampling import centre_indices, test_indices
from pvnas.data.source import VideoSource
from pvnas.data.transforms import CropBox, crop_batch, spatial_view_box, validation_box


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
    source: VideoSource, clip: ClipConfig, augment: AugmentConfig, clips_per_batch: int, *, workers: int = 0
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
    source: VideoSource, clip: ClipConfig, test: TestConfig, clips_per_batch: int, *, workers: int
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


def _views(source: VideoSource, index: int, clip: ClipConfig, test: TestConfig) -> Tensor:
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


def display_frames(source: VideoSource, index: int, clip: ClipConfig, test: TestConfig) -> NDArray[np.uint8]:
    """Return the (T, H, W, C) uint8 frames of a video's centre view, as the network sees them."""
    frames_TCHW = source.frames(index, lambda times_T, duration: centre_indices(times_T, duration, clip))
    box = _view_box(frames_TCHW, test, test.spatial_views // 2)
    return crop_batch([frames_TCHW], [box], test.crop)[0].permute(1, 2, 3, 0).cpu().numpy()
