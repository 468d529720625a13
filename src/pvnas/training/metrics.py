"""Measures of a classifier as pure functions on tensors.

Legend: N samples, V videos, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def class_sums(scores_NK: Tensor, losses_N: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """Return sums over the clips of a batch: loss, correct, clips, and loss and clips by class (K,)."""
    losses_N, classes = losses_N.detach().double(), scores_NK.shape[1]
    zeros_K = torch.zeros(classes, dtype=torch.float64, device=labels_N.device)
    return {
        "loss": losses_N.sum(),
        "correct": (scores_NK.detach().argmax(1) == labels_N).sum().double(),
        "clips": torch.full((), len(labels_N), dtype=torch.float64, device=labels_N.device),
        "class_loss": zeros_K.index_add(0, labels_N, losses_N),
        "class_clips": zeros_K.index_add(0, labels_N, torch.ones_like(losses_N)),
    }


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
    """Return the mean over the classes present of the share of their samples that are right, from 0 to 1.

    0 where there are no samples.
    """
    counts_K = confusion_KK.sum(1)
    present_K = counts_K > 0
    if not bool(present_K.any()):
        return 0.0
    return float((confusion_KK.diagonal()[present_K].double() / counts_K[present_K]).mean())


class ViewAverage:
    """Averages the scores of every video over its views, and knows which views it has seen.

    ``average`` is softmax (the mean of probabilities) or logits. Sums are in float64.
    """

    def __init__(self, n_videos: int, classes: int, views: int, average: str = "softmax") -> None:
        if average not in ("softmax", "logits"):
            raise ValueError(f"average is {average!r}; must be softmax or logits")
        self.average = average
        self._sums_VK = torch.zeros(n_videos, classes, dtype=torch.float64)
        self._counts = torch.zeros(n_videos, views, dtype=torch.int64)  # (videos, views)

    def add(self, scores_NK: Tensor, videos_N: Tensor, views_N: Tensor) -> None:
        """Add the network's scores (logits) of a batch of views, in any order, on any device."""
        scores_NK = scores_NK.detach().cpu().double()
        if self.average == "softmax":
            scores_NK = scores_NK.softmax(1)
        videos_N, views_N = videos_N.cpu().long(), views_N.cpu().long()
        self._sums_VK.index_add_(0, videos_N, scores_NK)
        self._counts.index_put_((videos_N, views_N), torch.ones_like(videos_N), accumulate=True)

    def scores(self, names: Sequence[str] | None = None) -> Tensor:
        """Return the means: (V, K) float64.

        Raises ValueError that names (by ``names``, else by number) the videos of which a view is missing or was added
        twice, or whose scores are not numbers.
        """
        wrong = [
            *self._named((self._counts == 0).any(1), "lack views", names),
            *self._named((self._counts > 1).any(1), "have a view twice", names),
            *self._named(~self._sums_VK.isfinite().all(1), "have scores that are not numbers", names),
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self._sums_VK / self._counts.shape[1]

    def _named(self, chosen_V: Tensor, what: str, names: Sequence[str] | None, limit: int = 5) -> list[str]:
        indices = chosen_V.nonzero().flatten().tolist()
        if not indices:
            return []
        shown = ", ".join(str(names[i]) if names else str(i) for i in indices[:limit])
        return [f"{len(indices)} of {len(chosen_V)} videos {what}: {shown}{', ...' if len(indices) > limit else ''}"]
