"""What enters a relaxed cell and what leaves each of its nodes, forward and backward written out.

Legend: F folded frames, C channels of the cell, I = 4 intermediate nodes, k edges that leave one node. The edges that
leave a node lead to the last k intermediate nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pvnas.space.branches import BRANCHES, Branch, Fan, Input, Kept, Kernels, Pointwise
from pvnas.space.free import POOLINGS, Free, KeptFree
from pvnas.space.layers import BatchNorm
from pvnas.space.mixing import Mixing, MixingGradient, leaving, targets
from pvnas.space.norms import Moments, Norms, NormState, norm_backward, normalise
from pvnas.space.operations import FactorizedReduction
from pvnas.space.sums import NodeGradients, Sums, side_by_side

# Edges run together while one tensor of theirs has no more elements and channels than this: small edges are mostly the
# cost of calls, large ones run fastest alone, each out of the caches. On a GPU a call costs more and caches count less.
ELEMENTS_TOGETHER, CHANNELS_TOGETHER = 2**19, 512
# Up to this many elements of an edge, what is cheap to make again is not kept, on a GPU never, where it is memory that
# limits a step. Of large tensors on a CPU the convolutions made again take longer than the memory is worth.
ELEMENTS_REMADE = 2**17


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

    def forward(
        self, x_FCHW: Tensor, kernels: Sequence[Tensor], fan: Fan, moments: Moments | None
    ) -> tuple[Tensor, KeptEntry]:
        """Return the cell's input (F, C, H', W') from an earlier output of any width."""
        own = replace(fan, stride=self.stride)
        own_kernels = [joined([kernel], x_FCHW.dtype) for kernel in kernels]
        z_FCHW, rest = self.branch.forward(Input(x_FCHW.clamp_min(0), own), own_kernels, Norms([], moments))
        state = Norms(self.norms, moments).state(z_FCHW)
        kept = KeptBranch(self.branch.keep(z_FCHW, rest, own), state)
        return normalise(z_FCHW, state), KeptEntry(own_kernels, own, kept)

    def again(self, kept: KeptEntry) -> Tensor:
        """Return the cell's input once more, from what the BN saw."""
        return normalise(kept.branch.kept[0], kept.branch.state)

    def backward(self, gradient: Tensor, x_FCHW: Tensor, kept: KeptEntry) -> tuple[Tensor, list[Tensor | None]]:
        """Return the gradients for the earlier output and for the kernels."""
        r_FCHW = x_FCHW.clamp_min(0)
        inputs = Input(r_FCHW, kept.fan)
        z_FCHW, of_branch = self.branch.again(inputs, kept.kernels, kept.branch.kept)
        g, _ = norm_backward(gradient, z_FCHW, kept.branch.state)
        dr, d_kernels = self.branch.backward(g, inputs, kept.kernels, of_branch)
        torch.ops.aten.threshold_backward.grad_input(dr, r_FCHW, 0, grad_input=dr)
        return dr, list(d_kernels)


class Edges(NamedTuple):
    """Neighbouring edges that leave one node, with all that they compute by."""

    first: int
    """Among the node's edges."""
    kernels: dict[str, Kernels]
    """Joined and prepared, by operation."""
    fan: Fan

    def of(self, all_edges: slice) -> slice:
        """Return their part of what the node's edges have side by side."""
        return slice(all_edges.start + self.first, all_edges.start + self.first + self.fan.edges)

    def under(self, fan: Fan) -> Edges:
        """Return the same edges with what is asked of another fan."""
        return self._replace(fan=_asked(self.fan, fan))


class KeptBranch(NamedTuple):
    """What the backward pass of a branch and of its last BN needs."""

    kept: Kept
    state: NormState


class KeptEntry(NamedTuple):
    """What the backward pass of an entry needs."""

    kernels: Kernels
    fan: Fan
    branch: KeptBranch

    def under(self, fan: Fan) -> KeptEntry:
        """Return the same with what is asked of another fan."""
        return self._replace(fan=_asked(self.fan, fan))


class KeptSource(NamedTuple):
    """What the backward pass of a node needs."""

    free: KeptFree
    groups: list[tuple[Edges, dict[str, KeptBranch]]]

    def copy(self) -> KeptSource:
        """Return the same tensors, which stay when a backward pass has given the others back."""
        return KeptSource(self.free, [(edges, dict(branches)) for edges, branches in self.groups])


class FoundInput(NamedTuple):
    """What becomes of an input of a cell, whatever the mixing weights are."""

    x_FCHW: Tensor
    """As the cell's edges see it."""
    entry: KeptEntry
    source: KeptSource
    """As a whole."""
    moments: Moments


@dataclass
class FoundInStep:
    """What the alpha step's pass through a cell leaves to the weight step's, of the same clips and kernels."""

    inputs: dict[int, FoundInput] = field(default_factory=dict)
    """By number: those that do not depend on alpha, as what the stem makes of the clips."""
    groups: dict[int, list[Edges]] = field(default_factory=dict)
    """By the number of the node that edges leave."""


class Source:
    """What leaves one node: forward adds to the sums of the later nodes, backward to the gradient of this one."""

    def __init__(self, operations: Sequence[str], number: int, stride: int, edges: list[Any], pools: Any) -> None:
        """``edges``: of each edge that leaves, its operations with parameters by name; ``pools``: the node's own."""
        self.number, self.stride, self.edges = number, stride, len(edges)
        self.leaving, self.targets = leaving(number), targets(number)
        self.names = list(edges[0])
        self.columns = {name: column for column, name in enumerate(operations)}
        # By operation, then by place in it, then by edge. Gathered once: a walk over modules costs more than a kernel.
        self.convolutions = {name: _by_place([edge[name] for edge in edges], nn.Conv3d) for name in self.names}
        self.norms = {name: _by_place([edge[name] for edge in edges], BatchNorm) for name in self.names}
        self.free = Free(operations, number, stride, [pools[name][1] for name in POOLINGS])

    def kernels(self) -> list[Tensor]:
        """Return the kernels by operation, by place in it, by edge."""
        return [layer.weight for places in self.convolutions.values() for layers in places for layer in layers]

    # ---- forward

    def forward(
        self,
        x_FCHW: Tensor,
        sums: Sums,
        mixing: Mixing,
        groups: Sequence[Edges],
        moments: Moments | None,
        whole: bool = False,
    ) -> KeptSource:
        """Add this node's (F, C, H, W) through all operations to the later nodes' sums.

        ``whole``: keep all that ``forward_again`` may need, not what the backward pass of these edges needs.
        """
        free = self.free.forward(x_FCHW, sums, mixing, moments)
        r_FCHW = x_FCHW.clamp_min(0)
        return KeptSource(
            free, [(edges, self._add_branches(edges, r_FCHW, sums, mixing, moments, whole)) for edges in groups]
        )

    def forward_again(self, found: KeptSource, x_FCHW: Tensor, sums: Sums, mixing: Mixing, fan: Fan) -> KeptSource:
        """Add what an earlier pass has found as a whole for the same node and kernels, at other mixing weights."""
        self.free.add(found.free, x_FCHW, sums, mixing)
        groups = []
        for old, branches in found.groups:
            edges = old.under(fan)
            kept = {}
            for name, ((z_FCHW, *rest), state) in branches.items():
                sums.add_normed(
                    edges.of(self.targets), z_FCHW, state, mixing.scale(self.columns[name], edges.of(self.leaving))
                )
                kept[name] = KeptBranch(BRANCHES[name].keep(z_FCHW, tuple(rest), edges.fan), state)
            groups.append((edges, kept))
        return KeptSource(found.free, groups)

    def grouped(self, kernels: Sequence[Tensor], fan: Fan, sums: Sums) -> list[Edges]:
        """Return the edges in groups that run together, to sums of this size, with their kernels prepared."""
        sum_FHWC = sums.values_IFHWC[0]
        own = replace(fan, remake=self._remakes(sum_FHWC))
        return self.in_groups(kernels, own, self._edges_together(sum_FHWC), sum_FHWC.dtype)

    def in_groups(self, kernels: Sequence[Tensor], fan: Fan, size: int, dtype: torch.dtype) -> list[Edges]:
        """Return the edges in groups of a size, with their kernels prepared in this type."""
        k, fan = self.edges, replace(fan, stride=self.stride)
        rest = iter(kernels)
        places = {name: [[next(rest) for _ in layers] for layers in self.convolutions[name]] for name in self.names}
        groups = []
        for first in range(0, k, size):
            part = slice(first, first + size)
            own = replace(fan, edges=min(size, k - first))
            prepared = {
                name: BRANCHES[name].prepare([joined(place[part], dtype) for place in places[name]], own)
                for name in self.names
            }
            groups.append(Edges(first, prepared, own))
        return groups

    def _edges_together(self, sum_FHWC: Tensor) -> int:
        """Return how many of the k edges to sums of this size run at once."""
        if sum_FHWC.device.type != "cpu":
            return self.edges
        elements, channels = sum_FHWC.numel(), sum_FHWC.shape[-1]
        return max(1, min(self.edges, ELEMENTS_TOGETHER // elements, CHANNELS_TOGETHER // channels))

    def _remakes(self, sum_FHWC: Tensor) -> bool:
        """Return whether edges to sums of this size make tensors again that are cheap to make."""
        return sum_FHWC.device.type != "cpu" or sum_FHWC.numel() <= ELEMENTS_REMADE

    def _add_branches(
        self, edges: Edges, r_FCHW: Tensor, sums: Sums, mixing: Mixing, moments: Moments | None, whole: bool
    ) -> dict[str, KeptBranch]:
        found = {}
        inputs, part = Input(r_FCHW, edges.fan), edges.of(slice(0, self.edges))
        for name in self.names:
            *within, last = [Norms(layers[part], moments) for layers in self.norms[name]]
            norms = within[0] if within else Norms([], moments)
            branch = BRANCHES[name]
            z_FCHW, rest = branch.forward(inputs, edges.kernels[name], norms)
            state = last.state(z_FCHW)
            scale_kC = mixing.scale(self.columns[name], edges.of(self.leaving))
            sums.add_normed(edges.of(self.targets), z_FCHW, state, scale_kC)
            kept = (z_FCHW, *rest) if whole else branch.keep(z_FCHW, rest, edges.fan)
            found[name] = KeptBranch(kept, state)
        return found

    # ---- backward

    def backward(
        self,
        gradients: NodeGradients,
        x_FCHW: Tensor,
        mixing: Mixing,
        kept: KeptSource,
        d_mixing: MixingGradient | None,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for this node and its kernels, from those of the intermediate nodes.

        The gradient for the mixing weights goes into ``d_mixing`` where there is one. The node has none where the fan
        of the forward pass asked for none.
        """
        r_FCHW = x_FCHW.clamp_min(0)
        dr_FCHW: Tensor | None = None
        kernels: dict[tuple[str, int], list[Tensor | None]] = {}
        while kept.groups:  # what has been used is given back at once
            edges, branches = kept.groups.pop(0)
            inputs, leaving = Input(r_FCHW, edges.fan), edges.of(self.leaving)
            own_FCHW = side_by_side(gradients.of(edges.of(self.targets)))
            for name in self.names:
                branch, own, column = BRANCHES[name], branches.pop(name), self.columns[name]
                z_FCHW, kept_branch = branch.again(inputs, edges.kernels[name], own.kept)
                scale_kC, wanted = mixing.scale(column, leaving), (edges.fan.input_gradient, d_mixing is not None)
                g, d_scale_kC = norm_backward(own_FCHW, z_FCHW, own.state, scale_kC, wanted)
                del own, z_FCHW
                if d_mixing is not None:
                    d_mixing.add_scale(column, leaving, d_scale_kC)
                d_kernels: Sequence[Tensor | None] = [None] * len(self.convolutions[name])
                if edges.fan.input_gradient:
                    found = branch.backward(g, inputs, edges.kernels[name], kept_branch)
                    dr_FCHW = found.r_FCHW if dr_FCHW is None else dr_FCHW.add_(found.r_FCHW)
                    d_kernels = found.kernels
                for place, d_kernel in enumerate(d_kernels):
                    parts = [None] * edges.fan.edges if d_kernel is None else d_kernel.chunk(edges.fan.edges)
                    kernels.setdefault((name, place), []).extend(parts)
        if dr_FCHW is not None:  # now of x, past the ReLU
            torch.ops.aten.threshold_backward.grad_input(dr_FCHW, r_FCHW, 0, grad_input=dr_FCHW)
        self.free.backward(gradients.of(self.targets), x_FCHW, mixing, kept.free, dr_FCHW, d_mixing)
        return dr_FCHW, [d_kernel for parts in kernels.values() for d_kernel in parts]


class Way(NamedTuple):
    """How a cell computes: what leaves its nodes, and the forms of their sums and gradients."""

    entries: Sequence[Any]
    """As ``Entry``, of both inputs."""
    sources: Sequence[Any]
    """As ``Source``, in its order."""
    sums: Callable[[Tensor, int, torch.dtype], Any]
    """As ``Sums``."""
    gradients: Callable[[Tensor], Any]
    """As ``NodeGradients``."""
    state: Callable[[Tensor], Tensor]
    """A node, one of four side by side, as the backward pass of what leaves it reads it."""


def _asked(fan: Fan, of: Fan) -> Fan:
    """Return a fan with what is asked of another one."""
    return replace(fan, kernel_gradients=of.kernel_gradients, input_gradient=of.input_gradient)


def joined(kernels: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return 3-D kernels (C, ., 1, kh, kw) or (C, ., kt, 1, 1) one after another, as 2-D ones."""
    # Squeezed first: of more than four dimensions a GPU joins tensors one by one.
    parts = [kernel.squeeze(2) if kernel.shape[2] == 1 else kernel.squeeze(-1) for kernel in kernels]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(dtype)


def _by_place(operations: Sequence[nn.Module], kind: type[nn.Module]) -> list[list[Any]]:
    """Return the layers of a kind in some equal operations: by place in the operation, then by operation."""
    layers = [[layer for layer in operation.modules() if isinstance(layer, kind)] for operation in operations]
    return [list(place) for place in zip(*layers, strict=True)]
