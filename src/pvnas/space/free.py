"""The operations without parameters that leave a node of a relaxed cell, forward and backward written out.

Legend: F folded frames, C channels of the cell, k edges that leave the node, n operations, M = F*H*W*C elements.

Each is computed once a node, not once an edge; what differs between the edges are the mixing weights alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.space.dense import average_3x3_backward
from pvnas.space.layers import BatchNorm
from pvnas.space.mixing import Mixing, MixingGradient, leaving, targets
from pvnas.space.norms import Moments, Norms, NormState, norm_backward, normalise
from pvnas.space.sums import Sums, as_picture, as_row

POOLINGS = ("avg_pool_1x3x3", "max_pool_1x3x3")


class KeptFree(NamedTuple):
    """What the backward pass of the operations without parameters needs."""

    pooled: tuple[Tensor, Tensor]
    """What the BN of the poolings have seen."""
    states: list[NormState]
    indices: Tensor
    """Of the maxima, in half the bytes that PyTorch gives them."""


class Free:
    """Both poolings with their BN and, at stride 1, identity."""

    def __init__(self, operations: Sequence[str], source: int, stride: int, norms: list[BatchNorm]) -> None:
        """``operations``: of an edge; ``norms``: of the poolings of the node ``source``."""
        self.leaving, self.targets, self.norms = leaving(source), targets(source), norms
        self.window = ([3, 3], [stride, stride], [1, 1])
        self.pool_columns = [operations.index(name) for name in POOLINGS]  # neighbours
        self.identity = operations.index("identity") if stride == 1 else None

    def forward(self, x_FCHW: Tensor, sums: Sums, mixing: Mixing, moments: Moments | None) -> KeptFree:
        """Add all of them to the sums of the later nodes."""
        average = F.avg_pool2d(x_FCHW, *self.window, count_include_pad=False)
        largest, indices = torch.ops.aten.max_pool2d_with_indices(x_FCHW, *self.window)
        pooled = (average, largest)
        states = [Norms([norm], moments).state(z) for norm, z in zip(self.norms, pooled, strict=True)]
        kept = KeptFree(pooled, states, indices.int())
        self.add(kept, x_FCHW, sums, mixing)
        return kept

    def add(self, kept: KeptFree, x_FCHW: Tensor, sums: Sums, mixing: Mixing) -> None:
        """Add what a forward pass has made at these mixing weights."""
        for column, z, state in zip(self.pool_columns, kept.pooled, kept.states, strict=True):
            sums.add_normed(self.targets, z, state, mixing.scale(column, self.leaving))
        if self.identity is not None:
            sums.add(self.targets, x_FCHW, mixing.weights_SO[self.leaving, self.identity, None])

    def backward(
        self,
        gradient_kFHWC: Tensor,
        x_FCHW: Tensor,
        mixing: Mixing,
        kept: KeptFree,
        dx_FCHW: Tensor | None,
        d_mixing: MixingGradient | None,
    ) -> None:
        """Add the gradient for the node to ``dx_FCHW`` and that for the mixing weights to ``d_mixing``."""
        g_kM = gradient_kFHWC.flatten(1)
        parts = math.gcd(len(x_FCHW), torch.get_num_threads())
        if d_mixing is not None:
            self._mixing_backward(g_kM, x_FCHW, kept, d_mixing, parts)
        if dx_FCHW is None:
            return
        weights_kO = mixing.weights_SO[self.leaving].to(g_kM.dtype)
        average, largest = (
            norm_backward(as_picture(_weighted(weights_kO[:, column], g_kM, parts), z), z, state)[0]
            for column, z, state in zip(self.pool_columns, kept.pooled, kept.states, strict=True)
        )
        if x_FCHW.is_cuda:  # where PyTorch's is wrong, see there
            dx_FCHW += average_3x3_backward(average, x_FCHW.shape, self.window[1][0])
        else:
            dx_FCHW += torch.ops.aten.avg_pool2d_backward(average, x_FCHW, *self.window, False, False, None)
        dx_FCHW += torch.ops.aten.max_pool2d_with_indices_backward(
            largest, x_FCHW, *self.window, [1, 1], False, kept.indices.long()
        )
        if self.identity is not None:
            _add_weighted(as_row(dx_FCHW), weights_kO[:, self.identity], g_kM, parts)

    def _mixing_backward(
        self, g_kM: Tensor, x_FCHW: Tensor, kept: KeptFree, d_mixing: MixingGradient, parts: int
    ) -> None:
        normed_2M = g_kM.new_empty(len(POOLINGS), g_kM.shape[1])
        for z, state, y_M in zip(kept.pooled, kept.states, normed_2M, strict=True):
            normalise(z, state, out=as_picture(y_M, z))
        d_weights_kO = d_mixing.weights_SO[self.leaving]
        first, last = self.pool_columns
        d_weights_kO[:, first : last + 1] = _products(g_kM, normed_2M, parts)
        if self.identity is not None:
            d_weights_kO[:, self.identity] = _products(g_kM, as_row(x_FCHW)[None], parts)[:, 0]


# Products of a few very long rows, which PyTorch's matrix products do not share between threads: in parts of the rows,
# one a thread, they do.


def _in_parts(x_nM: Tensor, parts: int) -> Tensor:
    """Return the view (parts, n, M / parts)."""
    return x_nM.view(len(x_nM), parts, -1).transpose(0, 1)


def _products(x_kM: Tensor, y_nM: Tensor, parts: int) -> Tensor:
    """Return the products (k, n) of each row with each other."""
    if parts == 1:
        return x_kM @ y_nM.t()
    return torch.bmm(_in_parts(x_kM, parts), _in_parts(y_nM, parts).transpose(1, 2)).sum(0)


def _weighted(weights_k: Tensor, x_kM: Tensor, parts: int) -> Tensor:
    """Return the weighted sum (M,) of k rows."""
    if len(x_kM) == 1:
        return x_kM[0] * weights_k
    return torch.bmm(weights_k.expand(parts, 1, -1), _in_parts(x_kM, parts)).view(-1)


def _add_weighted(y_M: Tensor, weights_k: Tensor, x_kM: Tensor, parts: int) -> None:
    """Add the weighted sum of k rows to another row."""
    if len(x_kM) == 1:
        y_M.addcmul_(x_kM[0], weights_k)
    else:
        y_M.view(parts, 1, -1).baddbmm_(weights_k.expand(parts, 1, -1), _in_parts(x_kM, parts))
