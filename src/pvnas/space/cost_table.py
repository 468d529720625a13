"""What single operations cost, and so every network of a config: a constant and a sum over the 32 kept edges, exactly.

Cells of a category share their operations, so a kept edge costs the same whatever the other edges are. Parameters and
multiply-accumulates are counted as in ``pvnas.space.cost``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

from pvnas.config import NetworkConfig
from pvnas.space.cost import count_parameters, counted_layers, network_cost, positions
from pvnas.space.genotype import INPUTS, Edge, Genotype, is_reduction, random_genotype
from pvnas.space.layers import FOLDED
from pvnas.space.layout import CellSpec, cell_specs, parse_layout
from pvnas.space.operations import ZERO, build_operation, operations_of
from pvnas.space.stem import frames_after_stem, side_after_stem


class Price(NamedTuple):
    """Parameters, and multiply-accumulates of one view."""

    params: int
    macs: int

    def plus(self, other: Price) -> Price:
        """Return the sum of two."""
        return Price(self.params + other.params, self.macs + other.macs)


FREE = Price(0, 0)

Kind = tuple[str, bool, str]
"""What a kept edge costs by: category, whether it halves height and width, operation."""


def kind_of(category: str, edge: Edge) -> Kind:
    """Return the kind of an edge of a category's cells."""
    return category, is_reduction(category) and edge.predecessor < INPUTS, edge.operation


@dataclass(frozen=True)
class CostTable:
    """Prices of a config's edges."""

    constant: Price
    """Of all that no genotype changes: stem, the cells' inputs, classifier."""
    operations: Mapping[Kind, Price]
    """Over all cells of the category."""

    def of_edge(self, category: str, edge: Edge) -> Price:
        """Return what a kept edge costs; nothing where the layout has no such cell."""
        return self.operations.get(kind_of(category, edge), FREE)

    def of(self, genotype: Genotype) -> Price:
        """Return what the network of a genotype costs: what ``network_cost`` counts."""
        total = self.constant
        for category, _, edge in genotype.edges():
            total = total.plus(self.of_edge(category, edge))
        return total

    @classmethod
    def made_for(cls, config: NetworkConfig, clip: tuple[int, int, int], classes: int) -> Self:
        """Count every operation at the sizes that it has in the networks of a config, for views (T, H, W)."""
        frames = frames_after_stem(config.stem, clip[0])
        sides = [side_after_stem(config.stem, side) for side in clip[1:]]
        operations: dict[Kind, Price] = {}
        for spec in cell_specs(parse_layout(config.layout, config.repeat), config.width):
            before, reduces = (frames, *sides), is_reduction(spec.category)
            sides = [-(-side // 2) for side in sides] if reduces else sides
            for halves in (False, True) if reduces else (False,):
                for name in operations_of(spec.category):
                    if name != ZERO:
                        key = (spec.category, halves, name)
                        price = _price(spec, name, halves, before if halves else (frames, *sides))
                        operations[key] = operations.get(key, FREE).plus(price)
        any_genotype = random_genotype(0)
        cost = network_cost(any_genotype, config, clip=clip, classes=classes)
        edges = cls(FREE, operations).of(any_genotype)
        return cls(Price(cost.params - edges.params, cost.macs - edges.macs), operations)


def _price(spec: CellSpec, name: str, halves: bool, size: tuple[int, ...]) -> Price:
    """Return what one operation costs in one cell, on inputs of this size (T, H, W)."""
    stride = 2 if halves else 1
    with torch.device("meta"):
        operation = build_operation(name, spec.channels, stride, FOLDED)
    with torch.random.fork_rng(devices=[]):
        thin = build_operation(name, 2, stride, FOLDED)  # which has the same positions
    layers = zip(counted_layers(operation), positions(thin, torch.zeros(1, 2, *size)), strict=True)
    return Price(count_parameters(operation), sum(n * layer.weight.numel() for layer, n in layers))
