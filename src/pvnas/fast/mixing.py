"""The mixing weights of a cell in the order in which its nodes read them, and their gradients.

``EDGES`` lists the 14 edges by the node that they lead to; here they are ordered by the node that they leave (S), so
that the edges that leave a node are neighbours. Legend: E edges in the order of ``EDGES``, S by the node they leave, O
operations, k edges that leave one node.
"""

from functools import lru_cache

import torch
from torch import Tensor

from pvnas.space.genotype import EDGES, INPUTS, NODES

_BY_SOURCE = tuple(sorted(range(len(EDGES)), key=lambda edge: EDGES[edge][1]))
_BY_TARGET = tuple(sorted(range(len(EDGES)), key=_BY_SOURCE.__getitem__))


def edges_leaving(node: int) -> slice:
    """Return the edges that leave a node, in the order S; they lead to the last nodes of the cell."""
    edges = [position for position, edge in enumerate(_BY_SOURCE) if EDGES[edge][1] == node]
    return slice(edges[0], edges[-1] + 1)


def nodes_reached(node: int) -> slice:
    """Return the intermediate nodes that the edges of a node lead to, counted from 0."""
    return slice(max(0, node + 1 - INPUTS), NODES)


class MixingWeights:
    """Mixing weights (E, O)."""

    def __init__(self, weights_EO: Tensor) -> None:
        self._weights_SO = weights_EO.index_select(0, index_on(_BY_SOURCE, weights_EO.device))
        self._selected: dict[tuple[int, ...], Tensor] = {}

    def of(self, edges: slice, operations: tuple[int, ...]) -> Tensor:
        """Return the weights (k, operations) of some edges, in the order S, and some operations, by their columns."""
        if operations not in self._selected:
            index = index_on(operations, self._weights_SO.device)
            self._selected[operations] = self._weights_SO.index_select(1, index)
        return self._selected[operations][edges]


class MixingGrad:
    """The gradient for mixing weights (E, O), gathered node by node."""

    def __init__(self, weights_EO: Tensor) -> None:
        self._grad_SO = torch.zeros_like(weights_EO)

    def set(self, edges: slice, operations: tuple[int, ...], grad_kO: Tensor) -> None:
        """Take the gradient for what ``MixingWeights.of`` has returned."""
        index = index_on(operations, grad_kO.device)
        self._grad_SO[edges].index_copy_(1, index, grad_kO.to(self._grad_SO.dtype))

    def total(self) -> Tensor:
        """Return the gradient, (E, O)."""
        return self._grad_SO.index_select(0, index_on(_BY_TARGET, self._grad_SO.device))


@lru_cache(maxsize=64)
def index_on(order: tuple[int, ...], device: torch.device) -> Tensor:
    """Return an index as a tensor. Kept, since to bring a list of numbers to a GPU is to wait for it."""
    return torch.tensor(order, device=device)
