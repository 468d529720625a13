"""Validation on one centre clip per video, and the test over many views of each."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.config import AugmentConfig, RunConfig
from pvnas.data.clips.loader import test_batches, validation_batches
from pvnas.data.dataset import VideoDataset
from pvnas.runtime.progress import Progress
from pvnas.training.metrics import ViewAverage, confusion_matrix, mean_class_accuracy, topk_correct
from pvnas.training.step import scores_of

TOP_K = 5


@torch.inference_mode()
def validate(
    network: nn.Module, videos: VideoDataset, config: RunConfig, augment: AugmentConfig, device: torch.device
) -> dict[str, float]:
    """Return val_loss, val_top1 and val_top5 (percent) on the centre crop of each video's centre clip.

    An empty dictionary where there are no validation videos.
    """
    if not videos.catalog.videos:
        return {}
    network.eval()
    loss = top1 = top5 = 0.0
    clips = max(8, config.train.batch.clips_per_shard)
    for batch in validation_batches(videos, config.clip, augment, clips, workers=config.data.workers):
        labels_N = batch.labels_N.to(device)
        scores_NK = scores_of(network, batch.clips_NCTHW.to(device), config.precision)
        loss += float(F.cross_entropy(scores_NK, labels_N, reduction="sum"))
        top1 += int(topk_correct(scores_NK, labels_N, 1))
        top5 += int(topk_correct(scores_NK, labels_N, TOP_K))
    n = len(videos.catalog.videos)
    return {"val_loss": loss / n, "val_top1": 100.0 * top1 / n, "val_top5": 100.0 * top5 / n}


@torch.inference_mode()
def score_views(
    network: nn.Module, videos: VideoDataset, config: RunConfig, device: torch.device, progress: Progress | None = None
) -> Tensor:
    """Return the (V, K) scores of every video, averaged over all its views, by a network in evaluation mode.

    Networks made ready by pvnas.fast.for_inference are faster. Raises ValueError that names the video when a view is
    missing or counted twice.
    """
    test, catalog = config.test, videos.catalog
    views = test.temporal_views * test.spatial_views
    average = ViewAverage(len(catalog.videos), len(catalog.classes), views, test.average)
    network.eval()
    clips = max(8, config.train.batch.clips_per_shard)
    batches = test_batches(videos, config.clip, test, clips, workers=config.data.workers)
    task = progress.task("test", total=len(catalog.videos) * views) if progress else None
    with task or nullcontext() as bar:
        for batch in batches:
            scores_NK = scores_of(network, batch.clips_NCTHW.to(device), config.precision)
            average.add(scores_NK.cpu(), batch.videos_N, batch.views_N)
            if bar is not None:
                bar.advance(len(batch.videos_N), clips=len(batch.videos_N))
    return average.scores(names=[video.path for video in catalog.videos])


def score_table(scores_VK: Tensor, labels_V: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return top-1, top-5 and mean-class accuracy (percent, 2 decimals), the confusion matrix and accuracy by class."""
    k = min(TOP_K, len(classes))
    confusion_KK = confusion_matrix(scores_VK.argmax(1), labels_V, len(classes))
    present_K = confusion_KK.sum(1)
    by_class = [
        round(100.0 * int(hits) / int(n), 2) if n else None
        for hits, n in zip(confusion_KK.diagonal(), present_K, strict=True)
    ]
    n = max(len(labels_V), 1)
    return {
        "top1": round(100.0 * int(topk_correct(scores_VK, labels_V, 1)) / n, 2),
        "top5": round(100.0 * int(topk_correct(scores_VK, labels_V, k)) / n, 2),
        "k": k,
        "mean_class": round(100.0 * mean_class_accuracy(confusion_KK), 2),
        "class_accuracy": by_class,
        "confusion": confusion_KK.tolist(),
    }
