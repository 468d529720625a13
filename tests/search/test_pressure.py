"""A budget that the search feels: the costs that alphas promise, and what is done about them."""

from __future__ import annotations

import itertools

import pytest
import torch
from drawn_alphas import alphas_of
from torch import Tensor

from pvnas.config import NetworkConfig
from pvnas.search.budget import Limits
from pvnas.search.pressure import Pressure
from pvnas.space.cost_table import CostTable
from pvnas.space.genotype import CATEGORIES, EDGES, INPUTS, NODES, ZERO, Edge, operations_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table() -> CostTable:
    return CostTable.made_for(NetworkConfig(width=8, stem="stride2"), (4, 16, 16), 5)


def under(table: CostTable, macs: int | None = None, params: int | None = None, steps: int = 10) -> Pressure:
    return Pressure(table, Limits(params, macs), CATEGORIES, steps, CPU)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_promised_cost_is_the_mean_over_all_ways_to_keep_two_edges_of_a_node(
    table: CostTable, temperature: float
) -> None:
    alphas = alphas_of(0, 1.0)
    expected = float(table.constant.macs)
    for category, alpha in alphas.items():
        raw = (alpha.double() / temperature).softmax(-1)
        zero = operations_of(category).index(ZERO)
        shares = raw / (1 - raw[:, zero : zero + 1])
        for node in range(INPUTS, INPUTS + NODES):
            pairs = list(itertools.combinations(range(node), 2))
            for before in itertools.chain(*pairs):
                row = shares[EDGES.index((node, before))]
                for share, name in zip(row.tolist(), operations_of(category), strict=True):
                    if name != ZERO:
                        expected += share * table.of_edge(category, Edge(before, name)).macs / len(pairs)
    [found] = under(table, macs=1).expected(alphas, temperature)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_within_the_budget_it_does_nothing_and_beyond_it_pushes_downhill(table: CostTable) -> None:
    alphas = alphas_of(1, 1.0)
    zeros = [torch.zeros_like(alpha) for alpha in alphas.values()]
    promised = float(under(table, macs=1).expected(alphas)[0])
    loose = under(table, macs=int(1.1 * promised))
    loose.multipliers += 5
    assert all(torch.equal(push, zero) for push, zero in zip(loose.added_to(zeros, alphas), zeros, strict=True))
    tight = under(table, macs=int(0.8 * promised))
    assert not any(push.any() for push in tight.added_to(zeros, alphas))  # the multiplier begins at 0
    assert float(tight.multipliers) == pytest.approx(0.1 * 0.25, rel=1e-3)  # and has grown by rate times the excess
    pushes = tight.added_to(zeros, alphas)
    moved = {name: alpha - push for (name, alpha), push in zip(alphas.items(), pushes, strict=True)}
    assert float(tight.expected(moved)[0]) < promised


def test_its_gradient_is_that_of_finite_differences(table: CostTable) -> None:
    alphas = {name: alpha.double() for name, alpha in alphas_of(2, 1.0).items()}
    pressure = under(table, macs=int(0.7 * float(under(table, macs=1).expected(alphas)[0])))
    pressure.multipliers += 3.0

    def value(alphas: dict[str, Tensor]) -> float:
        return 3.0 * (float(pressure.expected(alphas)[0]) / pressure.limits[0] - 1)

    pushes = pressure.added_to([torch.zeros_like(alpha) for alpha in alphas.values()], alphas)
    for category, push in zip(alphas, pushes, strict=True):
        for place in ((0, 1), (5, 3), (13, 0)):
            up, down = ({n: a.clone() for n, a in alphas.items()} for _ in range(2))
            up[category][place] += 1e-5
            down[category][place] -= 1e-5
            assert float(push[place]) == pytest.approx((value(up) - value(down)) / 2e-5, rel=1e-4, abs=1e-12)


def test_pushed_long_enough_alphas_promise_the_budget(table: CostTable) -> None:
    """A loss that wants costly cells has an equilibrium with the multiplier: the promise ends near the limit."""
    alphas = alphas_of(3, 0.1)
    start = [float(cost) for cost in under(table, macs=1, params=1).expected(alphas)]
    pressure = under(table, macs=int(0.85 * start[1]), params=int(0.85 * start[0]))
    for _ in range(400):
        gradients = pressure.added_to([0.02 * alpha for alpha in alphas.values()], alphas)
        alphas = {name: alpha - g for (name, alpha), g in zip(alphas.items(), gradients, strict=True)}
    costs = [float(cost) for cost in pressure.expected(alphas)]
    assert all(cost / limit < 1.03 for cost, limit in zip(costs, pressure.limits, strict=True))
    assert min(costs[0] / pressure.limits[0] - 1, costs[1] / pressure.limits[1] - 1) > -0.3
    said = pressure.measures(alphas)
    assert set(said) == {"expected_params", "expected_macs", "pressure_params", "pressure_macs"}


def test_multipliers_never_fall_below_nothing(table: CostTable) -> None:
    alphas = alphas_of(4, 1.0)
    pressure = under(table, macs=int(2 * float(under(table, macs=1).expected(alphas)[0])))
    for _ in range(5):
        pressure.added_to([torch.zeros_like(alpha) for alpha in alphas.values()], alphas)
    assert pressure.multipliers.tolist() == [0.0]
