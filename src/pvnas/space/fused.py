"""What leaves a node of a relaxed cell, forward and backward: ``nodes.Source`` by our own kernels.

Legend: F folded frames, C channels of the cell, k edges that leave the node, I = 4 intermediate nodes.

The same steps with fewer passes over memory: ReLU and BN before a depthwise convolution are made as it reads, all
operations of a node are added to the sums in one pass, and their BN go backwards in two. The intermediate nodes lie
side by side, as the cell returns them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pvnas.space.branches import Fan, Kernels
from pvnas.space.free import KeptFree
from pvnas.space.fused_branches import FUSED, FusedInput, FusedPointwise, FusedReduction, as_normed, norm_backward
from pvnas.space.genotype import INPUTS, NODES
from pvnas.space.kernels.operands import KernelSet, Normed, tap_by_tap, unnormed
from pvnas.space.mixing import Mixing, MixingGradient, index_on
from pvnas.space.nodes import Edges, Entry, KeptBranch, KeptEntry, KeptSource, Source, Way, joined
from pvnas.space.norms import Moments, Norms

DEPTHWISE = (1, 3, 3)


class JoinedSums:
    """The sums of the intermediate nodes, side by side as in the cell's output."""

    def __init__(self, x_FCHW: Tensor, stride: int, dtype: torch.dtype) -> None:
        """``x_FCHW``: an input of the cell."""
        f, c, h, w = x_FCHW.shape
        self.values_FCHW = x_FCHW.new_empty(f, -(-h // stride), -(-w // stride), NODES * c).permute(0, 3, 1, 2)
        self.begun = False

    def of(self, nodes: slice) -> Tensor:
        """Return the view (F, kC, H, W) of some nodes."""
        return _of(self.values_FCHW, nodes)

    def complete(self, node: int) -> Tensor:
        """Return a node's sum, to which nothing more will be added, (F, C, H, W)."""
        return self.of(slice(node, node + 1))

    def joined(self) -> Tensor:
        """Return the sums of all nodes side by side, (F, 4C, H, W)."""
        return self.values_FCHW


class JoinedGradients:
    """The gradients of the intermediate nodes, side by side; those of later nodes are added as they are found."""

    def __init__(self, gradient_FCHW: Tensor) -> None:
        self.values_FCHW = gradient_FCHW.clone(memory_format=torch.channels_last)

    def of(self, nodes: slice) -> Tensor:
        """Return the view (F, kC, H, W) of some nodes."""
        return _of(self.values_FCHW, nodes)

    def add(self, node: int, dx_FCHW: Tensor) -> None:
        """Add to the gradient of a node."""
        self.of(slice(node, node + 1)).add_(dx_FCHW)


def _of(values_FCHW: Tensor, nodes: slice) -> Tensor:
    c = values_FCHW.shape[1] // NODES
    return values_FCHW[:, nodes.start * c : nodes.stop * c]


class FusedEntry:
    """What brings an output of an earlier cell to this cell's width, as ``Entry``."""

    def __init__(self, kernels: KernelSet, entry: Entry) -> None:
        self.kernels, self.entry = kernels, entry
        self.branch = FusedReduction() if entry.stride == 2 else FusedPointwise()

    def forward(
        self, x_FCHW: Tensor, kernels: Sequence[Tensor], fan: Fan, moments: Moments | None
    ) -> tuple[Tensor, KeptEntry]:
        """Return the cell's input (F, C, H', W') from an earlier output of any width."""
        own = replace(fan, stride=self.entry.stride)
        own_kernels = [joined([kernel], x_FCHW.dtype) for kernel in kernels]
        norms = [Norms(self.entry.norms, moments)]
        found = self.branch.forward(FusedInput(self.kernels, x_FCHW, own), own_kernels, norms)
        kept = KeptEntry(own_kernels, own, KeptBranch((found.z_FCHW,), found.state))
        return self.again(kept), kept

    def again(self, kept: KeptEntry) -> Tensor:
        """Return the cell's input once more, from what the BN saw."""
        return self.kernels.normalised(as_normed(kept.branch.kept[0], kept.branch.state))

    def backward(self, gradient: Tensor, x_FCHW: Tensor, kept: KeptEntry) -> tuple[Tensor, list[Tensor | None]]:
        """Return the gradients for the earlier output and for the kernels."""
        g = norm_backward(self.kernels, gradient, kept.branch.kept[0], kept.branch.state)
        dr_FCHW, d_kernels = self.branch.backward(g, FusedInput(self.kernels, x_FCHW, kept.fan), kept.kernels, (), None)
        if self.entry.stride == 2:
            torch.ops.aten.threshold_backward.grad_input(dr_FCHW, x_FCHW, 0, grad_input=dr_FCHW)
        return dr_FCHW, list(d_kernels)


class FusedSource:
    """What leaves one node, as ``Source``; all its edges run together."""

    def __init__(self, kernels: KernelSet, source: Source) -> None:
        self.kernels = kernels
        self.source, self.number, self.stride, self.names = source, source.number, source.stride, source.names
        free = source.free
        shared = [*free.pool_columns, *([] if free.identity is None else [free.identity])]
        self.order = (*(source.columns[name] for name in self.names), *shared)
        self.own = len(self.names)

    def grouped(self, kernels: Sequence[Tensor], fan: Fan, sums: JoinedSums) -> list[Edges]:
        """Return all edges as one group, with their kernels prepared."""
        (edges,) = self.source.in_groups(kernels, fan, self.source.edges, sums.values_FCHW.dtype)
        by_name: dict[str, Kernels] = {
            name: [_as_read(kernel) for kernel in some] for name, some in edges.kernels.items()
        }
        return [edges._replace(kernels=by_name)]

    def forward(
        self,
        x_FCHW: Tensor,
        sums: JoinedSums,
        mixing: Mixing,
        groups: Sequence[Edges],
        moments: Moments | None,
        whole: bool = False,
    ) -> KeptSource:
        """Add this node's (F, C, H, W) through all operations to the later nodes' sums, see ``Source.forward``."""
        (edges,) = groups
        average, largest, which = self.kernels.pool(x_FCHW, self.stride)
        pooled = (average, largest)
        states = [Norms([norm], moments).state(z) for norm, z in zip(self.source.free.norms, pooled, strict=True)]
        free = KeptFree(pooled, states, which)
        inputs, found = FusedInput(self.kernels, x_FCHW, edges.fan), {}
        for name in self.names:
            norms = [Norms(layers, moments) for layers in self.source.norms[name]]
            z_FCHW, state, rest = FUSED[name].forward(inputs, edges.kernels[name], norms)
            found[name] = KeptBranch((z_FCHW, *rest), state)
        self._add(x_FCHW, free, found, sums, mixing)
        return KeptSource(free, [(edges, found if whole else self._kept(found, edges.fan))])

    def forward_again(
        self, found: KeptSource, x_FCHW: Tensor, sums: JoinedSums, mixing: Mixing, fan: Fan
    ) -> KeptSource:
        """Add what an earlier pass has found as a whole for the same node and kernels, at other mixing weights."""
        ((old, branches),) = found.groups
        edges = old.under(fan)
        self._add(x_FCHW, found.free, branches, sums, mixing)
        return KeptSource(found.free, [(edges, self._kept(branches, edges.fan))])

    def _kept(self, found: dict[str, KeptBranch], fan: Fan) -> dict[str, KeptBranch]:
        return {
            name: KeptBranch(FUSED[name].keep(kept[0], tuple(kept[1:]), fan), state)
            for name, (kept, state) in found.items()
        }

    def _add(
        self, x_FCHW: Tensor, free: KeptFree, found: dict[str, KeptBranch], sums: JoinedSums, mixing: Mixing
    ) -> None:
        own = [as_normed(kept[0], state) for kept, state in found.values()]
        self.kernels.add_normed(
            sums.of(self.source.targets), own, self._shared(x_FCHW, free), self._weights(mixing), begin=not sums.begun
        )
        sums.begun = True

    def _weights(self, mixing: Mixing) -> Tensor:
        """Return the mixing weights (k, O) in the order of the kernels."""
        return mixing.ordered(self.order, self.source.leaving)

    def _shared(self, x_FCHW: Tensor, free: KeptFree) -> list[Normed]:
        """Return what all edges share: both poolings and, at stride 1, identity."""
        pooled = [as_normed(z, state) for z, state in zip(free.pooled, free.states, strict=True)]
        return pooled if self.source.free.identity is None else [*pooled, unnormed(x_FCHW)]

    def backward(
        self,
        gradients: JoinedGradients,
        x_FCHW: Tensor,
        mixing: Mixing,
        kept: KeptSource,
        d_mixing: MixingGradient | None,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for this node and its kernels, see ``Source.backward``.

        That for an intermediate node is added to ``gradients`` on the way, and None here.
        """
        g_FCHW, weights_kO = gradients.of(self.source.targets), self._weights(mixing)
        ((edges, branches),) = kept.groups
        kept.groups.clear()
        own = [as_normed(branches[name].kept[0], branches[name].state) for name in self.names]
        shared = self._shared(x_FCHW, kept.free)
        found = self.kernels.products(g_FCHW, own, shared, edges.fan.edges)
        if d_mixing is not None:
            d_weights_kO = d_mixing.weights_SO[self.source.leaving]
            d_weights_kO.index_copy_(1, index_on(self.order, found.device), found[1:].sum(2).t())
        if not edges.fan.input_gradient:
            return None, [None] * len(self.source.kernels())
        of_batch = kept.free.states[0].running is None
        dz = self.kernels.own_gradients(g_FCHW, own, weights_kO[:, : self.own], found, of_batch=of_batch)
        dr_FCHW, d_kernels = self._through_branches(dz, x_FCHW, edges, branches)
        of_shared = torch.cat([found[:1], found[1 + self.own :]])
        d_average, d_largest, *direct = self.kernels.shared_gradients(
            g_FCHW, shared, weights_kO[:, self.own :], of_shared, of_batch=of_batch
        )
        into = None if self.number < INPUTS else gradients.of(slice(self.number - INPUTS, self.number - INPUTS + 1))
        dx_FCHW = self.kernels.pool_backward(
            d_average, d_largest, kept.free.indices, x_FCHW, self.stride, dr_FCHW, direct[0] if direct else None, into
        )
        return dx_FCHW if into is None else None, d_kernels

    def _through_branches(
        self, dz: list[Any], x_FCHW: Tensor, edges: Edges, branches: dict[str, KeptBranch]
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for ReLU(x) and for the kernels from those of what the last BN have seen."""
        inputs, k = FusedInput(self.kernels, x_FCHW, edges.fan), edges.fan.edges
        dr_FCHW: Tensor | None = None
        d_kernels: list[Tensor | None] = []
        for name in self.names:
            rest = branches.pop(name).kept[1:]
            dr_FCHW, own = FUSED[name].backward(dz.pop(0), inputs, edges.kernels[name], rest, dr_FCHW)
            for d_kernel in own:
                d_kernels += [None] * k if d_kernel is None else d_kernel.chunk(k)
        return dr_FCHW, d_kernels


def _as_read(kernel: Tensor) -> Tensor:
    return tap_by_tap(kernel) if kernel.shape[1:] == DEPTHWISE else kernel


def fused_way(kernels: KernelSet, entries: Sequence[Entry], sources: Sequence[Source]) -> Way:
    """Return how a cell computes with kernels of our own, those of ``kernels.gpu`` or of ``kernels.cpu``."""
    own_entries = [FusedEntry(kernels, entry) for entry in entries]
    own_sources = [FusedSource(kernels, source) for source in sources]
    return Way(own_entries, own_sources, JoinedSums, JoinedGradients, lambda x_FCHW: x_FCHW)
