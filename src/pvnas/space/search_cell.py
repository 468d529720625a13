"""The relaxed cell of the search, as the paper writes it: equations 1 and 2 (sections 3.1 and 3.2.1).

Legend: N clips, C channels of the cell, T frames, H and W pixels, E = 14 candidate edges, O operations of a category.
"""

import torch
from torch import Tensor, nn

from pvnas.space.genotype import EDGES, INPUTS, NODES, ZERO, is_reduction, operations_of
from pvnas.space.layers import Layers
from pvnas.space.layout import CellSpec
from pvnas.space.operations import build_relaxed
from pvnas.space.stem import cell_inputs


class MixedOperation(nn.ModuleDict):
    """Equation 2 on one edge: all its candidate operations o, weighted by softmax(alpha)."""

    def __init__(self, category: str, channels: int, stride: int, layers: Layers) -> None:
        self.columns = {name: o for o, name in enumerate(operations_of(category)) if name != ZERO}
        super().__init__({name: build_relaxed(name, channels, stride, layers) for name in self.columns})

    def forward(self, x: Tensor, weights_O: Tensor) -> Tensor:
        """Return sum_o weights_o * o(x). Zero adds nothing: its weight only takes its share of the softmax."""
        return torch.stack([weights_O[o] * self[name](x) for name, o in self.columns.items()]).sum(0)


class SearchCell(nn.Module):
    """Two inputs and mixing weights (E, O) to (N, 4C, T, H', W'): every operation on every edge.

    Its fast form, which gives the same numbers, is ``pvnas.fast.search_cell.FastSearchCell``.
    """

    def __init__(self, spec: CellSpec, layers: Layers) -> None:
        super().__init__()
        self.spec = spec
        self.input0, self.input1 = cell_inputs(spec, layers, affine=False)
        self.edges = nn.ModuleList(
            MixedOperation(spec.category, spec.channels, edge_stride(spec.category, predecessor), layers)
            for _, predecessor in EDGES
        )

    def forward(self, x0: Tensor, x1: Tensor, weights_EO: Tensor) -> Tensor:
        """Return the concatenation of the intermediate nodes, each the sum of its incoming edges (equation 1)."""
        nodes = [self.input0(x0), self.input1(x1)]
        for node in range(INPUTS, INPUTS + NODES):
            incoming = [(edge, predecessor) for edge, (target, predecessor) in enumerate(EDGES) if target == node]
            mixed = [self.edges[edge](nodes[predecessor], weights_EO[edge]) for edge, predecessor in incoming]
            nodes.append(torch.stack(mixed).sum(0))
        return torch.cat(nodes[INPUTS:], 1)


def edge_stride(category: str, predecessor: int) -> int:
    """Return the spatial stride of an edge: 2 where a reduction cell's edge leaves one of its two inputs."""
    return 2 if is_reduction(category) and predecessor < INPUTS else 1
