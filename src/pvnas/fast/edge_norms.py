"""Batch norms of several edges side by side: what they normalise by, and how their running statistics move.

Legend: F folded frames, C channels of an edge, k edges; their channels lie side by side (kC).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.space.layers import BatchNorm


class BatchStatistics:
    """The statistics that a forward pass finds, gathered so that all running ones move in a few calls."""

    def __init__(self) -> None:
        self._gathered: list[tuple[Sequence[BatchNorm], Tensor, Tensor, int]] = []

    def add(self, layers: Sequence[BatchNorm], mean_kC: Tensor, var_kC: Tensor, count: int) -> None:
        """Gather what layers side by side have seen: mean and biased variance of ``count`` values a channel."""
        self._gathered.append((layers, mean_kC, var_kC, count))

    def extend(self, others: BatchStatistics) -> None:
        """Gather what another pass has."""
        self._gathered.extend(others._gathered)

    def move_running(self) -> None:
        """Move the running statistics as PyTorch's BN does, the variance without bias."""
        if not self._gathered:
            return
        factors = [count / max(count - 1, 1) for *_, count in self._gathered]
        unbiased = torch._foreach_mul([var for _, _, var, _ in self._gathered], factors)
        layers = [layer for some, *_ in self._gathered for layer in some]
        momentum = layers[0].momentum or 0.0
        for name, new in (("running_mean", [mean for _, mean, _, _ in self._gathered]), ("running_var", unbiased)):
            old: list[Tensor] = [getattr(layer, name) for layer in layers]
            parts = [
                part for (some, *_), value in zip(self._gathered, new, strict=True) for part in value.chunk(len(some))
            ]
            torch._foreach_lerp_(old, [part.to(old[0].dtype) for part in parts], momentum)
        self._gathered.clear()


class EdgeNorms(NamedTuple):
    """The BN layers of some edges side by side."""

    layers: Sequence[BatchNorm]
    gathered: BatchStatistics | None
    """Where the batch's statistics are gathered; None: the running ones stay as they are."""

    @property
    def eps(self) -> float:
        """What is added to variances."""
        return self.layers[0].eps

    @property
    def of_batch(self) -> bool:
        """Whether the batch's own statistics normalise, or the running ones."""
        return self.layers[0].training

    def of(self, kernels: Kernels, z_FCHW: Tensor) -> Normed:
        """Return their input (F, kC, H, W) with what they normalise it by."""
        if self.of_batch:
            return self.with_statistics(z_FCHW, kernels.batch_statistics(z_FCHW, self.eps))
        mean, var = (
            torch.cat([getattr(layer, name) for layer in self.layers]) for name in ("running_mean", "running_var")
        )
        return Normed(z_FCHW, mean, torch.rsqrt(var + self.eps))

    def with_statistics(self, z_FCHW: Tensor, statistics: tuple[Tensor, Tensor, Tensor]) -> Normed:
        """Return the same where mean, variance and 1 / sqrt(variance + eps) of the batch are known."""
        mean, var, inverse_std = statistics
        if self.gathered is not None:
            self.gathered.add(self.layers, mean, var, z_FCHW.numel() // z_FCHW.shape[1])
        return Normed(z_FCHW, mean, inverse_std)


def batch_norm_grad(
    kernels: Kernels, grad: Tensor, normed: Normed, *, of_batch: bool, sums: Tensor | None = None
) -> Tensor:
    """Return the gradient for the input of a BN, (F, kC, H, W), as ``Kernels.per_edge_grads`` does.

    ``sums``: what ``mixed_grad_sums`` would return, if it is known.
    """
    if sums is None:
        sums = kernels.mixed_grad_sums(grad, [normed], [], 1)
    (z_grad,) = kernels.per_edge_grads(grad, [normed], sums.new_ones(1, 1), sums, of_batch=of_batch)
    return z_grad
