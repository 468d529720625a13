"""Validation on one centre clip per video, the test over many views of each, and the measures of both.

Legend: N samples, V videos, K classes.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.config import AugmentConfig, RunConfig
from pvnas.data.clips.loader import rows_of_test, test_batches, validation_batches
from pvnas.data.clips.mirrored_views import mirrored_labels, views_of_a_video
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.runtime.distributed import ALONE, World
from pvnas.runtime.progress import Progress, begin
from pvnas.training.intervals import mean_interval, wilson
from pvnas.training.step import scores_of

TOP_K = 5


@torch.inference_mode()
def validate(
    network: nn.Module,
    videos: VideoDataset,
    config: RunConfig,
    augment: AugmentConfig,
    device: torch.device,
    world: World = ALONE,
) -> dict[str, float]:
    """Return val_loss, val_top1 and val_top5 (percent) on each video's centre crop and clip; {} without videos.

    The processes of ``world`` share the work, and all get the same numbers.
    """
    if not videos.catalog.videos:
        return {}
    network.eval()
    clips, workers = max(8, config.train.batch.clips_per_shard), config.data.workers

    def measured_here() -> list[tuple[float, int, int]]:
        """Return loss, top-1 and top-5 of each batch of this process."""
        measured = []
        for batch in validation_batches(videos, config.clip, augment, clips, workers=workers, world=world):
            labels_N = batch.labels_N.to(device)
            scores_NK = scores_of(network, batch.clips_NCTHW.to(device), config.precision, config.clip)
            loss = float(F.cross_entropy(scores_NK, labels_N, reduction="sum"))
            top1, top5 = (int(topk_correct(scores_NK, labels_N, k)) for k in (1, TOP_K))
            measured.append((loss, top1, top5))
        return measured

    by_process = world.exchange(world.together(measured_here))
    loss, top1, top5 = (sum(values) for values in zip(*chain(*by_process), strict=True))  # in the order of the batches
    n = len(videos.catalog.videos)
    return {"val_loss": loss / n, "val_top1": 100.0 * top1 / n, "val_top5": 100.0 * top5 / n}


@torch.inference_mode()
def score_views(
    network: nn.Module,
    videos: VideoDataset,
    config: RunConfig,
    device: torch.device,
    progress: Progress | None = None,
    world: World = ALONE,
) -> Tensor:
    """Return the (V, K) scores of every video, averaged over all its views, by a network in evaluation mode.

    Networks made ready by pvnas.fast.for_inference are faster. The processes of ``world`` share the videos, and all get
    the same scores. Raises ValueError that names the video when a view is
    missing or counted twice, and UserError when scores are not numbers.
    """
    test, catalog = config.test, videos.catalog
    views, labels = views_of_a_video(test, catalog.classes), mirrored_labels(catalog.classes, test.flip)
    average = ViewAverage(len(catalog.videos), len(catalog.classes), views, test.average, labels)
    if not catalog.videos:
        return average.scores()
    network.eval()
    clips = max(8, config.train.batch.clips_per_shard)
    rows = rows_of_test(videos, test, clips, world)

    def score_here() -> None:
        with begin(progress, "test", len(rows) * views) as task:
            for batch in test_batches(videos, config.clip, test, clips, rows=rows, workers=config.data.workers):
                scores_NK = scores_of(network, batch.clips_NCTHW.to(device), config.precision, config.clip)
                average.add(scores_NK, batch.videos_N, batch.views_N)
                task.advance(len(batch.videos_N), clips=len(batch.videos_N))

    world.together(score_here, patient=True)
    average.join(rows, world)
    return world.together(lambda: average.scores(names=[video.name for video in catalog.videos]))


def score_table(scores_VK: Tensor, labels_V: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return top-1, top-5 and mean-class accuracy (percent, 2 decimals), the confusion matrix and accuracy by class.

    With 95 % intervals of top-1 and of the mean, which is over the ``n_classes_tested`` classes that have videos.
    Without any the accuracies are None.
    """
    k = min(TOP_K, len(classes))
    confusion_KK = confusion_matrix(scores_VK.argmax(1), labels_V, len(classes))
    present_K = confusion_KK.sum(1)
    by_class = [
        round(100.0 * int(hits) / int(n), 2) if n else None
        for hits, n in zip(confusion_KK.diagonal(), present_K, strict=True)
    ]
    n = len(labels_V)
    right = [int(topk_correct(scores_VK, labels_V, each)) for each in (1, k)]
    top1, top5 = (round(100.0 * hits / n, 2) if n else None for hits in right)
    tested = [(int(hits), int(n)) for hits, n in zip(confusion_KK.diagonal(), present_K, strict=True) if n]
    return {
        "top1": top1,
        "top1_interval": _percent(wilson(right[0], n)) if n else None,
        "top5": top5,
        "k": k,
        "mean_class": round(100.0 * mean_class_accuracy(confusion_KK), 2) if n else None,
        "mean_class_interval": _percent(mean_interval(*zip(*tested, strict=True))) if n else None,
        "n_classes_tested": len(tested),
        "class_accuracy": by_class,
        "confusion": confusion_KK.tolist(),
    }


def _percent(interval: tuple[float, float]) -> list[float]:
    return [round(100.0 * share, 2) for share in interval]


def topk_correct(scores_NK: Tensor, labels_N: Tensor, k: int) -> Tensor:
    """Return how many labels are among the ``k`` highest scores of their row: int64, shape ().

    ``k`` is clamped to the number of classes, with which every sample is right: say so where the number is shown. Of
    equal scores the lower class comes first, as in argmax; a row with NaN is wrong. Raises ValueError at k < 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; must be 1 or more")
    classes = scores_NK.shape[1]
    score_N1 = scores_NK.gather(1, labels_N[:, None])
    lower_NK = torch.arange(classes, device=scores_NK.device) < labels_N[:, None]
    rank_N = ((scores_NK > score_N1) | ((scores_NK == score_N1) & lower_NK)).sum(1)
    return ((rank_N < min(k, classes)) & ~scores_NK.isnan().any(1)).sum()


def confusion_matrix(predictions_N: Tensor, labels_N: Tensor, classes: int) -> Tensor:
    """Return the counts by (truth, prediction): (K, K) int64. Raises ValueError at a class that is not one of K."""
    for what, values_N in (("prediction", predictions_N), ("label", labels_N)):
        if len(values_N) and (int(values_N.min()) < 0 or int(values_N.max()) >= classes):
            raise ValueError(f"a {what} is outside of the {classes} classes")
    pairs_N = labels_N.long() * classes + predictions_N.long()
    return torch.bincount(pairs_N, minlength=classes * classes).reshape(classes, classes)


def mean_class_accuracy(confusion_KK: Tensor) -> float:
    """Return the mean over the classes present of the share of their samples that are right; 0 without samples."""
    counts_K = confusion_KK.sum(1)
    present_K = counts_K > 0
    if not bool(present_K.any()):
        return 0.0
    return float((confusion_KK.diagonal()[present_K].double() / counts_K[present_K]).mean())


class ViewAverage:
    """Averages the scores of every video over its views, and knows which views it has seen.

    ``average`` is softmax (the mean of probabilities) or logits. Sums are in float64. With ``mirrored_labels`` the
    second half of the views is mirrored: a class has there the score of the class that its videos show.
    """

    def __init__(
        self,
        n_videos: int,
        classes: int,
        views: int,
        average: str = "softmax",
        mirrored_labels: Sequence[int] | None = None,
    ) -> None:
        if average not in ("softmax", "logits"):
            raise ValueError(f"average is {average!r}; must be softmax or logits")
        self.average = average
        self.mirrored_K = None if mirrored_labels is None else torch.tensor(mirrored_labels)
        self._sums_VK = torch.zeros(n_videos, classes, dtype=torch.float64)
        self._counts = torch.zeros(n_videos, views, dtype=torch.int64)  # (videos, views)

    def add(self, scores_NK: Tensor, videos_N: Tensor, views_N: Tensor) -> None:
        """Add the network's scores (logits) of a batch of views, in any order, on any device."""
        scores_NK = scores_NK.detach().cpu().double()
        if self.average == "softmax":
            scores_NK = scores_NK.softmax(1)
        videos_N, views_N = videos_N.cpu().long(), views_N.cpu().long()
        if self.mirrored_K is not None:
            is_mirrored_N1 = views_N[:, None] >= self._counts.shape[1] // 2
            scores_NK = torch.where(is_mirrored_N1, scores_NK[:, self.mirrored_K], scores_NK)
        self._sums_VK.index_add_(0, videos_N, scores_NK)
        self._counts.index_put_((videos_N, views_N), torch.ones_like(videos_N), accumulate=True)

    def join(self, rows: range, world: World) -> None:
        """Take in what the other processes have added: each to its own rows, which follow each other."""
        self._sums_VK = torch.cat(world.gather(self._sums_VK[rows.start : rows.stop]))
        self._counts = torch.cat(world.gather(self._counts[rows.start : rows.stop]))

    def scores(self, names: Sequence[str] | None = None) -> Tensor:
        """Return the means: (V, K) float64.

        Raises ValueError that names (by ``names``, else by number) the videos of which a view is missing or was added
        twice, and UserError those whose scores are not numbers.
        """

        def problem(what: str, wrong_V: Tensor) -> list[str]:
            indices = wrong_V.nonzero().flatten().tolist()
            shown = ", ".join(str(names[i]) if names else str(i) for i in indices[:5])
            more = ", ..." if len(indices) > 5 else ""
            return [f"{len(indices)} of {len(wrong_V)} videos {what}: {shown}{more}"] if indices else []

        problems = problem("lack views", (self._counts == 0).any(1))
        problems += problem("have a view twice", (self._counts > 1).any(1))
        if problems:
            raise ValueError("; ".join(problems))
        if problems := problem("have scores that are not numbers", ~self._sums_VK.isfinite().all(1)):
            again = "train the network again, in another --dir, with a lower --train.weights.lr"
            raise UserError(f"{problems[0]}; the training diverged: {again}")
        return self._sums_VK / self._counts.shape[1]
