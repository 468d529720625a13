"""What enters a relaxed cell and what leaves each of its nodes, forward and backward written out.

Legend: N clips, T frames, F = N*T folded frames, C channels of the cell, k edges that leave one node, n operations
without parameters, E = 14 edges, O operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.space.branches import BRANCHES, Branch, Fan, Input, Kept, Kernels, Pointwise
from pvnas.space.genotype import EDGES
from pvnas.space.layers import BatchNorm
from pvnas.space.norms import NormState, norm_backward, norm_forward
from pvnas.space.operations import FactorizedReduction

POOLINGS = ("avg_pool_1x3x3", "max_pool_1x3x3")
# Edges run together while one tensor of theirs has no more elements and channels than this: small edges are mostly the
# cost of calls, large ones run fastest alone, each out of the caches. On a GPU a call costs more and caches count less.
ELEMENTS_TOGETHER, CHANNELS_TOGETHER = 2**19, 256


class Entry:
    """What brings an output of an earlier cell to this cell's width: ReLU, convolution, BN."""

    def __init__(self, layers: nn.Module) -> None:
        reduction = isinstance(layers, FactorizedReduction)
        self.branch: Branch = BRANCHES["identity"] if reduction else Pointwise()
        self.stride = 2 if reduction else 1
        self.convolutions = [layer for (layer,) in _by_place([layers], nn.Conv3d)]
        self.norms: list[BatchNorm] = _by_place([layers], BatchNorm)[0]

    def kernels(self) -> list[Tensor]:
        """Return the kernels."""
        return [layer.weight for layer in self.convolutions]

    def forward(self, x_FCHW: Tensor, kernels: Sequence[Tensor], fan: Fan) -> tuple[Tensor, KeptEntry]:
        """Return the cell's input (F, C, H', W') from an earlier output of any width."""
        own = Fan(1, self.stride, fan.frames, fan.kernel_gradients)
        joined = [_joined([kernel], x_FCHW.dtype) for kernel in kernels]
        z_FCHW, kept = self.branch.forward(Input(x_FCHW.clamp_min(0), own), joined, [])
        y_FCHW, state = norm_forward(z_FCHW, self.norms)
        return y_FCHW, KeptEntry(joined, own, KeptBranch(kept, z_FCHW, state))

    def backward(self, gradient: Tensor, x_FCHW: Tensor, kept: KeptEntry) -> tuple[Tensor, list[Tensor | None]]:
        """Return the gradients for the earlier output and for the kernels."""
        r_FCHW, branch = x_FCHW.clamp_min(0), kept.branch
        g, _ = norm_backward(gradient, branch.x_FCHW, branch.state)
        dr, d_kernels = self.branch.backward(g, Input(r_FCHW, kept.fan), kept.kernels, branch.kept)
        return torch.ops.aten.threshold_backward(dr, r_FCHW, 0), list(d_kernels)


class _Edges(NamedTuple):
    """Neighbouring edges that leave one node, with all that they compute by."""

    first: int
    """Among the node's edges."""
    kernels: dict[str, Kernels]
    fan: Fan

    @property
    def part(self) -> slice:
        return slice(self.first, self.first + self.fan.edges)

    def channels(self, width: int) -> slice:
        return slice(self.first * width, (self.first + self.fan.edges) * width)


class KeptBranch(NamedTuple):
    """What a branch's backward pass needs, and its last BN's."""

    kept: Kept
    x_FCHW: Tensor
    """Input of the last BN."""
    state: NormState


class KeptEntry(NamedTuple):
    """What the backward pass of an entry needs."""

    kernels: Kernels
    fan: Fan
    branch: KeptBranch


class KeptFree(NamedTuple):
    """What the backward pass of the operations without parameters needs."""

    pooled: list[Tensor]
    """Outputs of the poolings, after BN."""
    states: list[NormState]
    indices: Tensor
    """Of the maxima, in half the bytes that PyTorch gives them."""


class KeptSource(NamedTuple):
    """What the backward pass of a node needs."""

    free: KeptFree
    groups: list[tuple[_Edges, dict[str, KeptBranch]]]


class Source:
    """What leaves one node: forward adds to the sums of the later nodes, backward to the gradient of this one."""

    def __init__(self, operations: Sequence[str], number: int, stride: int, edges: list[Any], pools: Any) -> None:
        """``edges``: of each edge that leaves, its operations with parameters by name; ``pools``: the node's own."""
        self.number, self.stride, self.edges = number, stride, len(edges)
        self.leaving = [edge for edge, (_, source) in enumerate(EDGES) if source == number]
        self.names = list(edges[0])
        self.free = [*POOLINGS, *(["identity"] if "identity" not in self.names else [])]
        self.columns = {name: column for column, name in enumerate(operations)}
        # By operation, then by place in it, then by edge. Gathered once: a walk over modules costs more than a kernel.
        self.convolutions = {name: _by_place([edge[name] for edge in edges], nn.Conv3d) for name in self.names}
        self.norms = {name: _by_place([edge[name] for edge in edges], BatchNorm) for name in self.names}
        self.pool_norms: list[BatchNorm] = [pools[name][1] for name in POOLINGS]

    def kernels(self) -> list[Tensor]:
        """Return the kernels by operation, by place in it, by edge."""
        return [layer.weight for places in self.convolutions.values() for layers in places for layer in layers]

    # ---- forward

    def forward(
        self, x_FCHW: Tensor, sums_FCHW: Tensor, weights_EO: Tensor, kernels: list[Tensor], fan: Fan
    ) -> KeptSource:
        """Add this node's (F, C, H, W) through all operations to the later nodes' sums, (F, kC, H', W')."""
        weights_kO = weights_EO[self.leaving]
        free = self._add_free(x_FCHW, sums_FCHW, weights_kO)
        groups = []
        r_FCHW = x_FCHW.clamp_min(0)
        for edges in self._groups(kernels, fan, sums_FCHW):
            own_FCHW = sums_FCHW[:, edges.channels(x_FCHW.shape[1])]
            groups.append((edges, self._add_branches(edges, r_FCHW, own_FCHW, weights_kO[edges.part])))
        return KeptSource(free, groups)

    def _groups(self, kernels: list[Tensor], fan: Fan, sums_FCHW: Tensor) -> Iterator[_Edges]:
        """Yield the edges in groups that run together, with their kernels joined."""
        k = self.edges
        size = self._edges_together(sums_FCHW)
        rest = iter(kernels)
        places = {name: [[next(rest) for _ in layers] for layers in self.convolutions[name]] for name in self.names}
        for first in range(0, k, size):
            part = slice(first, first + size)
            joined: dict[str, Kernels] = {
                name: [_joined(place[part], sums_FCHW.dtype) for place in places[name]] for name in self.names
            }
            yield _Edges(first, joined, Fan(min(size, k - first), self.stride, fan.frames, fan.kernel_gradients))

    def _edges_together(self, sums_FCHW: Tensor) -> int:
        """Return how many of the k edges run at once."""
        if sums_FCHW.device.type != "cpu":
            return self.edges
        elements, channels = sums_FCHW.numel() // self.edges, sums_FCHW.shape[1] // self.edges
        return max(1, min(self.edges, ELEMENTS_TOGETHER // elements, CHANNELS_TOGETHER // channels))

    def _add_branches(
        self, edges: _Edges, r_FCHW: Tensor, sums_FCHW: Tensor, weights_kO: Tensor
    ) -> dict[str, KeptBranch]:
        found = {}
        inputs = Input(r_FCHW, edges.fan)
        for name in self.names:
            *within, last = [layers[edges.part] for layers in self.norms[name]]
            norms = within[0] if within else []
            x_FCHW, kept = BRANCHES[name].forward(inputs, edges.kernels[name], norms)
            y_FCHW, state = norm_forward(x_FCHW, last, weights_kO[:, self.columns[name]])
            sums_FCHW.add_(y_FCHW)
            found[name] = KeptBranch(kept, x_FCHW, state)
        return found

    def _add_free(self, x_FCHW: Tensor, sums_FCHW: Tensor, weights_kO: Tensor) -> KeptFree:
        """Poolings with BN, and identity at stride 1."""
        stride = self.stride
        average = F.avg_pool2d(x_FCHW, 3, stride, 1, count_include_pad=False)
        largest, indices = torch.ops.aten.max_pool2d_with_indices(x_FCHW, [3, 3], [stride, stride], [1, 1])
        normed = [norm_forward(y, [norm]) for y, norm in zip((average, largest), self.pool_norms, strict=True)]
        kept = KeptFree([y for y, _ in normed], [state for _, state in normed], indices.int())
        mixed_kM = self._free_weights(weights_kO, x_FCHW.dtype) @ self._free_rows(x_FCHW, kept)
        _edges_first(sums_FCHW, self.edges).add_(mixed_kM.view(self.edges, -1, x_FCHW.shape[1]))
        return kept

    def _free_rows(self, x_FCHW: Tensor, kept: KeptFree) -> Tensor:
        """Return the outputs of the operations without parameters, (n, M) with M = F*H'*W'*C."""
        outputs = [*kept.pooled, x_FCHW] if "identity" in self.free else kept.pooled
        return torch.stack([x.permute(0, 2, 3, 1).flatten() for x in outputs])

    def _free_weights(self, weights_kO: Tensor, dtype: torch.dtype) -> Tensor:
        return weights_kO[:, [self.columns[name] for name in self.free]].to(dtype)

    # ---- backward

    def backward(
        self,
        gradient_FCHW: Tensor,
        x_FCHW: Tensor,
        weights_EO: Tensor,
        kept: KeptSource,
        d_weights_EO: Tensor | None,
        of_input: bool,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for this node and its kernels, from that of the later nodes' sums (F, kC, H', W').

        The gradient for the mixing weights goes into ``d_weights_EO`` where there is one. ``of_input`` False: nothing
        else is wanted.
        """
        weights_kO = weights_EO[self.leaving]
        d_weights_kO = None if d_weights_EO is None else torch.zeros_like(weights_kO)
        r_FCHW = x_FCHW.clamp_min(0)
        dr_FCHW = torch.zeros_like(r_FCHW) if of_input else None
        kernels: dict[tuple[str, int], list[Tensor | None]] = {}
        while kept.groups:  # what has been used is given back at once
            edges, branches = kept.groups.pop(0)
            part, inputs = edges.part, Input(r_FCHW, edges.fan)
            own_FCHW = dense(gradient_FCHW[:, edges.channels(x_FCHW.shape[1])])
            for name in self.names:
                branch, scale_k = branches.pop(name), weights_kO[part, self.columns[name]]
                of_scale = d_weights_kO is not None
                g, d_scale = norm_backward(
                    own_FCHW, branch.x_FCHW, branch.state, scale_k, of_input=of_input, of_scale=of_scale
                )
                if d_weights_kO is not None:
                    d_weights_kO[part, self.columns[name]] = d_scale
                d_kernels: Sequence[Tensor | None] = [None] * len(edges.kernels[name])
                if dr_FCHW is not None:
                    found = BRANCHES[name].backward(g, inputs, edges.kernels[name], branch.kept)
                    dr_FCHW += found.r_FCHW
                    d_kernels = found.kernels
                for place, d_kernel in enumerate(d_kernels):
                    parts = [None] * edges.fan.edges if d_kernel is None else d_kernel.chunk(edges.fan.edges)
                    kernels.setdefault((name, place), []).extend(parts)
        if dr_FCHW is not None:  # now of x, past the ReLU
            torch.ops.aten.threshold_backward.grad_input(dr_FCHW, r_FCHW, 0, grad_input=dr_FCHW)
        self._free_backward(gradient_FCHW, x_FCHW, weights_kO, kept.free, dr_FCHW, d_weights_kO)
        if d_weights_EO is not None and d_weights_kO is not None:
            d_weights_EO[self.leaving] = d_weights_kO
        return dr_FCHW, [d_kernel for parts in kernels.values() for d_kernel in parts]

    def _free_backward(
        self,
        gradient_FCHW: Tensor,
        x_FCHW: Tensor,
        weights_kO: Tensor,
        kept: KeptFree,
        dx_FCHW: Tensor | None,
        d_weights_kO: Tensor | None,
    ) -> None:
        """Add the gradient of the operations without parameters to ``dx_FCHW`` and to ``d_weights_kO``."""
        k, c = self.edges, x_FCHW.shape[1]
        g_kM = _edges_first(gradient_FCHW, k).reshape(k, -1)
        if d_weights_kO is not None:
            columns = [self.columns[name] for name in self.free]
            d_weights_kO[:, columns] = (g_kM @ self._free_rows(x_FCHW, kept).t()).to(d_weights_kO.dtype)
        if dx_FCHW is None:
            return
        rows_nM = self._free_weights(weights_kO, g_kM.dtype).t() @ g_kM
        f, _, h, w = gradient_FCHW.shape
        gradients = [row.view(f, h, w, c).permute(0, 3, 1, 2) for row in rows_nM]
        average, largest = (
            _normalised_backward(g, y, state)
            for g, y, state in zip(gradients[:2], kept.pooled, kept.states, strict=True)
        )
        stride = self.stride
        window = ([3, 3], [stride, stride], [1, 1])
        dx_FCHW += torch.ops.aten.avg_pool2d_backward(average, x_FCHW, *window, False, False, None)
        dx_FCHW += torch.ops.aten.max_pool2d_with_indices_backward(
            largest, x_FCHW, *window, [1, 1], False, kept.indices.long()
        )
        if "identity" in self.free:
            dx_FCHW += gradients[2]


def _normalised_backward(gradient: Tensor, y: Tensor, state: NormState) -> Tensor:
    """Return BN's gradient for its input from its output: the input of another BN, of mean 0 and deviation 1.

    Where y = (x - m) / s, the gradient is that of y through its own normalisation, times 1 / s.
    """
    if state.running is not None:
        inverse_std = torch.rsqrt(state.running[1] + state.eps).to(gradient.dtype)
        return gradient * inverse_std.view(-1, 1, 1)
    own = NormState(torch.zeros_like(state.mean), torch.ones_like(state.inverse_std), None, state.eps)
    dx, _, _ = torch.ops.aten.native_batch_norm_backward(
        gradient, y, state.inverse_std, None, None, own.mean, own.inverse_std, True, own.eps, [True, False, False]
    )
    return dx


def dense(x_FCHW: Tensor) -> Tensor:
    """Return x in dense channels-last memory."""
    return x_FCHW.contiguous(memory_format=torch.channels_last)


def _joined(kernels: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return 3-D kernels (C, ., 1, kh, kw) or (C, ., kt, 1, 1) one after another, as 2-D ones."""
    joined = kernels[0] if len(kernels) == 1 else torch.cat(list(kernels))
    return (joined.squeeze(2) if joined.shape[2] == 1 else joined.squeeze(-1)).to(dtype)


def _by_place(operations: Sequence[nn.Module], kind: type[nn.Module]) -> list[list[Any]]:
    """Return the layers of a kind in some equal operations: by place in the operation, then by operation."""
    layers = [[layer for layer in operation.modules() if isinstance(layer, kind)] for operation in operations]
    return [list(place) for place in zip(*layers, strict=True)]


def _edges_first(x_FCHW: Tensor, k: int) -> Tensor:
    """Return a view (k, F*H*W, C) of k edges side by side, (F, kC, H, W)."""
    f, c, h, w = x_FCHW.shape
    return x_FCHW.permute(0, 2, 3, 1).view(f * h * w, k, c // k).permute(1, 0, 2)
