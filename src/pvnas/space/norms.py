"""Batch normalisation of several edges side by side, forward and backward written out.

Legend: F folded frames, C channels of an edge, k edges; their channels lie side by side (kC).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pvnas.space.layers import BatchNorm

_native: Any = torch.ops.aten.native_batch_norm


class NormState(NamedTuple):
    """What the backward pass of BN needs beside its input."""

    mean: Tensor
    """Of the batch, (kC,); empty where running statistics were used."""
    inverse_std: Tensor
    running: tuple[Tensor, Tensor] | None
    """Running mean and variance, where they normalised."""
    eps: float


def norm_forward(x_FCHW: Tensor, norms: Sequence[BatchNorm], scale_k: Tensor | None = None) -> tuple[Tensor, NormState]:
    """Return BN of (F, kC, H, W), the channels of one norm after another, each times its scale where one is given.

    Running statistics move as those of the single norms would.
    """
    first = norms[0]
    momentum = first.momentum or 0.0
    scale = _per_channel(scale_k, x_FCHW)
    if first.training and momentum == 0.0:  # the alpha step: nothing is remembered
        y_FCHW, mean, inverse_std = _native(x_FCHW, scale, None, None, None, True, 0.0, first.eps)
        return y_FCHW, NormState(mean, inverse_std, None, first.eps)
    statistics = [[norm.running_mean for norm in norms], [norm.running_var for norm in norms]]
    mean_kC, var_kC = (torch.cat(parts) for parts in statistics)  # type: ignore[arg-type]
    y_FCHW, mean, inverse_std = _native(x_FCHW, scale, None, mean_kC, var_kC, first.training, momentum, first.eps)
    if not first.training:
        return y_FCHW, NormState(mean, inverse_std, (mean_kC, var_kC), first.eps)
    for parts, value in zip(statistics, (mean_kC, var_kC), strict=True):
        torch._foreach_copy_(parts, list(value.chunk(len(norms))))  # type: ignore[arg-type]
    return y_FCHW, NormState(mean, inverse_std, None, first.eps)


def norm_again(x_FCHW: Tensor, state: NormState) -> Tensor:
    """Return what ``norm_forward`` has returned without a scale, from what it has found of the batch."""
    mean, var = state.running or (state.mean, state.inverse_std.pow(-2) - state.eps)
    y_FCHW: Tensor = _native(x_FCHW, None, None, mean, var, False, 0.0, state.eps)[0]
    return y_FCHW


def norm_backward(
    gradient_FCHW: Tensor,
    x_FCHW: Tensor,
    state: NormState,
    scale_k: Tensor | None = None,
    *,
    of_input: bool = True,
    of_scale: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the gradients for the input (F, kC, H, W) and the scale (k,) of ``norm_forward``, where asked for.

    Both tensors must be dense in channels-last memory.
    """
    scale = _per_channel(scale_k, x_FCHW)
    dx_FCHW, dscale, _ = torch.ops.aten.native_batch_norm_backward(
        gradient_FCHW,
        x_FCHW,
        scale,
        *(state.running or (None, None)),
        state.mean,
        state.inverse_std,
        state.running is None,
        state.eps,
        [of_input, of_scale, False],
    )
    return dx_FCHW, dscale.view(len(scale_k), -1).sum(1) if of_scale and scale_k is not None else dscale


def _per_channel(scale_k: Tensor | None, x_FCHW: Tensor) -> Tensor | None:
    """Return the scale of each channel, in memory of its own: PyTorch reads an expanded one as if it lay dense."""
    return None if scale_k is None else scale_k.repeat_interleave(x_FCHW.shape[1] // len(scale_k))
