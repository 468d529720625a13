"""From architecture parameters to a genotype (paper, section 3.2.1), and whether a search collapses: when nearly all
operations that it keeps are without parameters (section 3.3 and figure 4). Pure: alpha and names in."""

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from pvnas.space.genotype import EDGES, INPUTS, KEPT_EDGES, NODES, ZERO, Cell, Edge, Genotype, operations_of


def derive(alphas: Mapping[str, Tensor]) -> Genotype:
    """Return the genotype that (E, O) alphas by category stand for.

    The score of an operation is the softmax over ALL operations of its edge, zero included in the denominator. Each
    edge keeps its best operation but zero, each node its 2 best edges; ties go to the lowest index.
    """
    return Genotype.from_cells({category: derive_cell(alpha, category) for category, alpha in alphas.items()})


def effective_alphas(history: Sequence[Mapping[str, Tensor]], temperatures: Sequence[float]) -> dict[str, Tensor]:
    """Return alphas, in float64, whose softmax is the mean over some epochs of softmax(alpha / temperature).

    They are what ``derive`` and ``collapse_record`` take: the paper's, one epoch at a temperature of 1, stay as they
    are. A mean over epochs evens out the random walk that alpha makes while nothing is decided.
    """
    logits = [
        {category: alpha.detach().double() / temperature for category, alpha in alphas.items()}
        for alphas, temperature in zip(history, temperatures, strict=True)
    ]
    if len(logits) == 1:
        return logits[0]
    return {
        category: torch.stack([each[category].cpu().log_softmax(-1) for each in logits]).logsumexp(0)
        for category in logits[0]
    }


def derive_cell(alpha_EO: Tensor, category: str) -> Cell:
    """Return one category's cell."""
    names = operations_of(category)
    scores_EO = alpha_EO.detach().to("cpu", torch.float64).softmax(-1)
    candidates: list[tuple[float, str]] = []
    for row in scores_EO.tolist():
        scored = [(score, name) for score, name in zip(row, names, strict=True) if name != ZERO]
        candidates.append(max(scored, key=itemgetter(0)))  # the first of equals
    nodes = []
    for node in range(INPUTS, INPUTS + NODES):
        incoming = [(before, *candidates[edge]) for edge, (target, before) in enumerate(EDGES) if target == node]
        # sorted() is stable, so equal scores keep the lower predecessor first.
        best = sorted(incoming, key=lambda candidate: -candidate[1])[:KEPT_EDGES]
        first, second = (Edge(before, operation) for before, _, operation in best)
        nodes.append((first, second))
    return tuple(nodes)


OPERATIONS_PER_CELL = KEPT_EDGES * NODES
# A random cell keeps 3 of 5 (spatial) or 3 of 7 (temporal) operations without parameters. Seven or more of eight in a
# cell is beyond chance (probability 0.11 and 0.013) and leaves next to nothing to train in it.
COLLAPSED_AT = 7
# With an entropy of alpha this near to ln(operations) nothing is decided: what would be kept is chance, as in short
# searches, and no collapse whatever it is.
UNDECIDED_SHARE = 0.99


def entropy(alpha_EO: Tensor) -> float:
    """Return the mean over the edges of the entropy of softmax(alpha), in nats; ln(O) where nothing is decided."""
    log_p = alpha_EO.detach().double().log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum(-1).mean())


def collapse_record(alphas: Mapping[str, Tensor], genotype: Genotype) -> dict[str, Any]:
    """Return how many kept operations have no parameters and how undecided alpha is, per category and in all."""
    entropies = {category: entropy(alpha) for category, alpha in alphas.items()}
    entropies["mean"] = math.fsum(entropies.values()) / len(entropies)
    return {"parameter_free": genotype.parameter_free(), "alpha_entropy": entropies}


def collapsed_cells(record: Mapping[str, Any]) -> list[str]:
    """Return the categories whose alphas have decided for at least COLLAPSED_AT of 8 operations without parameters."""
    return [
        category
        for category, n in record["parameter_free"].items()
        if category != "total"
        and n >= COLLAPSED_AT
        and record["alpha_entropy"][category] < UNDECIDED_SHARE * math.log(len(operations_of(category)))
    ]


def collapse_warning(record: Mapping[str, Any], epoch: int) -> str | None:
    """Return one line that says which cells have collapsed after this epoch and what helps; None if none has."""
    cells = collapsed_cells(record)
    if not cells:
        return None
    counts = ", ".join(f"{c} {record['parameter_free'][c]} of {OPERATIONS_PER_CELL}" for c in cells)
    return (
        f"epoch {epoch}: the search is collapsing to operations without parameters ({counts}); in a new run "
        "let the weights' rate fall later (--search.weights.schedule.kind step, a larger "
        "--search.weights.schedule.step_epochs), or take the cells of an earlier epoch (--search.stop_epoch)"
    )
