"""From architecture parameters to a genotype (paper, section 3.2.1). Pure: alpha and names in, genotype out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pvnas.space.genotype import EDGES, INPUTS, KEPT_EDGES, NODES, ZERO, Cell, Edge, Genotype, operations_of


def derive(alphas: Mapping[str, Tensor]) -> Genotype:
    """Return the genotype that (E, O) alphas by category stand for.

    The score of an operation is the softmax over ALL operations of its edge, zero included in the denominator. Each
    edge keeps its best operation but zero, each node its 2 best edges; ties go to the lowest index.
    """
    return Genotype.from_cells({category: derive_cell(alpha, category) for category, alpha in alphas.items()})


def derive_cell(alpha_EO: Tensor, category: str) -> Cell:
    """Return one category's cell."""
    names = operations_of(category)
    scores_EO = alpha_EO.detach().to("cpu", torch.float64).softmax(-1)
    candidates = [_best_operation(row, names) for row in scores_EO.tolist()]
    nodes = []
    for node in range(INPUTS, INPUTS + NODES):
        incoming = [(before, *candidates[edge]) for edge, (target, before) in enumerate(EDGES) if target == node]
        # sorted() is stable, so equal scores keep the lower predecessor first.
        best = sorted(incoming, key=lambda candidate: -candidate[1])[:KEPT_EDGES]
        first, second = (Edge(before, operation) for before, _, operation in best)
        nodes.append((first, second))
    return tuple(nodes)


def _best_operation(scores: list[float], names: tuple[str, ...]) -> tuple[float, str]:
    """Return (score, name) of the best operation but zero; max() keeps the first of equals."""
    return max(
        ((score, name) for score, name in zip(scores, names, strict=True) if name != ZERO), key=lambda pair: pair[0]
    )
