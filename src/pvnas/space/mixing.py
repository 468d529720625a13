"""The mixing weights of a cell in the order and the forms in which its nodes read them, and their gradients.

Legend: E = 14 edges in the order of ``EDGES``, by the node they lead to; S the same by the node they leave; O
operations; C channels.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from torch import Tensor

from pvnas.space.genotype import EDGES, INPUTS, NODES

_BY_SOURCE = tuple(sorted(range(len(EDGES)), key=lambda edge: EDGES[edge][1]))
_BY_TARGET = tuple(sorted(range(len(EDGES)), key=_BY_SOURCE.__getitem__))


def leaving(source: int) -> slice:
    """Return the edges that leave a node, in the order S; they lead to the last nodes of the cell."""
    edges = [place for place, edge in enumerate(_BY_SOURCE) if EDGES[edge][1] == source]
    return slice(edges[0], edges[-1] + 1)


def targets(source: int) -> slice:
    """Return the intermediate nodes that the edges of a node lead to, counted from 0."""
    return slice(max(0, source + 1 - INPUTS), NODES)


class Mixing:
    """Mixing weights (E, O)."""

    def __init__(self, weights_EO: Tensor, channels: int) -> None:
        self.channels = channels
        self.weights_SO = weights_EO.index_select(0, index_on(_BY_SOURCE, weights_EO.device))
        self._ordered: dict[tuple[int, ...], Tensor] = {}

    @cached_property
    def _scales_OSC(self) -> Tensor:  # noqa: N802
        # In memory of its own: PyTorch's BN reads an expanded scale as if it lay dense.
        return self.weights_SO.t().repeat_interleave(self.channels, 1)

    def ordered(self, columns: tuple[int, ...], edges: slice) -> Tensor:
        """Return the weights of some operations on some edges, (k, operations)."""
        if columns not in self._ordered:
            self._ordered[columns] = self.weights_SO.index_select(1, index_on(columns, self.weights_SO.device))
        return self._ordered[columns][edges]

    def scale(self, column: int, edges: slice) -> Tensor:
        """Return the weight of an operation on some edges once for each of their channels, (kC,)."""
        return self._scales_OSC[column, edges.start * self.channels : edges.stop * self.channels]


class MixingGradient:
    """The gradient for mixing weights (E, O), gathered edge by edge."""

    def __init__(self, weights_EO: Tensor, channels: int) -> None:
        self.channels = channels
        self.weights_SO = torch.zeros_like(weights_EO)
        self._scales_OSC: Tensor | None = None

    def add_scale(self, column: int, edges: slice, gradient_kC: Tensor) -> None:
        """Take the gradient for what ``Mixing.scale`` has returned."""
        if self._scales_OSC is None:
            self._scales_OSC = self.weights_SO.new_zeros(self.weights_SO.shape[1], len(EDGES) * self.channels)
        self._scales_OSC[column, edges.start * self.channels : edges.stop * self.channels] = gradient_kC

    def total(self) -> Tensor:
        """Return the gradient, (E, O)."""
        gradient_SO = self.weights_SO
        if self._scales_OSC is not None:
            gradient_SO = gradient_SO + self._scales_OSC.unflatten(1, (len(EDGES), self.channels)).sum(2).t()
        return gradient_SO.index_select(0, index_on(_BY_TARGET, gradient_SO.device))


@lru_cache(maxsize=64)
def index_on(order: tuple[int, ...], device: torch.device) -> Tensor:
    """Return an index as a tensor. Kept, since to bring a list of numbers to a GPU is to wait for it."""
    return torch.tensor(order, device=device)
