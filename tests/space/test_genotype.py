"""Genotypes: what is accepted, what is refused and with which words, the sizes of the space, random draws."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvnas.errors import UserError
from pvnas.space.genotype import CATEGORIES, Genotype, random_genotype, space_size
from pvnas.space.operations import is_parameter_free, operations_of


def cell_json(category="S-NC"):
    nodes = [[{"from": 0, "op": "identity"}, {"from": 1, "op": "sep_conv_1x3x3"}] for _ in range(4)]
    return {"format": "pvnas-genotype", "version": 1, "cells": {category: nodes}}


def test_space_sizes_are_those_of_the_paper():
    pairs = math.prod(k * (k + 1) // 2 for k in range(1, 5))
    assert pairs == 180
    spatial, temporal = pairs * 5**8, pairs * 7**8
    assert [space_size(c) for c in CATEGORIES] == [spatial, spatial, temporal, temporal]
    assert space_size() == spatial**2 * temporal**2
    assert (spatial, temporal) == (70_312_500, 1_037_664_180)
    assert f"{space_size():.1e}" == "5.3e+33"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), least=st.integers(0, 8))
def test_random_genotypes_are_valid_and_round_trip(seed, least):
    genotype = random_genotype(seed, least)
    again = Genotype.from_json(genotype.to_json())
    assert again == genotype
    assert hash(again) == hash(genotype)
    assert again.about == genotype.about
    for category, cell in genotype.cells.items():
        convolutions = sum(not is_parameter_free(edge.operation) for node in cell for edge in node)
        assert convolutions >= least
        for node, edges in enumerate(cell, start=2):
            assert len({edge.predecessor for edge in edges}) == 2
            assert all(0 <= edge.predecessor < node and edge.operation in operations_of(category) for edge in edges)


def test_random_genotypes_are_uniform_over_operations():
    counts = dict.fromkeys(operations_of("S-NC"), 0)
    n = 600
    for seed in range(n):
        for _, _, edge in random_genotype(seed, categories=("S-NC",)).edges():
            counts[edge.operation] += 1
    assert counts.pop("zero") == 0
    expected = n * 8 / 5
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


def test_edges_are_ordered_so_that_equal_cells_are_equal():
    data = cell_json()
    flipped = json.loads(json.dumps(data))
    for node in flipped["cells"]["S-NC"]:
        node.reverse()
    assert Genotype.from_json(json.dumps(data)) == Genotype.from_json(json.dumps(flipped))


def change(path, value):
    def apply(data):
        *way, last = path
        for step in way:
            data = data[step]
        data[last] = value

    return apply


NODE = ("cells", "S-NC", 2)


@pytest.mark.parametrize(
    "edit, words",
    [
        (change(("format",), "x"), "not a genotype file"),
        (change(("version",), 2), "version 2"),
        (change(("version",), True), "version"),
        (change(("cells",), []), '"cells"'),
        (change(("cells",), {}), "at least one"),
        (change(("cells", "S-XX"), [[]]), "'S-XX'"),
        (change(("cells", "S-NC"), 3), "cell S-NC: must be a list"),
        (change(("cells", "S-NC"), [[]] * 3), "cell S-NC: has 3 nodes"),
        (change(NODE, []), "cell S-NC, node 4: has 0 edges"),
        (change((*NODE, 1), {"from": 0, "op": "identity"}), "cell S-NC, node 4, edge 1: both edges come from node 0"),
        (change((*NODE, 1, "from"), 4), "cell S-NC, node 4, edge 1: comes from 4"),
        (change((*NODE, 1, "from"), -1), "comes from -1"),
        (change((*NODE, 1, "from"), 10**400), "comes from 1000"),
        (change((*NODE, 1, "from"), True), "comes from True"),
        (change((*NODE, 1, "op"), "zero"), "cell S-NC, node 4, edge 1: zero is never kept"),
        (change((*NODE, 1, "op"), "temporal_conv_3+3x3"), "node 4, edge 1: unknown operation 'temporal_conv_3+3x3'"),
        (change((*NODE, 1, "op"), ["identity"]), "unknown operation"),
        (change((*NODE, 1), {"from": 0}), 'must be {"from"'),
    ],
)
def test_what_is_wrong_is_named_with_cell_node_and_edge(edit, words):
    data = cell_json()
    edit(data)
    try:
        text = json.dumps(data)
    except ValueError:  # Python refuses to print such a number, so write it by hand
        data["cells"]["S-NC"][2][1]["from"] = 0
        text = json.dumps(data).replace('"from": 0, "op": "sep', '"from": 1' + "0" * 400 + ', "op": "sep')
    with pytest.raises(UserError) as caught:
        Genotype.from_json(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, '{"format": NaN}'])
def test_what_is_no_genotype_is_refused(text):
    with pytest.raises(UserError, match="genotype"):
        Genotype.from_json(text)


def test_files(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot read"):
        Genotype.load(tmp_path / "nowhere.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        Genotype.load(tmp_path / "bytes.json")
    (tmp_path / "large.json").write_bytes(b" " * (1 << 21))
    with pytest.raises(UserError, match="too large"):
        Genotype.load(tmp_path / "large.json")


def test_more_convolutions_than_operations_cannot_be_asked():
    with pytest.raises(UserError, match="at least 9"):
        random_genotype(0, 9)
