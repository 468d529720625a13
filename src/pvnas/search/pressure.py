"""A budget that the search feels: alphas that would cost too much are pushed towards cheaper operations.

Not the paper's. The gradient of alpha gains that of ``mu * max(0, E / B - 1)`` for each limit B, where E is the cost
that the alphas promise. ``mu`` is a multiplier that grows with every step in which the promise is broken and falls
while it is kept (dual ascent), so that there is no weight to tune. The derivation keeps the budget with and without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pvnas.search.budget import Limits
from pvnas.space.cost_table import CostTable, Price
from pvnas.space.genotype import EDGES, INPUTS, KEPT_EDGES, ZERO, Edge
from pvnas.space.operations import operations_of


class Pressure:
    """The costs that alphas promise, beside their limits, and what is done about it."""

    def __init__(
        self, table: CostTable, limits: Limits, categories: Sequence[str], steps: int, device: torch.device
    ) -> None:
        """``steps``: of an epoch; in one in which E is always twice B the multiplier of B grows by 1."""
        self.names = tuple(limits.given)
        self.limits = [float(limit) for limit in limits.given.values()]
        self.constants = [float(table.constant._asdict()[name]) for name in self.names]
        self.costs = [{c: _costs(table, c, name).to(device) for c in categories} for name in self.names]
        self.multipliers = torch.zeros(len(self.names), dtype=torch.float64)
        self.rate = 1.0 / steps

    def expected(self, alphas: Mapping[str, Tensor], temperature: float = 1.0) -> list[Tensor]:
        """Return for each limit the cost of the network that alphas promise.

        Of a node's edges, of which two are kept, each counts alike; on an edge each operation by its share among those
        that can be kept: all but zero.
        """
        shares = {category: _shares(category, alpha.double() / temperature) for category, alpha in alphas.items()}
        return [
            constant + torch.stack([(costs[category] * share).sum() for category, share in shares.items()]).sum()
            for constant, costs in zip(self.constants, self.costs, strict=True)
        ]

    def added_to(
        self, gradients: Sequence[Tensor], alphas: Mapping[str, Tensor], temperature: float = 1.0
    ) -> list[Tensor]:
        """Return the gradients of alphas, in their order, with those of the pressure; then the multipliers move."""
        with torch.enable_grad():
            leaves = {category: alpha.detach().requires_grad_() for category, alpha in alphas.items()}
            excess = torch.stack(
                [cost / limit - 1 for cost, limit in zip(self.expected(leaves, temperature), self.limits, strict=True)]
            )
            pressure = (self.multipliers.to(excess.device) * excess.relu()).sum()
            pushes = torch.autograd.grad(pressure, list(leaves.values()))
        self.multipliers = (self.multipliers + self.rate * excess.detach().cpu()).clamp_min_(0)
        return [gradient + push for gradient, push in zip(gradients, pushes, strict=True)]

    def measures(self, alphas: Mapping[str, Tensor], temperature: float = 1.0) -> dict[str, float]:
        """Return what an epoch's metrics say of it."""
        with torch.no_grad():
            costs = self.expected(alphas, temperature)
        said = {f"expected_{name}": round(float(cost), 1) for name, cost in zip(self.names, costs, strict=True)}
        return said | {f"pressure_{n}": float(mu) for n, mu in zip(self.names, self.multipliers, strict=True)}


def _shares(category: str, alpha_EO: Tensor) -> Tensor:
    """Return the softmax over all operations but zero, whose share is 0."""
    is_zero_O = torch.tensor([name == ZERO for name in operations_of(category)], device=alpha_EO.device)
    return alpha_EO.masked_fill(is_zero_O, -torch.inf).softmax(-1)


def _costs(table: CostTable, category: str, name: str) -> Tensor:
    """Return what each operation of each edge costs times how often an edge is kept, (E, O); zero costs nothing."""

    def cost(node: int, before: int, operation: str) -> float:
        price = Price(0, 0) if operation == ZERO else table.of_edge(category, Edge(before, operation))
        return price._asdict()[name] * KEPT_EDGES / node  # a node has as many edges as there are nodes before it

    assert INPUTS == KEPT_EDGES  # so that the first node keeps both of its edges
    rows = [[cost(node, before, operation) for operation in operations_of(category)] for node, before in EDGES]
    return torch.tensor(rows, dtype=torch.float64)
