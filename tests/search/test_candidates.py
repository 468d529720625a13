"""Widths and depths within a budget: which are tried, and which short trainings leave."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.presets import laptop
from pvnas.search.budget import Limits, derive_within
from pvnas.search.candidates import MOST, STEP, Candidate, best_of, candidates, largest, sized, tried_for
from pvnas.search.derive import derive
from pvnas.search.history import price_table
from pvnas.space.cost import network_cost
from pvnas.space.cost_table import Price
from pvnas.space.genotype import CATEGORIES, EDGES, operations_of, random_genotype


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return laptop()


@pytest.fixture(scope="module")
def alphas() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(len(EDGES), len(operations_of(name)), generator=generator) for name in CATEGORIES}


@pytest.mark.parametrize("limits", [Limits(macs=200_000_000), Limits(1_000_000), Limits(700_000, 150_000_000)])
def test_all_candidates_are_within_the_budget_and_use_it(
    config: RunConfig, alphas: dict[str, Tensor], limits: Limits
) -> None:
    found = candidates(config, 21, alphas, limits)
    assert 3 <= len(found) <= MOST + 1
    assert len({(each.width, each.repeat) for each in found}) == len(found)
    assert len({each.repeat for each in found}) == 3
    free = derive(alphas)
    for each in found:
        network = sized(config, each.width, each.repeat).network
        cost = network_cost(each.genotype, network, clip=config.view, classes=21)  # an independent count
        assert (cost.params, cost.macs) == each.price
        assert limits.allow(each.price)
        assert each.width % STEP == 0
        wider = price_table(sized(config, each.width + STEP, each.repeat), 21)
        assert each.genotype != free or not limits.allow(wider.of(free))  # else the wider one is better used
    assert free in [each.genotype for each in found]


def test_without_repeated_cells_there_are_more_widths(config: RunConfig, alphas: dict[str, Tensor]) -> None:
    flat = replace(config, train=replace(config.train, layout="S-NC S-RC T-NC T-RC", repeat=1))
    found = candidates(flat, 21, alphas, Limits(params=1_000_000))
    assert {each.repeat for each in found} == {1}
    assert len(found) > 3


def test_a_budget_of_no_network_is_refused_with_the_least(config: RunConfig, alphas: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match=r"within budget\.macs 1,000 \(the least there is: "):
        candidates(config, 21, alphas, Limits(macs=1000))
    with pytest.raises(UserError):
        derive_within(alphas, price_table(sized(config, STEP, 1), 21), Limits(macs=1000))


def named(count: int) -> list[Candidate]:
    return [Candidate(STEP * (n + 1), 1, random_genotype(n), Price(n, 100 - n)) for n in range(count)]


def test_the_better_half_goes_on_and_of_equal_ones_the_cheaper() -> None:
    accuracy = {4: (10.0, 90.0), 8: (50.0, 20.0), 12: (40.0, 30.0), 16: (45.0, 30.0), 20: (5.0, 95.0), 24: (6.0, 0.0)}
    best, tried = best_of(named(6), 160, lambda each, epochs: accuracy[each.width][epochs > 10])
    assert [(each.width, each.top1) for each in tried[6:]] == [(8, 20.0), (16, 30.0), (12, 30.0)]
    assert best.width == 16  # as good as 12, with fewer multiply-accumulates
    assert [each.epochs for each in tried] == [10] * 6 + [20] * 3


def test_a_round_of_as_few_epochs_as_the_one_before_is_left_out() -> None:
    _, tried = best_of(named(4), 5, lambda each, epochs: 1.0)
    assert [each.epochs for each in tried] == [1] * 4


def test_a_single_candidate_is_not_trained() -> None:
    def never(candidate: Candidate, epochs: int) -> float:
        raise AssertionError(candidate, epochs)

    assert best_of(named(1), 100, never) == (named(1)[0], [])


def test_a_short_training_is_a_whole_one_in_small_and_leaves_the_validation_alone(config: RunConfig) -> None:
    short = tried_for(config, 24)
    assert short.train.epochs == 24
    assert short.train.final_on == "train"
    assert short.train.validate_every == short.train.epochs
    warmup = config.train.weights.schedule.warmup_epochs / config.train.epochs
    assert short.train.weights.schedule.warmup_epochs / short.train.epochs == pytest.approx(warmup, abs=0.01)
    steps = config.train.weights.schedule.step_epochs / config.train.epochs
    assert short.train.weights.schedule.step_epochs / short.train.epochs == pytest.approx(steps)


def test_the_largest_width_of_those_that_keep_it() -> None:
    assert [largest(lambda width, most=most: width <= most) for most in (3, 4, 37, 5000)] == [0, 4, 36, 1024]
