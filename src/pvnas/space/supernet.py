"""The relaxed network of the search: cells whose edges mix all candidate operations by softmax(alpha).

Legend: N clips, C channels, T frames, H and W pixels, E = 14 candidate edges, O operations of a category.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pvnas.config import PAPER_SEARCH_LAYOUT
from pvnas.space.genotype import EDGES, NODES, operations_of
from pvnas.space.layers import FOLDED, Layers, to_channels_last
from pvnas.space.layout import cell_specs, parse_layout
from pvnas.space.search_cell import SearchCell
from pvnas.space.stem import build_stem


def mixing_weights(alphas: Mapping[str, Tensor], temperature: Tensor | None = None) -> dict[str, Tensor]:
    """Return softmax(alpha) over the operations of every edge, (E, O) per category (paper, section 3.2.1).

    ``temperature``: shape (), what alpha is divided by first, where it is not as in the paper.
    """
    return {
        category: (alpha if temperature is None else alpha / temperature).softmax(-1)
        for category, alpha in alphas.items()
    }


class Relaxation(NamedTuple):
    """How a pass makes mixing weights of alpha, where it is not as in the paper.

    All tensors: a pass that a GPU has recorded takes other numbers, but no other decisions.
    """

    temperature: Tensor
    """Shape (), see ``mixing_weights``."""
    factors: tuple[Tensor, ...] = ()
    """On the mixing weights of each cell, (E, O): 0 drops an operation; () leaves all as they are."""


class Supernet(nn.Module):
    """The search network: (N, in_channels, T, H, W) clips, normalised, to (N, num_classes) scores before softmax.

    ``alphas``: one (E, O) parameter per category, shared by all its cells. ``architecture_parameters`` and
    ``weight_parameters`` part all parameters in two, so that no optimiser sees both. ``pvnas.fast.accelerate`` puts
    fast cells in the place of these, with the same parameters and the same numbers.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 64,
        layout: str = PAPER_SEARCH_LAYOUT,
        stem: str = "stride4",
        in_channels: int = 3,
        initial_std: float = 1e-3,
        layers: Layers = FOLDED,
    ) -> None:
        super().__init__()
        self.categories = parse_layout(layout)
        specs = cell_specs(self.categories, width)
        self.folded = layers is FOLDED  # which asks for clips in channels-last memory
        self.stem, self.in_channels = build_stem(stem, in_channels, width, layers), in_channels
        self.cells = nn.ModuleList(SearchCell(spec, layers) for spec in specs)
        self.classifier = nn.Linear(NODES * specs[-1].channels, num_classes)
        self.alphas = nn.ParameterDict(
            {
                category: nn.Parameter(initial_std * torch.randn(len(EDGES), len(operations_of(category))))
                for category in sorted(set(self.categories))
            }
        )
        self.relaxation: Relaxation | None = None
        """None: the paper's. Set by ``relaxed``."""

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        before = last = self.stem(to_channels_last(x_NCTHW) if self.folded else x_NCTHW)
        for cell, weights_EO in zip(self.cells, self.cell_weights(), strict=True):
            before, last = last, cell(before, last, weights_EO)
        return self.classifier(last.mean((2, 3, 4)))

    def cell_weights(self) -> list[Tensor]:
        """Return the mixing weights (E, O) of every cell: those of its category."""
        temperature, factors = self.relaxation or (None, ())
        weights = mixing_weights(self.architecture_parameters(), temperature)
        of_cells = [weights[category] for category in self.categories]
        if not factors:
            return of_cells
        return [weights_EO * factors_EO for weights_EO, factors_EO in zip(of_cells, factors, strict=True)]

    def architecture_parameters(self) -> dict[str, nn.Parameter]:
        """Return alpha by category."""
        return dict(self.alphas.items())

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything but alpha, by name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("alphas.")}


@contextmanager
def frozen(parameters: Sequence[nn.Parameter], *, frozen: bool = True) -> Iterator[None]:
    """Let these parameters ask for no gradient: autograd then neither keeps nor computes what only they need.

    ``frozen`` False: within, frozen parameters ask for theirs.
    """
    for parameter in parameters:
        parameter.requires_grad_(not frozen)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(frozen)


@contextmanager
def relaxed(network: Supernet, relaxation: Relaxation | None) -> Iterator[None]:
    """Let passes within make their mixing weights so."""
    before, network.relaxation = network.relaxation, relaxation
    try:
        yield
    finally:
        network.relaxation = before


def frozen_statistics(network: nn.Module) -> AbstractContextManager[None]:
    """Leave BN's running statistics as they are while batches are still normalised by their own: the alpha step."""
    return momenta([(layer, 0.0) for layer in network.modules() if isinstance(layer, nn.BatchNorm3d)])


@contextmanager
def momenta(norms: Sequence[tuple[nn.BatchNorm3d, float | None]]) -> Iterator[None]:
    """Let the running statistics of these BN move by these momenta within."""
    before = [norm.momentum for norm, _ in norms]
    for norm, momentum in norms:
        norm.momentum = momentum
    try:
        yield
    finally:
        for (norm, _), momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
