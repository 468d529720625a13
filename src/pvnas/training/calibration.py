"""Do scores mean what they say: of videos that get 0.8, are four of five right?"""

from typing import Any

import torch
from torch import Tensor

BINS = 10


def calibration(scores_VK: Tensor, labels_V: Tensor, bins: int = BINS) -> dict[str, Any]:
    """Return how far the best classes' scores are from the share of videos that are right.

    ``ece``: the expected calibration error (Naeini et al., 2015; Guo et al., 2017) in percent, over bins of equal
    width; ``bins``: of those with videos the limits, the number of videos, their mean score and the share that is
    right, in percent. ``scores_VK``: of each video sum to 1. Without videos the error is None.
    """
    best_V, classes_V = scores_VK.double().max(1)
    right_V = (classes_V == labels_V).double()
    # (0.7, 0.8] and so on: a score of 1 belongs to the last one, and none is 0.
    bin_V = (best_V * bins).ceil().clamp(1, bins).long() - 1
    rows, error, n = list[dict[str, Any]](), 0.0, len(labels_V)
    for number in range(bins):
        inside_V = bin_V == number
        if not (count := int(inside_V.sum())):
            continue
        said, right = float(best_V[inside_V].mean()), float(right_V[inside_V].mean())
        error += count / n * abs(said - right)
        limits = {"low": 100.0 * number / bins, "high": 100.0 * (number + 1) / bins}
        rows.append({**limits, "n": count, "said": round(100 * said, 2), "right": round(100 * right, 2)})
    return {"ece": round(100 * error, 2) if n else None, "bins": rows}


def as_probabilities(scores_VK: Tensor, average: str) -> Tensor:
    """Return scores that were averaged as logits or after the softmax as probabilities."""
    return torch.softmax(scores_VK, 1) if average == "logits" else scores_VK
