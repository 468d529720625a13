"""Batch normalisation of several edges side by side, in parts: statistics, what they make of a tensor, and backward.

Legend: F folded frames, C channels of an edge, k edges; their channels lie side by side (kC).

In parts, since a weighted sum of normalised tensors needs no normalised tensor: with the statistics known, each is
added to the sum by one multiplication per element, and all their shifts at once in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.space.kernels import kernels_for
from pvnas.space.layers import BatchNorm

_REDUCED = (torch.bfloat16, torch.float16)


class NormState(NamedTuple):
    """What BN has found of its input."""

    mean: Tensor
    """Of the batch, or the running one, (kC,)."""
    inverse_std: Tensor
    running: tuple[Tensor, Tensor] | None
    """Running mean and variance, where they normalise."""
    eps: float


class Moments:
    """Statistics of a forward pass, gathered so that all running ones move in a few calls."""

    def __init__(self) -> None:
        self._found: list[tuple[Sequence[BatchNorm], Tensor, Tensor, int]] = []

    def add(self, norms: Sequence[BatchNorm], mean_kC: Tensor, var_kC: Tensor, count: int) -> None:
        """Remember what norms side by side have found in ``count`` values a channel."""
        self._found.append((norms, mean_kC, var_kC, count))

    def extend(self, others: Moments) -> None:
        """Remember what was gathered in another pass."""
        self._found.extend(others._found)

    def move(self) -> None:
        """Move the running statistics as PyTorch's BN does, the variance without bias."""
        if not self._found:
            return
        factors = [count / max(count - 1, 1) for *_, count in self._found]
        unbiased = torch._foreach_mul([var for _, _, var, _ in self._found], factors)
        norms = [norm for some, *_ in self._found for norm in some]
        momentum = norms[0].momentum or 0.0
        for name, new in (("running_mean", [mean for _, mean, _, _ in self._found]), ("running_var", unbiased)):
            old: list[Tensor] = [getattr(norm, name) for norm in norms]
            parts = [
                part for (some, *_), value in zip(self._found, new, strict=True) for part in value.chunk(len(some))
            ]
            torch._foreach_lerp_(old, [part.to(old[0].dtype) for part in parts], momentum)
        self._found.clear()


class Norms(NamedTuple):
    """BN layers of some edges side by side, and where their statistics are gathered, None: nowhere."""

    layers: Sequence[BatchNorm]
    moments: Moments | None

    @property
    def of_batch(self) -> bool:
        """Whether the batch's own statistics normalise."""
        return self.layers[0].training

    def state(self, x_FCHW: Tensor) -> NormState:
        """Return the statistics of (F, kC, H, W), or in evaluation mode the running ones."""
        first = self.layers[0]
        if not self.of_batch:
            mean, var = (
                torch.cat([getattr(norm, name) for norm in self.layers]) for name in ("running_mean", "running_var")
            )
            return NormState(mean, torch.rsqrt(var + first.eps), (mean, var), first.eps)
        return self.found(_batch_statistics(x_FCHW, first.eps), x_FCHW.numel() // x_FCHW.shape[1])

    def found(self, statistics: tuple[Tensor, Tensor, Tensor], count: int) -> NormState:
        """Return mean, variance and 1 / sqrt(variance + eps) of ``count`` values a channel of a batch."""
        mean, var, inverse_std = statistics
        if self.moments is not None:
            self.moments.add(self.layers, mean, var, count)
        return NormState(mean, inverse_std, None, self.layers[0].eps)


def normalise(x_FCHW: Tensor, state: NormState, out: Tensor | None = None) -> Tensor:
    """Return BN of (F, kC, H, W) without a scale, in ``out`` where one is given."""
    shift_kC = -state.mean * state.inverse_std
    shift, factor = (value.to(x_FCHW.dtype).view(-1, 1, 1) for value in (shift_kC, state.inverse_std))
    return torch.addcmul(shift, x_FCHW, factor, out=out)


def norm_backward(
    gradient_FCHW: Tensor,
    x_FCHW: Tensor,
    state: NormState,
    scale_kC: Tensor | None = None,
    wanted: tuple[bool, bool] = (True, False),
) -> tuple[Tensor, Tensor]:
    """Return the gradients of BN times a scale, for its input (F, kC, H, W) and the scale (kC,), as ``wanted``.

    Both tensors must be dense in channels-last memory.
    """
    dx_FCHW, dscale_kC, _ = torch.ops.aten.native_batch_norm_backward(
        gradient_FCHW,
        x_FCHW,
        scale_kC,
        *(state.running or (None, None)),
        state.mean,
        state.inverse_std,
        state.running is None,
        state.eps,
        [*wanted, False],
    )
    return dx_FCHW, dscale_kC


def _batch_statistics(x_FCHW: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and 1 / sqrt(variance + eps) of each channel, in fp32 where the input is in less."""
    kernels = kernels_for(x_FCHW)
    if kernels is not None:
        return kernels.statistics(x_FCHW, eps)
    running = (None, None)
    if x_FCHW.dtype in _REDUCED:  # statistics come in the precision of the running ones
        running = tuple(x_FCHW.new_zeros(x_FCHW.shape[1], dtype=torch.float32) for _ in range(2))  # type: ignore
    mean, var = torch.batch_norm_update_stats(x_FCHW, *running, 0.0)
    return mean, var, torch.rsqrt(var + eps)
