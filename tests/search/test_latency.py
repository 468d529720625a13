"""A network in time: the fit, and the choice by it, with a clock of which everything is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from drawn_alphas import alphas_of

from pvnas.config import NetworkConfig
from pvnas.errors import UserError
from pvnas.search.budget import Limits, Scores, derive_within
from pvnas.search.derive import derive
from pvnas.search.latency import ACCEPTED, RUNS, SAMPLES, LatencyFit, Timing, cheapest, derive_in_time
from pvnas.space.cost_table import CostTable, Kind, kind_of
from pvnas.space.genotype import Genotype, random_genotype


@pytest.fixture(scope="module")
def table() -> CostTable:
    return CostTable.made_for(NetworkConfig(width=16, stem="stride2"), (8, 32, 32), 10)


@dataclass
class KnownClock:
    """A machine on which each kind of edge takes its time, and each network up to so much more of it all."""

    by_kind: dict[Kind, float]
    more: float = 0.0
    most_ms: float = 0.0
    advice: str = "buy a faster one"
    where: str = "a clip on a known machine"
    asked: list[tuple[Genotype, int]] = field(default_factory=list)

    def milliseconds(self, genotype: Genotype) -> float:
        luck = random.Random(repr(genotype.items)).random()
        kinds = [kind_of(category, edge) for category, _, edge in genotype.edges()]
        return (2.0 + sum(self.by_kind[kind] for kind in kinds)) * (1 + self.more * luck)

    def __call__(self, genotypes: Sequence[Genotype], runs: int) -> list[Timing]:
        self.asked += [(genotype, runs) for genotype in genotypes]
        return [Timing(self.milliseconds(genotype), 2 * self.milliseconds(genotype), runs) for genotype in genotypes]


def clock_of(table: CostTable, more: float = 0.0) -> KnownClock:
    luck = random.Random(0)
    return KnownClock(
        {kind: 0.05 + 0.2 * luck.random() + price.macs / 4e7 for kind, price in table.operations.items()}, more
    )


def test_a_fit_finds_what_is_a_sum_and_says_how_far_off_it_is_where_it_is_none(table: CostTable) -> None:
    samples = [random_genotype(seed) for seed in range(SAMPLES)]
    unseen = [random_genotype(seed) for seed in range(1000, 1200)]
    for more, worst in ((0.0, 0.02), (0.2, 0.12)):
        clock = clock_of(table, more)
        fit = LatencyFit.to(table, [(genotype, clock.milliseconds(genotype)) for genotype in samples])
        errors = [abs(fit.of(genotype) / clock.milliseconds(genotype) - 1) for genotype in unseen]
        assert sum(errors) / len(errors) < worst
        assert fit.error == pytest.approx(sum(errors) / len(errors), abs=0.3 * worst)
        assert fit.scaled(1.5).of(unseen[0]) == pytest.approx(1.5 * fit.of(unseen[0]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.75, 0.9])
def test_the_network_is_fast_enough_and_little_is_given_away(table: CostTable, seed: int, share: float) -> None:
    clock, alphas = clock_of(table, 0.05), alphas_of(seed)
    free, least = derive(alphas), cheapest(table, alphas, Limits())
    slow, fast = map(clock.milliseconds, (free, least))
    most = fast + share * (slow - fast)
    found, about = derive_in_time(alphas, table, Limits(), replace(clock, most_ms=most))
    assert clock.milliseconds(found) <= ACCEPTED * most
    assert about["latency"] == {
        "median_ms": clock.milliseconds(found),
        "p95_ms": 2 * clock.milliseconds(found),
        "runs": RUNS,
    }
    assert about["latency_of"] == clock.where
    assert about["latency_without"]["median_ms"] == slow
    assert 1 <= len(about["latency_rounds"]) <= 5
    scores = Scores(alphas)
    assert scores.of(least) < scores.of(found) < scores.of(free)
    # With a clock that knows no luck and no reserve, what could be had at the most is a bound: three quarters are got.
    assert scores.of(free) - scores.of(found) < 0.75 * (scores.of(free) - scores.of(least))


def test_a_network_that_is_fast_enough_anyway_is_kept_and_nothing_else_is_measured(table: CostTable) -> None:
    clock, alphas = clock_of(table), alphas_of(0)
    free = derive(alphas)
    found, about = derive_in_time(alphas, table, Limits(), replace(clock, most_ms=1.1 * clock.milliseconds(free)))
    assert found == free
    assert clock.asked == [(free, RUNS), (free, RUNS)]
    assert (about["latency_rounds"], about["latency_fit_error"]) == ([], None)


def test_other_limits_are_kept_as_well(table: CostTable) -> None:
    clock, alphas = clock_of(table), alphas_of(1)
    limits = Limits(macs=int(0.8 * table.of(derive(alphas)).macs))
    within = derive_within(alphas, table, limits)
    most = 0.9 * clock.milliseconds(within)
    found, _ = derive_in_time(alphas, table, limits, replace(clock, most_ms=most))
    assert limits.allow(table.of(found))
    assert clock.milliseconds(found) <= ACCEPTED * most


def test_what_no_network_can_is_said_with_the_fastest_that_was_measured(table: CostTable) -> None:
    clock, alphas = clock_of(table), alphas_of(0)
    with pytest.raises(
        UserError, match=r"keep budget\.latency_ms 0\.5, .* the fastest that was measured takes \d"
    ) as error:
        derive_in_time(alphas, table, Limits(), replace(clock, most_ms=0.5))
    fastest = min(clock.milliseconds(genotype) for genotype, runs in clock.asked if runs == RUNS)
    assert f"takes {fastest:.3g} ms for a clip on a known machine; buy a faster one" in str(error.value)


def test_the_cheapest_has_the_fewest_multiply_accumulates(table: CostTable) -> None:
    least = table.of(cheapest(table, alphas_of(3), Limits())).macs
    with pytest.raises(UserError, match=f"the least there is: {least:,}"):
        derive_within(alphas_of(3), table, Limits(macs=least - 1))
