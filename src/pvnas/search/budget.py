"""The best genotype within a budget, exactly: no penalty to tune, no weight between accuracy and cost.

Every network of a config costs a constant and the sum of its kept edges (``pvnas.space.cost_table``), and a genotype's
score is the sum of its edges' log scores. So the best one within limits on parameters and multiply-accumulates is a
knapsack with a choice at each node, which a dynamic program solves: node by node it keeps what no other choice beats in
both costs and in score. Pure: alphas, prices and limits in, a genotype out.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pvnas.errors import UserError
from pvnas.search.derive import derive
from pvnas.space.cost_table import CostTable, Kind, Price, kind_of
from pvnas.space.genotype import EDGES, INPUTS, NODES, ZERO, Edge, Genotype, operations_of


@dataclass(frozen=True)
class Limits:
    """The most that a network may have; None: any number."""

    params: int | None = None
    macs: int | None = None
    """Of one view."""

    @property
    def given(self) -> dict[str, int]:
        """The limits that there are, by name."""
        limits = {"params": self.params, "macs": self.macs}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.given)

    def allow(self, price: Price) -> bool:
        """Return whether a network of this price is within them."""
        costs = price._asdict()
        return all(costs[name] <= limit for name, limit in self.given.items())


class Scores:
    """Log scores of operations: log softmax over all operations of an edge, zero included, as ``derive`` has it.

    ``charges``: what is taken off the score of each edge of a kind.
    """

    def __init__(self, alphas: Mapping[str, Tensor], charges: Mapping[Kind, float] | None = None) -> None:
        self.categories, self._charges = tuple(alphas), charges or {}
        self._columns = {name: {each: n for n, each in enumerate(operations_of(name))} for name in alphas}
        self._by_category = {
            category: alpha.detach().to("cpu", torch.float64).log_softmax(-1).numpy()
            for category, alpha in alphas.items()
        }

    def of_edge(self, category: str, node: int, edge: Edge) -> float:
        """Return the log score of an operation on an edge."""
        row, column = EDGES.index((node, edge.predecessor)), self._columns[category][edge.operation]
        return float(self._by_category[category][row, column]) - self._charges.get(kind_of(category, edge), 0.0)

    def of(self, genotype: Genotype) -> float:
        """Return a genotype's: the sum over its edges."""
        return math.fsum(self.of_edge(*place) for place in genotype.edges())


def derive_within(
    alphas: Mapping[str, Tensor], table: CostTable, limits: Limits, charges: Mapping[Kind, float] | None = None
) -> Genotype:
    """Return the genotype of the highest sum of log scores, less charges, whose network is within all limits.

    Without limits, or where they allow it, it is what ``derive`` returns, unless kinds of edges are charged for. Of
    equal ones the one that costs less of what is limited stays, then the first by category, node, predecessors and
    operations. Raises UserError, with the least that there is, where not even the cheapest is within.
    """
    if not charges and limits.allow(table.of(best := derive(alphas))):
        return best
    front, genotypes = _front(Scores(alphas, charges), table, limits, list(limits.given))
    return genotypes(int(np.argmax(front.scores)))


class Point(NamedTuple):
    """A genotype that no other one beats in both costs and in score."""

    price: Price
    log_score: float
    genotype: Genotype


def pareto_front(alphas: Mapping[str, Tensor], table: CostTable) -> list[Point]:
    """Return all genotypes that no other one beats in both costs and in log score, the cheapest first."""
    front, genotypes = _front(Scores(alphas), table, Limits(), Price._fields)
    order = np.lexsort((front.costs_N2[:, 0], front.costs_N2[:, 1]))
    return [Point(Price(*front.costs_N2[i].tolist()), float(front.scores[i]), genotypes(i)) for i in order.tolist()]


def _front(
    scores: Scores, table: CostTable, limits: Limits, compared: Sequence[str]
) -> tuple[_Front, Callable[[int], Genotype]]:
    """Return the front within the limits over all nodes, and what makes the genotype of one of its points.

    ``compared``: the costs that it is about; the others count as nothing.
    """
    places = [(category, node) for category in scores.categories for node in _NODES]
    counts_2 = np.array([name in compared for name in Price._fields], dtype=np.int64)
    choices = [_choices(category, node, scores, table, counts_2) for category, node in places]
    front = _Front.empty(np.array(table.constant) * counts_2, len(choices))
    for number, options in enumerate(choices):
        front = front.with_node(number, options, limits, _least(choices[number + 1 :]))
        if not len(front.scores):
            raise UserError(_too_small(table, choices, limits))

    def genotype(point: int) -> Genotype:
        cells: dict[str, list[tuple[Edge, Edge]]] = {name: [] for name in scores.categories}
        for (category, _), options, pick in zip(places, choices, front.picks[point].tolist(), strict=True):
            cells[category].append(options.edges[pick])
        return Genotype.from_cells(cells)

    return front, genotype


_NODES = range(INPUTS, INPUTS + NODES)


class _Options(NamedTuple):
    """The ways to fill one node that no other one of it beats: two edges, what they cost and score."""

    edges: list[tuple[Edge, Edge]]
    costs_N2: NDArray[np.int64]
    scores_N: NDArray[np.float64]


def _choices(category: str, node: int, scores: Scores, table: CostTable, counts_2: NDArray[np.int64]) -> _Options:
    operations = [name for name in operations_of(category) if name != ZERO]
    edges = [Edge(before, name) for before in range(node) for name in operations]
    costs_E2 = np.array([table.of_edge(category, edge) for edge in edges], dtype=np.int64) * counts_2
    scores_E = np.array([scores.of_edge(category, node, edge) for edge in edges])
    pairs = [
        (before * len(operations) + one, other_before * len(operations) + other)
        for before, other_before in combinations(range(node), 2)
        for one, other in product(range(len(operations)), repeat=2)
    ]
    first_N, second_N = np.array(pairs).T
    costs_N2, scores_N = costs_E2[first_N] + costs_E2[second_N], scores_E[first_N] + scores_E[second_N]
    kept = _unbeaten(costs_N2, scores_N)
    return _Options([(edges[pairs[i][0]], edges[pairs[i][1]]) for i in kept], costs_N2[kept], scores_N[kept])


def _least(choices: Sequence[_Options]) -> NDArray[np.int64]:
    """Return the least parameters and the least multiply-accumulates of some nodes, (2,)."""
    return sum((options.costs_N2.min(0) for options in choices), np.zeros(2, dtype=np.int64))


class _Front(NamedTuple):
    """What the nodes so far may be: costs and scores that no other choice beats, and which options make them."""

    costs_N2: NDArray[np.int64]
    scores: NDArray[np.float64]
    picks: NDArray[np.int32]

    @classmethod
    def empty(cls, constant_2: NDArray[np.int64], nodes: int) -> _Front:
        return cls(constant_2[None], np.zeros(1), np.zeros((1, nodes), dtype=np.int32))

    def with_node(self, number: int, options: _Options, limits: Limits, rest_2: NDArray[np.int64]) -> _Front:
        """Return the front with one node more; ``rest_2``: the least that the nodes behind it cost."""
        before, option = (each.ravel() for each in np.indices((len(self.scores), len(options.scores_N))))
        costs_N2 = self.costs_N2[before] + options.costs_N2[option]
        scores = self.scores[before] + options.scores_N[option]
        most_2 = [np.iinfo(np.int64).max if limit is None else limit for limit in (limits.params, limits.macs)]
        within = np.flatnonzero((costs_N2 <= np.array(most_2) - rest_2).all(1))
        kept = within[_unbeaten(costs_N2[within], scores[within])]
        picks = self.picks[before[kept]].copy()
        picks[:, number] = option[kept]
        return _Front(costs_N2[kept], scores[kept], picks)


def _unbeaten(costs_N2: NDArray[np.int64], scores_N: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return, in their order, the numbers of those that no other one is as good as in both costs and in score.

    Of equal ones the first stays.
    """
    order = np.lexsort((np.arange(len(scores_N)), -scores_N, costs_N2[:, 1], costs_N2[:, 0]))
    # Of those seen so far, by rising multiply-accumulates, the best score up to each: a staircase that rises.
    macs: list[int] = []
    best: list[float] = []
    kept = []
    for i, cost, score in zip(order.tolist(), costs_N2[order, 1].tolist(), scores_N[order].tolist(), strict=True):
        below = bisect_right(macs, cost)
        if below and best[below - 1] >= score:
            continue
        kept.append(i)
        first = bisect_left(macs, cost)
        last = bisect_right(best, score, lo=first)  # steps at as many or more that are no better
        macs[first:last], best[first:last] = [cost], [score]
    return np.sort(np.array(kept, dtype=np.intp))


def _too_small(table: CostTable, choices: Sequence[_Options], limits: Limits) -> str:
    """Return what to say of limits that no network is within."""
    params, macs = (_least(choices) + np.array(table.constant)).tolist()
    least = {"params": params, "macs": macs}
    lacking = [f"budget.{name} {limit:,} (the least there is: {least[name]:,})" for name, limit in limits.given.items()]
    return f"no network of this layout, width and clip is within {' and '.join(lacking)}"
