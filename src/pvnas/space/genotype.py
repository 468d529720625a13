"""What a search finds: for each category of cells, two operations for each of its four intermediate nodes.

A cell is a graph of six nodes (paper, section 3.1). Nodes 0 and 1 are the outputs of the two preceding cells, nodes 2
to 5 sum what their edges bring, and the cell's output is the concatenation of nodes 2 to 5.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pvnas.errors import UserError
from pvnas.space.operations import ZERO, is_parameter_free, operations_of

FORMAT, VERSION = "pvnas-genotype", 1
CATEGORIES = ("S-NC", "S-RC", "T-NC", "T-RC")
INPUTS, NODES, KEPT_EDGES = 2, 4, 2
# The 14 candidate edges (node, predecessor) in the order of the rows of alpha: 2 from 0, 1; 3 from 0, 1, 2; ...
EDGES = tuple((node, predecessor) for node in range(INPUTS, INPUTS + NODES) for predecessor in range(node))
MAX_JSON_BYTES = 1 << 20


class Edge(NamedTuple):
    """One kept edge of a node: where it comes from and what is done on it."""

    predecessor: int
    operation: str


Cell = tuple[tuple[Edge, Edge], ...]


def is_reduction(category: str) -> bool:
    """Return whether cells of this category halve height and width and double the channels."""
    return category.endswith("-RC")


def space_size(category: str | None = None) -> int:
    """Return how many cells a category has, or (None) how many genotypes there are: the product of the four.

    A node with k predecessors chooses 2 of them and one of |O| - 1 operations (zero is never kept) on each.
    """
    if category is None:
        return math.prod(space_size(each) for each in CATEGORIES)
    choices = len(operations_of(category)) - 1
    return math.prod(math.comb(node, KEPT_EDGES) * choices**KEPT_EDGES for node in range(INPUTS, INPUTS + NODES))


@dataclass(frozen=True)
class Genotype:
    """Cells by category. Hashable; two genotypes are equal when their cells are, wherever they came from.

    Raises UserError, naming cell, node and edge, when the cells are not in the search space.
    """

    items: tuple[tuple[str, Cell], ...]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    def __post_init__(self) -> None:
        cells = {category: _checked_cell(category, cell) for category, cell in self.items}
        if not cells or len(cells) != len(self.items):
            raise UserError("genotype: needs each category once, at least one of " + ", ".join(CATEGORIES))
        ordered = tuple((category, cells[category]) for category in CATEGORIES if category in cells)
        object.__setattr__(self, "items", ordered)

    @property
    def cells(self) -> dict[str, Cell]:
        """Cells by category, in the order S-NC, S-RC, T-NC, T-RC."""
        return dict(self.items)

    @classmethod
    def from_cells(cls, cells: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> Genotype:
        """Build a genotype from ``{category: four nodes of two (predecessor, operation) pairs}``."""
        return cls(tuple(cells.items()), about or {})

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read the JSON form. Raises UserError with what is wrong and where."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"genotype: not JSON: {str(error)[:120]}") from error
        named = isinstance(data, dict) and data.get("format") == FORMAT
        _require(named, f'not a genotype file: "format" must be "{FORMAT}"')
        version, cells, about = data.get("version"), data.get("cells"), data.get("about", {})
        known = type(version) is int and version == VERSION
        _require(known, f"version {str(version)[:40]} is not known; this pvnas reads {VERSION}")
        objects = isinstance(cells, dict) and isinstance(about, dict)
        _require(objects, '"cells" must be an object of cells by category, "about" an object')
        return cls.from_cells({category: _cell_from_json(category, cell) for category, cell in cells.items()}, about)

    @classmethod
    def load(cls, path: str | Path) -> Genotype:
        """Read a genotype file. Raises UserError that names the file."""
        try:
            if Path(path).stat().st_size > MAX_JSON_BYTES:
                raise UserError(f"{path}: too large for a genotype file")
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot read the genotype: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not a genotype file: not UTF-8 text") from error
        try:
            return cls.from_json(text)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def to_json(self) -> str:
        """Return the JSON form, one node per line."""
        lines = []
        for category, cell in self.items:
            nodes = [json.dumps([{"from": edge.predecessor, "op": edge.operation} for edge in node]) for node in cell]
            lines.append(f'  "{category}": [\n   ' + ",\n   ".join(nodes) + "\n  ]")
        about = f',\n "about": {json.dumps(dict(self.about), sort_keys=True)}' if self.about else ""
        cells = ",\n".join(lines)
        return f'{{\n "format": "{FORMAT}",\n "version": {VERSION},\n "cells": {{\n{cells}\n }}{about}\n}}\n'

    def with_about(self, **about: Any) -> Genotype:
        """Return the same cells with other notes on where they came from."""
        return Genotype(self.items, about)

    def edges(self) -> Iterator[tuple[str, int, Edge]]:
        """Yield (category, node, edge) for every kept edge."""
        for category, cell in self.items:
            for node, edges in enumerate(cell, start=INPUTS):
                for edge in edges:
                    yield category, node, edge

    def parameter_free(self) -> dict[str, int]:
        """Count the kept operations without parameters (identity, pooling): per category, and ``total``."""
        counts = dict.fromkeys(self.cells, 0)
        for category, _, edge in self.edges():
            counts[category] += is_parameter_free(edge.operation)
        return {**counts, "total": sum(counts.values())}


def random_genotype(seed: int, min_convolutions: int = 0, categories: tuple[str, ...] = CATEGORIES) -> Genotype:
    """Draw a genotype uniformly among those with at least ``min_convolutions`` convolutions in every cell.

    The paper's random baseline (table 3) uses 4. Raises UserError when a cell cannot hold that many.
    """
    most = KEPT_EDGES * NODES
    if not 0 <= min_convolutions <= most:
        raise UserError(f"a cell has {most} operations: at least {min_convolutions} convolutions cannot be asked of it")
    draw = random.Random(seed)
    cells = {category: _random_cell(draw, category, min_convolutions) for category in categories}
    return Genotype.from_cells(cells, {"random_seed": seed, "min_convolutions": min_convolutions})


def _random_cell(draw: random.Random, category: str, min_convolutions: int) -> Cell:
    """Draw the number of convolutions by its share of all cells, then the cell: exact and without rejection."""
    operations = [name for name in operations_of(category) if name != ZERO]
    free = [name for name in operations if is_parameter_free(name)]
    convolutions = [name for name in operations if not is_parameter_free(name)]
    slots = KEPT_EDGES * NODES
    counts = range(min_convolutions, slots + 1)
    shares = [math.comb(slots, n) * len(convolutions) ** n * len(free) ** (slots - n) for n in counts]
    n_convolutions = draw.choices(counts, weights=shares)[0]
    convolved = set(draw.sample(range(slots), n_convolutions))
    chosen = [draw.choice(convolutions if slot in convolved else free) for slot in range(slots)]
    nodes = []
    for index in range(NODES):
        predecessors = sorted(draw.sample(range(INPUTS + index), KEPT_EDGES))
        first, second = (Edge(node, chosen[KEPT_EDGES * index + k]) for k, node in enumerate(predecessors))
        nodes.append((first, second))
    return tuple(nodes)


def _require(met: bool, what: str) -> None:
    if not met:
        raise UserError(f"genotype: {what}")


def _cell_from_json(category: str, cell: Any) -> Any:
    """Turn ``{"from": 0, "op": name}`` into (predecessor, operation) and leave the checks to the constructor."""
    where = f"cell {str(category)[:40]}"
    _require(isinstance(cell, list), f"{where}: must be a list of {NODES} nodes")
    nodes = []
    for number, node in enumerate(cell, start=INPUTS):
        _require(isinstance(node, list), f"{where}, node {number}: must be a list of {KEPT_EDGES} edges")
        for index, edge in enumerate(node):
            fits = isinstance(edge, dict) and set(edge) == {"from", "op"}
            _require(fits, f'{where}, node {number}, edge {index}: must be {{"from": node, "op": operation}}')
        nodes.append([(edge["from"], edge["op"]) for edge in node])
    return nodes


def _checked_cell(category: str, cell: Any) -> Cell:
    _require(category in CATEGORIES, f"unknown cell {str(category)[:40]!r}; cells are {', '.join(CATEGORIES)}")
    _require(len(cell) == NODES, f"cell {category}: has {len(cell)} nodes, must have {NODES}")
    return tuple(_checked_node(category, number, node) for number, node in enumerate(cell, start=INPUTS))


def _checked_node(category: str, number: int, node: Any) -> tuple[Edge, Edge]:
    where = f"cell {category}, node {number}"
    _require(len(node) == KEPT_EDGES, f"{where}: has {len(node)} edges, must have {KEPT_EDGES}")
    known = [name for name in operations_of(category) if name != ZERO]
    for index, (predecessor, operation) in enumerate(node):
        before = type(predecessor) is int and 0 <= predecessor < number
        came = f"comes from {str(predecessor)[:40]}, must come from 0 to {number - 1}"
        _require(before, f"{where}, edge {index}: {came}")
        _require(operation != ZERO, f"{where}, edge {index}: zero is never kept in a cell")
        unknown = f"unknown operation {str(operation)[:40]!r}; known: {', '.join(known)}"
        _require(operation in known, f"{where}, edge {index}: {unknown}")
    first, second = sorted(Edge(predecessor, operation) for predecessor, operation in node)
    apart = f"both edges come from node {first.predecessor}, must come from two nodes"
    _require(first.predecessor != second.predecessor, f"{where}, edge 1: {apart}")
    return first, second
