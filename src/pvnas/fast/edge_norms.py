"""Batch norms of several edges side by side: what they normalise by, and how their running statistics move.

Legend: F folded frames, C channels of an edge, k edges; their channels lie side by side (kC).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.space.layers import BatchNorm


class BatchStatistics(list[tuple[Sequence[BatchNorm], Tensor, Tensor, int]]):
    """What a forward pass finds, gathered so that all running statistics move in a few calls.

    Layers side by side, the mean and the biased variance (kC,) of what they have seen, and how many values a channel.
    """

    def move_running(self) -> None:
        """Move the running statistics as PyTorch's BN does, the variance without bias."""
        if not self:
            return
        layers_of, means, variances, counts = zip(*self, strict=True)
        unbiased = torch._foreach_mul(variances, [count / max(count - 1, 1) for count in counts])
        layers = [layer for some in layers_of for layer in some]
        for name, new in (("running_mean", means), ("running_var", unbiased)):
            old: list[Tensor] = [getattr(layer, name) for layer in layers]
            parts = [part for some, value in zip(layers_of, new, strict=True) for part in value.chunk(len(some))]
            torch._foreach_lerp_(old, [part.to(old[0].dtype) for part in parts], layers[0].momentum or 0.0)
        self.clear()


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
        mean, var = self._joined("running_mean"), self._joined("running_var")
        return Normed(z_FCHW, mean, torch.rsqrt(var + self.eps), *self._parameters())

    def with_statistics(self, z_FCHW: Tensor, statistics: tuple[Tensor, Tensor, Tensor]) -> Normed:
        """Return the same where mean, variance and 1 / sqrt(variance + eps) of the batch are known."""
        mean, var, inverse_std = statistics
        if self.gathered is not None:
            self.gathered.append((self.layers, mean, var, z_FCHW.numel() // z_FCHW.shape[1]))
        return Normed(z_FCHW, mean, inverse_std, *self._parameters())

    def _parameters(self) -> tuple[Tensor, ...]:
        """Return weight and bias (kC,); nothing of norms without parameters."""
        if self.layers[0].weight is None:
            return ()
        return self._joined("weight").detach(), self._joined("bias").detach()

    def _joined(self, name: str) -> Tensor:
        tensors: list[Tensor] = [getattr(layer, name) for layer in self.layers]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def batch_norm_grad(
    kernels: Kernels,
    grad: Tensor,
    normed: Normed,
    *,
    of_batch: bool,
    sums: Tensor | None = None,
    scales: Tensor | None = None,
) -> tuple[Any, Tensor]:
    """Return the gradient for the input of a BN, (F, kC, H, W), as ``Kernels.per_edge_grads`` does, and ``sums``.

    ``sums``: what ``mixed_grad_sums`` returns, if it is known: the gradients for bias and weight, (2, 1, kC).
    ``scales``: of the gradient, for each clip.
    """
    if sums is None:
        sums = kernels.mixed_grad_sums(grad, [normed], [], 1, scales)
    ones = sums.new_ones(1, 1)
    (z_grad,) = kernels.per_edge_grads(grad, [normed], ones, sums, of_batch=of_batch, scales=scales)
    return z_grad, sums
