"""Genotypes that have all operations."""

from pvnas.space.genotype import CATEGORIES, Edge, Genotype, operations_of


def with_every_operation(first: int) -> Genotype:
    """Every operation of every category, some of them at stride 2: the operations in turn, from one of them on."""
    cells = {}
    for category in CATEGORIES:
        names = [name for name in operations_of(category) if name != "zero"]
        turn = [names[(first + place) % len(names)] for place in range(8)]
        nodes = [(Edge(0, turn[2 * node]), Edge(1 + node, turn[2 * node + 1])) for node in range(4)]
        cells[category] = tuple(nodes)
    return Genotype(tuple(cells.items()))
