"""How right recipes are on the same videos, with errors that know that videos of one film are right or wrong together.

Pure functions. Legend: V videos, G groups of them (films).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Right = Mapping[str, float]
"""By a video's name, how often it was named rightly, 0 to 1: a mean over seeds."""


class Mean(NamedTuple):
    """A mean with its standard error, both in percent."""

    mean: float
    error: float


def clustered_mean(values: Right, group_of: Mapping[str, str]) -> Mean:
    """Return the mean over the videos, in percent, and its standard error over groups.

    The error is that of a mean of clusters: sqrt(G / (G - 1) * sum over groups of (sum of v - mean)^2) / V; NaN for one
    group. With groups of one video it is the usual sd / sqrt(V), and of paired differences the root of McNemar's
    variance.
    """
    mean = statistics.fmean(values.values())
    sums: dict[str, float] = defaultdict(float)
    for name, value in values.items():
        sums[group_of[name]] += value - mean
    g = len(sums)
    square = math.fsum(s * s for s in sums.values())
    error = math.sqrt(g / (g - 1) * square) / len(values) if g > 1 else math.nan
    return Mean(100 * mean, 100 * error)


def difference(right: Right, other: Right) -> dict[str, float]:
    """Return by video how much oftener ``right`` is right than ``other``, -1 to 1. Both are of the same videos."""
    if right.keys() != other.keys():
        raise ValueError("two recipes were tested on different videos")
    return {name: right[name] - other[name] for name in right}


def mean_over_seeds(runs: Sequence[Right]) -> dict[str, float]:
    """Return by video the mean over all runs that have tested it."""
    values: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for name, value in run.items():
            values[name].append(value)
    return {name: statistics.fmean(each) for name, each in values.items()}


def error_over_runs(differences: Sequence[float]) -> float:
    """Return the standard error of the mean of one number a run, of two or more runs: sd / sqrt(n)."""
    return statistics.stdev(differences) / math.sqrt(len(differences))
