"""Places the shapes of a cell: inputs left, nodes in columns, the output right, a pill before the node for every edge.

An edge leaves its tail in one curve and keeps a row of its own from there to its pill, and so does the line from a node
to the output: lines cross each other where they must, but never a shape. Cells are small enough to try every order of
their nodes. All lengths are in points (1/72 inch); x points right, y points up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from math import inf
from statistics import median

from pvnas.space.genotype import INPUTS, Cell

INPUT_SIZE, OUTPUT_SIZE, NODE_SIZE, PILL_HEIGHT = (72.0, 32.0), (60.0, 32.0), (27.0, 27.0), 19.0
ROW = 25.0  # from one pill of a node to the other
SPACE = 8.0  # between a pill or a line and the next
PILL_TO_NODE, NODES_TO_OUTPUT = 16.0, 38.0
SHORTEST_BEND, LONGEST_BEND = 30.0, 66.0
CROSSING = 60.0  # as bad as so much up and down

Point = tuple[float, float]
Tails = Sequence[Sequence[int]]


@dataclass(frozen=True)
class CellLayout:
    """Centres and sizes of the shapes, and the lines between them as control points of cubic Bézier curves (3 n + 1).

    Shapes: "0" and "1" are the inputs, "2" to "5" the nodes, "0>2" the pill of the edge from 0 to 2, "out" the output.
    """

    centres: dict[str, Point]
    sizes: dict[str, Point]
    lines: dict[tuple[str, str], list[Point]]


@dataclass(frozen=True)
class _Rows:
    """The column of every input and node, its height, and the height of the row of every edge (tail, node)."""

    columns: Mapping[int, int]
    heights: Mapping[int, float]
    edges: Mapping[tuple[int, int], float]

    def lines_before(self, column: int) -> list[tuple[float, float]]:
        """Return the heights at which lines leave the column before this one and reach this one."""
        lines = [(tail, self.columns[node], row) for (tail, node), row in self.edges.items()]
        lines += [(node, column, height) for node, height in self.heights.items() if node >= INPUTS]  # to the output
        crossing = [(tail, row) for tail, end, row in lines if self.columns[tail] < column <= end]
        return [(self.heights[tail] if self.columns[tail] == column - 1 else row, row) for tail, row in crossing]

    def cost(self) -> float:
        """Return what makes the drawing hard to read: crossings, the way up and down of all lines, the height."""
        total = max(self.heights.values()) - min(self.heights.values())
        for column in range(1, max(self.columns.values()) + 1):
            lines = self.lines_before(column)
            total += sum(abs(start - end) for start, end in lines)
            total += CROSSING * sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(lines, 2))
        return total


def lay_out(cell: Cell, pill_width: float) -> CellLayout:
    """Place a cell with the order of its nodes, and of the edges of each, that is easiest to read."""
    columns = dict.fromkeys(range(INPUTS), 0)
    for node, edges in enumerate(cell, start=INPUTS):
        columns[node] = 1 + max(columns[edge.predecessor] for edge in edges)
    orders = permutations(range(INPUTS, INPUTS + len(cell)))
    tails = product(*(permutations([edge.predecessor for edge in edges]) for edges in cell))
    rows = min((_place_rows(columns, *choice) for choice in product(orders, tails)), key=_Rows.cost)
    return _place_columns(rows, pill_width)


def _place_rows(columns: Mapping[int, int], order: Sequence[int], tails: Tails) -> _Rows:
    """Place nodes in this order from top to bottom, as level with their neighbours as there is room.

    ``tails``: where the edges of every node come from, the upper row first.
    """
    shifts = {
        (tail, node): ROW * ((len(upper_first) - 1) / 2 - row)
        for node, upper_first in enumerate(tails, start=INPUTS)
        for row, tail in enumerate(upper_first)
    }
    distances = {(a, b): _distance(a, b, columns, shifts) for a, b in combinations(order, 2)}
    distances[0, 1] = INPUT_SIZE[1] + SPACE
    heights = {0: distances[0, 1] / 2, 1: -distances[0, 1] / 2}
    for node in order:
        heights[node] = min((heights[a] - d for (a, b), d in distances.items() if b == node), default=0.0)
    for _ in range(6):
        for name in (*order, *range(INPUTS)):
            level = [heights[node] + shift for (tail, node), shift in shifts.items() if tail == name]
            level += [heights[tail] - shift for (tail, node), shift in shifts.items() if node == name]
            highest = min((heights[a] - d for (a, b), d in distances.items() if b == name), default=inf)
            lowest = max((heights[b] + d for (a, b), d in distances.items() if a == name), default=-inf)
            heights[name] = max(min(median(level or [heights[name]]), highest), lowest)
    return _Rows(columns, heights, {(tail, node): heights[node] + shift for (tail, node), shift in shifts.items()})


def _distance(upper: int, lower: int, columns: Mapping[int, int], shifts: Mapping[tuple[int, int], float]) -> float:
    """Return how far apart two nodes must be for nothing of the one to lie on anything of the other in any column."""

    def extent(name: int, column: int) -> tuple[float, float] | None:
        """Lowest and highest of what a node has there: edges on their way to it, it with its pills, its line away."""
        if column > columns[name]:
            return 0.0, 0.0
        rows = [shift for (tail, node), shift in shifts.items() if node == name and columns[tail] < column]
        half = PILL_HEIGHT / 2 if column == columns[name] else 0.0
        return (min(rows) - half, max(rows) + half) if rows else None

    extents = [(extent(upper, column), extent(lower, column)) for column in range(1, max(columns.values()) + 1)]
    return max((below[1] - above[0] + SPACE for above, below in extents if above and below), default=0.0)


def _place_columns(rows: _Rows, pill_width: float) -> CellLayout:
    """Place the columns from left to right, the wider apart the more the lines between them climb; draw the lines."""
    xs: list[float] = []
    bends: list[float] = []
    right = 0.0
    for column in range(max(rows.columns.values()) + 1):
        width = NODE_SIZE[0] if column else INPUT_SIZE[0]
        left = right + bends[-1] + pill_width + PILL_TO_NODE if column else 0.0
        xs.append(left + width / 2)
        right = left + width
        climb = max((abs(start - end) for start, end in rows.lines_before(column + 1)), default=0.0)
        bends.append(min(max(0.4 * climb, SHORTEST_BEND), LONGEST_BEND))
    centres = {str(node): (xs[rows.columns[node]], height) for node, height in rows.heights.items()}
    sizes = {str(node): NODE_SIZE if node >= INPUTS else INPUT_SIZE for node in rows.heights}
    lines: dict[tuple[str, str], list[Point]] = {}
    for (tail, node), row in rows.edges.items():
        pill, pill_right = f"{tail}>{node}", xs[rows.columns[node]] - NODE_SIZE[0] / 2 - PILL_TO_NODE
        centres[pill], sizes[pill] = (pill_right - pill_width / 2, row), (pill_width, PILL_HEIGHT)
        start = centres[str(tail)][0] + sizes[str(tail)][0] / 2, rows.heights[tail]
        bent = start[0] + bends[rows.columns[tail]] - 4, row
        lines[str(tail), pill] = [*_curve(start, bent), *_curve(bent, (pill_right - pill_width, row))[1:]]
        rim = pill_right + PILL_TO_NODE + 1, 0.57 * rows.heights[node] + 0.43 * row
        lines[pill, str(node)] = _curve((pill_right, row), rim)
    nodes = [height for node, height in rows.heights.items() if node >= INPUTS]
    join = right + NODES_TO_OUTPUT, (max(nodes) + min(nodes)) / 2
    centres["out"], sizes["out"] = (join[0] + OUTPUT_SIZE[0] / 2, join[1]), OUTPUT_SIZE
    for node in range(INPUTS, len(rows.heights)):
        x, height = centres[str(node)]
        bent = right + 2, height
        lines[str(node), "out"] = [*_curve((x + NODE_SIZE[0] / 2, height), bent), *_curve(bent, join)[1:]]
    return CellLayout(centres, sizes, lines)


def _curve(start: Point, end: Point) -> list[Point]:
    """Return the control points of a curve that leaves and arrives level."""
    middle = (start[0] + end[0]) / 2
    return [start, (middle, start[1]), (middle, end[1]), end]
