"""Means with their spread, and differences with intervals that know of seeds and of videos. Pure functions.

Legend: S seeds, V videos, G groups of videos (films), D draws.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000


class Spread(NamedTuple):
    """Mean and standard deviation over ``n`` runs; the latter None for one run."""

    n: int
    mean: float
    sd: float | None


class Difference(NamedTuple):
    """How much better one arm is than another, in points of top-1, with a 95 % interval."""

    points: float
    low: float
    high: float
    seeds: int
    videos: int
    groups: int


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of one number a run."""
    return Spread(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def paired_difference(
    ours: Sequence[Mapping[str, bool]],
    theirs: Sequence[Mapping[str, bool]],
    group_of: Mapping[str, str],
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Return the mean over seeds and videos of right (1) minus right (0), in points, with a 95 % interval.

    ``ours[s]`` and ``theirs[s]`` are runs of one seed, by video. The interval is the percentile bootstrap (Efron, 1979)
    over both kinds of chance: in each draw seeds are drawn with replacement, and groups of videos, with all videos of
    each. Of very few seeds a bootstrap knows little: with one it is the chance of the videos alone. Raises ValueError
    for runs that were tested on different videos, or on none.
    """
    names = sorted(ours[0])
    if not names or any(sorted(run) != names for run in (*ours, *theirs)) or len(ours) != len(theirs):
        raise ValueError("paired runs are of the same seeds and the same test videos")
    gains_SV = np.array([[float(a[v]) - float(b[v]) for v in names] for a, b in zip(ours, theirs, strict=True)])
    groups, group_V = np.unique([group_of[name] for name in names], return_inverse=True)
    sums_SG = np.stack([np.bincount(group_V, row, len(groups)) for row in gains_SV]).astype(float)
    sizes_G = np.bincount(group_V, minlength=len(groups)).astype(float)
    means_D = _resampled_means(sums_SG, sizes_G, draws, np.random.default_rng(seed))
    low, high = np.quantile(means_D, [0.025, 0.975])
    return Difference(
        100 * float(gains_SV.mean()), 100 * float(low), 100 * float(high), len(ours), len(names), len(groups)
    )


def _resampled_means(
    sums_SG: NDArray[np.float64], sizes_G: NDArray[np.float64], draws: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean of each draw of seeds and groups."""
    n_seeds, n_groups = sums_SG.shape
    times_DS = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), draws)
    times_DG = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), draws)
    sums_D = np.einsum("ds,sg,dg->d", times_DS, sums_SG, times_DG, optimize=True)
    means_D: NDArray[np.float64] = sums_D / (n_seeds * (times_DG @ sizes_G))
    return means_D


def in_words(claim: str, difference: Difference) -> str:
    """Return what a claim's numbers do and do not show, in plain words."""
    runs = f"{difference.seeds} seed{'s' if difference.seeds > 1 else ''} of each"
    videos = f"{difference.videos} test videos" + (
        f" of {difference.groups} groups" if difference.groups < difference.videos else ""
    )
    if difference.low > 0:
        verdict = "The interval is above zero: these runs support it."
    elif difference.high < 0:
        verdict = "The interval is below zero: these runs speak against it."
    else:
        verdict = "The interval contains zero: these runs show neither that it holds nor that it does not."
    return (
        f"Claim: {claim}. Measured: {difference.points:+.1f} points (95 % interval {difference.low:+.1f} to "
        f"{difference.high:+.1f}; {runs}, {videos}). {verdict}"
    )
