"""The best genotype within a budget: equal to a solver's and to trying everything, and never over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
from drawn_alphas import alphas_of
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from pvnas.config import PV_NAS_L, RunConfig
from pvnas.errors import UserError
from pvnas.preflight import check_budget
from pvnas.presets import laptop, tiny
from pvnas.search.budget import Limits, Scores, derive_within, pareto_front
from pvnas.search.derive import derive
from pvnas.search.history import alpha_name, genotype_of_epoch, price_table
from pvnas.space.cost import network_cost
from pvnas.space.cost_table import CostTable, Price
from pvnas.space.genotype import CATEGORIES, EDGES, INPUTS, NODES, ZERO, Edge, operations_of


@pytest.fixture(scope="module")
def paper() -> CostTable:
    return CostTable.made_for(PV_NAS_L, (8, 224, 224), 400)


def solved(alphas: Mapping[str, Tensor], table: CostTable, limits: Limits) -> float | None:
    """Return the best sum of log scores as an integer program finds it (SciPy's HiGHS); None where there is none."""
    scores, variables = Scores(alphas), []
    for category in alphas:
        for node in range(INPUTS, INPUTS + NODES):
            for before, name in product(range(node), operations_of(category)):
                if name != ZERO:
                    variables.append((category, node, Edge(before, name)))
    rows, low, high = [], [], []
    for category, node in product(alphas, range(INPUTS, INPUTS + NODES)):
        rows.append([float(v[:2] == (category, node)) for v in variables])
        low.append(2.0)
        high.append(2.0)
        for before in range(node):
            rows.append([float(v[:2] == (category, node) and v[2].predecessor == before) for v in variables])
            low.append(0.0)
            high.append(1.0)
    for name, limit in limits.given.items():
        rows.append([getattr(table.of_edge(category, edge), name) / 1e6 for category, _, edge in variables])
        low.append(-np.inf)
        high.append((limit - getattr(table.constant, name)) / 1e6)
    found = milp(
        [-scores.of_edge(*variable) for variable in variables],
        constraints=LinearConstraint(np.array(rows), low, high),
        integrality=np.ones(len(variables)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    return -float(found.fun) if found.success else None


@pytest.mark.parametrize("seed", range(17))
def test_it_is_what_a_solver_finds_at_50_budgets(seed: int, paper: CostTable) -> None:
    alphas = alphas_of(seed, 0.01 if seed % 2 else 0.4)
    free = paper.of(derive(alphas))
    for share in (0.9, 0.7, 0.5):
        params, macs = int(free.params * share * 1.05), int(free.macs * share)
        limits = (Limits(params, macs), Limits(None, macs), Limits(params, None))[seed % 3]
        genotype = derive_within(alphas, paper, limits)
        assert limits.allow(paper.of(genotype))
        assert Scores(alphas).of(genotype) == pytest.approx(solved(alphas, paper, limits), abs=1e-7)


def test_it_is_the_best_of_all_ways_where_they_can_all_be_tried() -> None:
    """Nodes 4 and 5 have what is cheapest and scores best: only the 1,875 ways of nodes 2 and 3 are a choice."""
    category, generator = "S-NC", torch.Generator().manual_seed(3)
    names = [name for name in operations_of(category) if name != ZERO]
    alpha = torch.randn(len(EDGES), len(operations_of(category)), generator=generator)
    for row, (node, before) in enumerate(EDGES):
        if node >= 4 and before < 2:
            alpha[row, operations_of(category).index(names[0])] = 30.0
    prices = {(category, False, name): Price(10 * 3**number, 7 * number + 1) for number, name in enumerate(names)}
    table, scores = CostTable(Price(5, 5), prices), Scores({category: alpha})

    def ways(node: int) -> list[tuple[float, int, int]]:
        found = []
        for first, second in combinations(range(node), 2):
            for edges in product([Edge(first, n) for n in names], [Edge(second, n) for n in names]):
                one, other = (table.of_edge(category, edge) for edge in edges)
                score = sum(scores.of_edge(category, node, edge) for edge in edges)
                found.append((score, one.params + other.params, one.macs + other.macs))
        return found

    fixed = Price(5 + 4 * 10, 5 + 4 * 1)
    both = list(product(ways(2), ways(3)))
    assert len(both) == 25 * 75
    bound = 0
    for params, macs in ((2_000, 200), (400, 60), (300, 80), (150, 30), (90, 40)):
        best = max(a[0] + b[0] for a, b in both if a[1] + b[1] <= params and a[2] + b[2] <= macs)
        limits = Limits(fixed.params + params, fixed.macs + macs)
        genotype = derive_within({category: alpha}, table, limits)
        top = sum(scores.of_edge(*place) for place in genotype.edges() if place[1] < 4)
        assert top == pytest.approx(best)
        bound += genotype != derive({category: alpha})
    assert bound >= 3


def test_without_limits_or_where_they_allow_it_it_is_derived_as_ever(paper: CostTable) -> None:
    for seed in range(20):
        alphas = alphas_of(seed)
        free = derive(alphas)
        assert derive_within(alphas, paper, Limits()) == free
        assert derive_within(alphas, paper, Limits(*paper.of(free))) == free


def test_less_budget_never_scores_more_and_the_least_is_the_cheapest(paper: CostTable) -> None:
    alphas, last = alphas_of(5), np.inf
    for macs in range(24_000_000_000, 8_000_000_000, -1_000_000_000):
        score = Scores(alphas).of(derive_within(alphas, paper, Limits(macs=macs)))
        assert score <= last
        last = score
    with pytest.raises(UserError, match=r"within budget.macs 1,000 \(the least there is: [\d,]+\)") as refused:
        derive_within(alphas, paper, Limits(macs=1000))
    least = int(str(refused.value).split("is: ")[1].rstrip(")").replace(",", ""))
    assert paper.of(derive_within(alphas, paper, Limits(macs=least))).macs == least
    with pytest.raises(UserError):
        derive_within(alphas, paper, Limits(macs=least - 1))


def test_the_front_has_what_a_budget_of_each_of_its_costs_finds(paper: CostTable) -> None:
    alphas = alphas_of(2)
    points = pareto_front(alphas, paper)
    assert max(points, key=lambda point: point.log_score).genotype == derive(alphas)
    assert [point.price.macs for point in points] == sorted(point.price.macs for point in points)
    for point in points[:: len(points) // 12]:
        assert paper.of(point.genotype) == point.price
        assert Scores(alphas).of(point.genotype) == pytest.approx(point.log_score)
        assert derive_within(alphas, paper, Limits(*point.price)) == point.genotype
    for one, other in combinations(points, 2):
        worse = (
            one.price.params >= other.price.params,
            one.price.macs >= other.price.macs,
            one.log_score <= other.log_score,
        )
        assert not all(worse)


def test_the_published_cost_as_a_budget_holds_by_another_count(paper: CostTable) -> None:
    limits = Limits(params=19_650_000, macs=22_140_000_000)
    for seed in range(5):
        genotype = derive_within(alphas_of(seed), paper, limits)
        cost = network_cost(genotype, PV_NAS_L, clip=(8, 224, 224), classes=400)
        assert cost.params <= 19_650_000
        assert cost.macs <= 22_140_000_000


def test_the_notes_of_a_genotype_say_what_the_budget_has_changed() -> None:
    config = tiny()
    config.search.epochs = 2
    alphas = alphas_of(1)
    history = {alpha_name(2, name): alpha for name, alpha in alphas.items()}
    table = price_table(config, 8)
    free = genotype_of_epoch(config, 2, history, CATEGORIES)
    assert "budget" not in free.about
    limit = int(0.7 * table.of(free).macs)
    within = genotype_of_epoch(config, 2, history, CATEGORIES, table, Limits(macs=limit))
    about = within.about["budget"]
    assert about["macs"] == limit >= about["cost"]["macs"]
    assert about["cost_without"] == table.of(free)._asdict()
    assert about["edges_changed"] == len(set(within.edges()) - set(free.edges())) > 0
    assert about["log_score"] < about["log_score_without"]
    with pytest.raises(UserError, match=r"alphas\.safetensors lacks epoch 1; a search that is not finished goes on"):
        genotype_of_epoch(config, 1, history, CATEGORIES)


def test_a_budget_that_no_network_keeps_is_refused_before_the_search_with_the_widest_that_would() -> None:
    config: RunConfig = laptop()
    check_budget(config, 21)  # there is none
    config.budget.macs = 40_000_000
    says = r"the least there is: [\d,]+\); --train.width (\d+) has one, or allow more"
    with pytest.raises(UserError, match=says) as refused:
        check_budget(config, 21)
    width = int(str(refused.value).split("--train.width ")[1].split(" ")[0])
    check_budget(replace(config, train=replace(config.train, width=width)), 21)
    with pytest.raises(UserError):
        check_budget(replace(config, train=replace(config.train, width=width + 1)), 21)
    config.budget.macs = 1
    with pytest.raises(UserError, match=r"no width of .* has one, or allow more"):
        check_budget(config, 21)
