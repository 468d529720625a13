"""95 % intervals of accuracies: how far chance alone, in which videos are in the test, may have moved them.

They take the test videos as drawn independently: of several videos of one scene or person the truth is wider.
"""

import math
from collections.abc import Sequence

Z = 1.959964  # of a normal distribution, 95 % lie within so many standard deviations


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the interval of a share of ``hits`` of ``n`` (E. B. Wilson, JASA 22, 1927).

    Brown, Cai and DasGupta (Statistical Science 16, 2001) recommend it for small n; it is not empty at 0 and n either.
    """
    share = hits / n
    centre = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mean_interval(hits_K: Sequence[int], n_K: Sequence[int]) -> tuple[float, float]:
    """Return the interval of the mean of shares, ``hits`` of ``n`` of each class; all n are above 0.

    From the Wilson intervals [l, u] of each share p, after Zou, Huang and Zhang (Computational Statistics & Data
    Analysis 53, 2009; MOVER): the mean minus sqrt(sum (p - l)^2) / K, and plus sqrt(sum (u - p)^2) / K. Unlike one from
    the sum of the variances p (1 - p) / n it is not empty where each class has one video.
    """
    shares = [hits / n for hits, n in zip(hits_K, n_K, strict=True)]
    limits = [wilson(hits, n) for hits, n in zip(hits_K, n_K, strict=True)]
    mean = math.fsum(shares) / len(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, limits, strict=True))) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, limits, strict=True))) / len(shares)
    return max(0.0, mean - below), min(1.0, mean + above)
