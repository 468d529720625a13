"""Derivation where the known rules disagree, zero, ties; entropy and collapse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pvnas.search.derive import (
    collapse_record,
    collapse_warning,
    collapsed_cells,
    derive,
    derive_cell,
    effective_alphas,
    entropy,
)
from pvnas.space.genotype import EDGES, Genotype, operations_of

IDENTITY, ZERO, AVERAGE, MAXIMUM, SEPARABLE, DILATED = range(6)


def flat():
    """Alphas in which every edge prefers average pooling by a hair and early edges win."""
    alpha = torch.zeros(len(EDGES), len(operations_of("S-NC")), dtype=torch.float64)
    alpha[:, AVERAGE] = 1e-3
    return alpha


def other_rules(alpha, node):
    """The two other rules in use: raw alphas across edges, and softmax renormalised without zero."""
    rows = [e for e, (target, _) in enumerate(EDGES) if target == node]
    without = [o for o in range(6) if o != ZERO]
    raw = sorted(range(len(rows)), key=lambda s: -alpha[rows[s]][without].max())[:2]
    renormalised = sorted(range(len(rows)), key=lambda s: -alpha[rows[s]][without].softmax(0).max())[:2]
    return sorted(raw), sorted(renormalised)


def test_a_case_where_the_three_rules_disagree():
    alpha = flat()
    node3 = [e for e, (target, _) in enumerate(EDGES) if target == 3]
    # scores by ours / raw alpha / without zero
    alpha[node3[0]] = torch.tensor([3.0, 2.9, 2.8, 2.8, 2.8, 2.8])  # 0.19 / 3.0 / 0.23: high but flat
    alpha[node3[1]] = torch.tensor([0.0, 6.0, 2.5, 0.0, 0.0, 0.0])  # 0.03 / 2.5 / 0.75: zero takes nearly all
    alpha[node3[2]] = torch.tensor([0.0, 0.0, 0.0, 0.0, 2.0, 0.0])  # 0.60 / 2.0 / 0.65
    ours = sorted(edge.predecessor for edge in derive_cell(alpha, "S-NC")[1])
    raw, renormalised = other_rules(alpha, 3)
    assert (ours, raw, renormalised) == ([0, 2], [0, 1], [1, 2])
    assert dict(derive_cell(alpha, "S-NC")[1]) == {0: "identity", 2: "sep_conv_1x3x3"}


def test_zero_is_never_kept_however_high():
    alpha = flat()
    alpha[:, ZERO] = 100.0
    assert all(edge.operation == "avg_pool_1x3x3" for node in derive_cell(alpha, "S-NC") for edge in node)


def test_ties_go_to_the_lowest_index():
    cell = derive_cell(torch.zeros(len(EDGES), 6), "S-NC")
    assert [[tuple(edge) for edge in node] for node in cell] == [[(0, "identity"), (1, "identity")]] * 4


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_derivation_is_pure_valid_and_blind_to_shifts_of_an_edge(seed):
    draw = torch.Generator().manual_seed(seed)
    alphas = {"S-NC": torch.randn(14, 6, generator=draw), "T-RC": torch.randn(14, 8, generator=draw)}
    before = {c: a.clone() for c, a in alphas.items()}
    genotype = derive(alphas)
    assert all(torch.equal(alphas[c], before[c]) for c in alphas)
    shifted = {c: a.double() + torch.randn(14, 1, generator=draw).double() for c, a in alphas.items()}
    assert derive({c: a.double() for c, a in alphas.items()}) == derive(shifted) == genotype


def test_a_mean_of_epochs_is_one_of_shares_and_not_of_alphas():
    """Their geometric mean, 0.03, 0.21, 0.07, would choose the second operation."""
    first, second = [0.9, 0.09, 0.01], [0.001, 0.5, 0.499]
    history = [{"S-NC": torch.tensor([share], dtype=torch.float64).log()} for share in (first, second)]
    mean = effective_alphas(history, [1.0, 1.0])["S-NC"].softmax(-1)
    assert mean[0].tolist() == pytest.approx([0.4505, 0.295, 0.2545])
    # At a temperature of 1/2 shares are squared: 0.81, 0.0081, 0.0001 of 0.8182.
    sharper = effective_alphas(history, [0.5, 1.0])["S-NC"].softmax(-1)
    assert sharper[0].tolist() == pytest.approx([0.49548912, 0.25494989, 0.24956111])


def test_the_papers_alphas_stay_as_they_are():
    alpha = torch.randn(14, 6)
    assert torch.equal(effective_alphas([{"S-NC": alpha}], [1.0])["S-NC"], alpha.double())


def test_entropy_by_hand():
    assert entropy(torch.zeros(14, 6)) == pytest.approx(math.log(6))
    decided = torch.zeros(14, 6)
    decided[:, 2] = 1000.0
    assert entropy(decided) == pytest.approx(0.0, abs=1e-9)


def test_a_collapse_is_counted_and_said():
    alphas = {"S-NC": flat(), "S-RC": flat()}
    alphas["S-RC"][:, SEPARABLE] = 5.0
    undecided = collapse_record(alphas, derive(alphas))
    assert undecided["parameter_free"]["S-NC"] == 8
    assert collapse_warning(undecided, 3) is None
    alphas["S-NC"][:, IDENTITY] = 0.5
    record = collapse_record(alphas, derive(alphas))
    assert record["parameter_free"] == {"S-NC": 8, "S-RC": 0, "total": 8}
    assert record["alpha_entropy"]["mean"] == pytest.approx(
        (record["alpha_entropy"]["S-NC"] + record["alpha_entropy"]["S-RC"]) / 2
    )
    assert collapsed_cells(record) == ["S-NC"]
    assert "S-NC 8 of 8" in (collapse_warning(record, 3) or "")
    alphas["S-NC"][:, SEPARABLE] = 5.0
    assert collapse_warning(collapse_record(alphas, derive(alphas)), 3) is None


def test_parameter_free_counts_kept_operations():
    nodes = [[(0, "identity"), (1, "sep_conv_1x3x3")]] * 3 + [[(0, "avg_pool_1x3x3"), (3, "max_pool_1x3x3")]]
    assert Genotype.from_cells({"T-NC": nodes}).parameter_free() == {"T-NC": 5, "total": 5}
