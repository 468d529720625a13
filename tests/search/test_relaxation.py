"""Temperature and dropped operations: what they are at which time, their gradient and their mean."""

import math

import pytest
import torch

from pvnas.config import AlphaOptimizerConfig, SearchConfig
from pvnas.runtime.random import generator
from pvnas.search.relaxation import drop_factors, relaxation_at, temperature_at
from pvnas.space.genotype import EDGES, ZERO, operations_of
from pvnas.space.supernet import Relaxation, Supernet, mixing_weights, relaxed


def test_the_temperature_falls_by_the_same_factor_in_every_step():
    alphas = AlphaOptimizerConfig(temperature=8.0, final_temperature=0.5)
    assert [temperature_at(alphas, epoch, 4) for epoch in (0, 1, 2, 3, 4)] == pytest.approx([8, 4, 2, 1, 0.5])
    assert temperature_at(alphas, 2.5, 4) == pytest.approx(math.sqrt(2))
    assert [temperature_at(AlphaOptimizerConfig(), epoch, 7) for epoch in (0, 2.3, 7)] == [1.0, 1.0, 1.0]


def test_a_temperatures_weights_and_gradient_by_hand():
    """softmax((0, ln 4) / 2) = (1, 2) / 3; d/da_0 of the first is w_0 (1 - w_0) / 2, of the second - w_0 w_1 / 2."""
    alpha = torch.tensor([[0.0, math.log(4)]], dtype=torch.float64, requires_grad=True)
    weights = mixing_weights({"S-NC": alpha}, torch.tensor(2.0, dtype=torch.float64))["S-NC"]
    assert weights[0].tolist() == pytest.approx([1 / 3, 2 / 3])
    (gradient,) = torch.autograd.grad(weights[0, 0], alpha)
    assert gradient[0].tolist() == pytest.approx([1 / 9, -1 / 9])


@pytest.mark.parametrize("category", ["S-NC", "T-RC"])
@pytest.mark.parametrize("probability", [0.2, 0.9])
def test_no_node_loses_everything_and_the_factors_are_1_in_the_mean(category, probability):
    names, draw, draws = operations_of(category), generator(3, "test"), 600
    adds = [o for o, name in enumerate(names) if name != ZERO]
    total = torch.zeros(len(EDGES), len(names), dtype=torch.float64)
    for _ in range(draws):
        factors = drop_factors(category, probability, draw)
        total += factors
        for node in (2, 3, 4, 5):
            incoming = factors[[e for e, (target, _) in enumerate(EDGES) if target == node]][:, adds]
            assert incoming.any()
            kept = 1 - probability + probability ** incoming.numel()  # when it is not dropped, or when all would be
            assert set(incoming[incoming > 0].tolist()) == {1 / kept}
    # A factor is 0 or 1/kept, its variance 1/kept - 1: 4.5 standard errors of the mean.
    bound = 4.5 * math.sqrt((1 / (1 - probability) - 1) / draws)
    assert (total / draws - 1)[:, adds].abs().max() < bound


def test_the_paper_asks_for_nothing_and_drops_are_the_seeds():
    network = Supernet(2, width=2, layout="S-NC S-NC", stem="stride2")
    assert relaxation_at(network, SearchConfig(), 0.0, drop_seed=1) is None
    dropping = SearchConfig(drop_path=0.5)
    assert relaxation_at(network, dropping, 0.0) is None  # alpha's half-step and validation see all operations
    found, again, other = (relaxation_at(network, dropping, 0.0, drop_seed=seed) for seed in (1, 1, 2))
    assert float(found.temperature) == 1.0
    assert all(map(torch.equal, found.factors, again.factors))
    assert not torch.equal(found.factors[0], other.factors[0])
    assert not torch.equal(*found.factors)  # two cells of a category drop other operations


def test_factors_belong_to_cells_and_end_with_their_pass():
    network = Supernet(2, width=2, layout="S-NC S-NC", stem="stride2")
    plain = network.cell_weights()
    factors = torch.zeros(14, 6), torch.full((14, 6), 2.0)
    with relaxed(network, Relaxation(torch.ones(()), factors)):
        first, second = network.cell_weights()
    assert not first.any()
    assert torch.equal(second, 2 * plain[1])
    assert all(map(torch.equal, network.cell_weights(), plain))
