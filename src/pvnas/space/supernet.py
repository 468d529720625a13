"""The relaxed network of the search: every candidate operation on every edge, mixed by softmax(alpha).

Legend: N clips, C channels, T frames, H and W pixels, E = 14 candidate edges, O operations of a category.

Two implementations of the same mathematics, with the same parameter names:
- ``PlainCell`` is equation 1 of the paper as it stands, sum_o softmax(alpha)_o * o(x) on every edge, on PyTorch's own
  3-D layers. It is the oracle of the tests and the baseline of the benchmarks.
- ``SharedCell`` is the one that is used (``shared_cell``): edges share what they can, and its backward pass is written
  out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pvnas.config import PAPER_SEARCH_LAYOUT
from pvnas.runtime.tensors import frozen
from pvnas.space.genotype import EDGES, INPUTS, NODES, ZERO, operations_of
from pvnas.space.layers import FOLDED, PLAIN, to_channels_last
from pvnas.space.layout import CellPlace, parse_layout, place_cells
from pvnas.space.nodes import FoundInStep
from pvnas.space.operations import build_relaxed, build_stem, cell_inputs
from pvnas.space.shared_cell import SharedCell, edge_stride


def mixing_weights(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return softmax(alpha) over the operations of every edge, (E, O) per category (paper, equation 1)."""
    return {category: alpha.softmax(-1) for category, alpha in alphas.items()}


class PlainCell(nn.Module):
    """All candidate operations on all 14 edges, each computed on its own: the definition, written down."""

    def __init__(self, place: CellPlace) -> None:
        super().__init__()
        self.operations = operations_of(place.category)
        self.input0, self.input1 = cell_inputs(
            place.channels_before, place.channels, place.reduced_before, PLAIN, affine=False
        )
        names = [name for name in self.operations if name != ZERO]
        strides = [edge_stride(place.category, source) for _, source in EDGES]
        self.edges = nn.ModuleList(build_relaxed(names, place.channels, stride, PLAIN) for stride in strides)

    def forward(self, x0: Tensor, x1: Tensor, weights_EO: Tensor) -> Tensor:
        states = [self.input0(x0), self.input1(x1)]
        for node in range(INPUTS, INPUTS + NODES):
            incoming = [edge for edge, (target, _) in enumerate(EDGES) if target == node]
            mixed = [self._mix(edge, states[source], weights_EO[edge]) for source, edge in enumerate(incoming)]
            states.append(torch.stack(mixed).sum(0))
        return torch.cat(states[INPUTS:], 1)

    def _mix(self, edge: int, x: Tensor, weights_O: Tensor) -> Tensor:
        """Equation 1 on one edge; zero adds nothing, its weight only takes its share of the softmax."""
        edge_operations: Any = self.edges[edge]
        terms = [
            w * edge_operations[name](x) for w, name in zip(weights_O, self.operations, strict=True) if name != ZERO
        ]
        return torch.stack(terms).sum(0)


@dataclass
class FoundStem:
    """What the alpha step's pass through the stem leaves to the weight step's."""

    found: Tensor | None = None
    """Its output, whose backward pass reaches the stem's parameters."""


class Supernet(nn.Module):
    """The search network: (N, 3, T, H, W) clips, normalised, to (N, num_classes) scores before softmax.

    ``alphas``: one (E, O) parameter per category, shared by all its cells. ``architecture_parameters`` and
    ``weight_parameters`` part all parameters in two, so that no optimiser sees both.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 64,
        layout: str = PAPER_SEARCH_LAYOUT,
        stem: str = "stride4",
        initial_std: float = 1e-3,
        checkpointed: bool = False,
        plain: bool = False,
    ) -> None:
        """``checkpointed``: keep each cell's output alone and make the rest again in the backward pass."""
        super().__init__()
        categories = parse_layout(layout)
        places = place_cells(categories, width)
        self.categories = categories
        self.stem = build_stem(stem, width, PLAIN if plain else FOLDED)
        self.cells = nn.ModuleList(PlainCell(place) if plain else SharedCell(place) for place in places)
        self.classifier = nn.Linear(NODES * places[-1].channels, num_classes)
        self.alphas = nn.ParameterDict(
            {
                category: nn.Parameter(initial_std * torch.randn(len(EDGES), len(operations_of(category))))
                for category in sorted(set(categories))
            }
        )
        self.plain = plain
        self.step: FoundStem | None = None
        """What the two passes of a search step share, see ``shared_passes``."""
        for cell in shared_cells(self):
            cell.checkpointed = checkpointed

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        weights = mixing_weights(self.architecture_parameters())
        before = last = self._stem(x_NCTHW if self.plain else to_channels_last(x_NCTHW))
        for category, cell in zip(self.categories, self.cells, strict=True):
            before, last = last, cell(before, last, weights[category])
        return self.classifier(last.mean((2, 3, 4)))

    def _stem(self, x_NCTHW: Tensor) -> Tensor:
        """Return what the stem makes; where two passes share it, the second takes what the first made."""
        own: list[nn.Parameter] = list(self.stem.parameters())
        if self.step is None or not torch.is_grad_enabled():
            return self.stem(x_NCTHW)
        if own[0].requires_grad:
            found, self.step.found = self.step.found, None
            return self.stem(x_NCTHW) if found is None else found
        with frozen(own, frozen=False):
            self.step.found = self.stem(x_NCTHW)
        return self.step.found.detach()

    def architecture_parameters(self) -> dict[str, nn.Parameter]:
        """Return alpha by category."""
        return dict(self.alphas.items())

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything but alpha, by name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("alphas.")}


def shared_cells(network: Supernet) -> list[SharedCell]:
    """Return the cells of a supernet that is not the plain one."""
    return [cell for cell in network.cells if isinstance(cell, SharedCell)]


@contextmanager
def frozen_statistics(network: Supernet) -> Iterator[None]:
    """Leave BN's running statistics as they are while batches are still normalised by their own: the alpha step.

    Not those of a stem that both passes of a step share, which move once in either.
    """
    shared = shared_cells(network)
    stems = [network.stem] if network.step is None else []
    others = [*stems, *(cell for cell in network.cells if cell not in shared)]
    norms: list[Any] = [layer for part in others for layer in part.modules() if isinstance(layer, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for cell in shared:
        cell.moves_statistics = False
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for cell in shared:
            cell.moves_statistics = True
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def shared_passes(network: Supernet) -> Iterator[None]:
    """Let an alpha step's pass leave to the weight step's what is the same in both.

    That are the stem, the edges which it alone reaches, all but their mixing weights, and what is made of kernels
    alone. The numbers are those of two separate passes. Within, no more than one pass of each kind, alpha first, and
    no change of the clips, the weights, the precision or the mode between them.
    """
    cells = [cell for cell in shared_cells(network) if not cell.checkpointed]
    for cell in cells:
        cell.step = FoundInStep()
    if not network.plain:
        network.step = FoundStem()
    try:
        yield
    finally:
        network.step = None
        for cell in cells:
            cell.step = None
