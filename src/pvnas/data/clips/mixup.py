"""Clips mixed with others of their batch, and their labels with those: mixup and CutMix.

Zhang et al. 2018 (arXiv 1710.09412) and Yun et al. 2019 (arXiv 1905.04899). A clip is mixed with one of its own logical
shard, so that nothing hangs on the number of processes. Legend: N clips, C channels, T frames, H and W pixels.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pvnas.config import AugmentConfig


def mixed(clips_NCTHW: Tensor, labels_N: Tensor, augment: AugmentConfig, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the uint8 clips of a shard mixed with one another, the second label of each, and that one's share.

    Where both are on, half of the shards have mixup and half CutMix. The shares are float32 (N,). ``seed``: of all that
    is drawn for this shard.
    """
    draw, n = np.random.default_rng(seed), len(labels_N)
    u_kind, other_N, corners_N2 = draw.random(), draw.permutation(n), draw.random((n, 2))
    cuts = augment.cutmix > 0 and (augment.mixup == 0 or u_kind < 0.5)
    alpha = augment.cutmix if cuts else augment.mixup
    shares_N = draw.beta(alpha, alpha, n).astype(np.float32)  # the last draw: how many numbers it takes hangs on alpha
    others = torch.from_numpy(other_N).to(labels_N.device)
    if cuts:
        clips, shares_N = _pasted(clips_NCTHW, other_N, shares_N, corners_N2)
    else:
        x, shares = clips_NCTHW.float(), torch.from_numpy(shares_N).to(labels_N.device)
        clips = (x + shares[:, None, None, None, None] * (x[others] - x)).round_().to(torch.uint8)
    return clips, labels_N[others], torch.from_numpy(shares_N).to(labels_N.device)


def _pasted(
    clips_NCTHW: Tensor, other_N: np.ndarray, shares_N: np.ndarray, corners_N2: np.ndarray
) -> tuple[Tensor, np.ndarray]:
    """Return clips with a square of another one in all frames, and its true share of the pixels.

    The square lies within the crop, its upper left corner uniform over where it can be.
    """
    size, clips, true_N = clips_NCTHW.shape[-1], clips_NCTHW.clone(), np.empty_like(shares_N)
    for number, (other, share, corner) in enumerate(zip(other_N.tolist(), shares_N, corners_N2, strict=True)):
        side = round(size * math.sqrt(share))
        top, left = (int(u * (size - side + 1)) for u in corner)
        part = (..., slice(top, top + side), slice(left, left + side))
        clips[number][part] = clips_NCTHW[other][part]
        true_N[number] = side * side / (size * size)
    return clips, true_N
