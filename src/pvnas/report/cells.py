"""Draws a searched cell as a graph: inputs on the left, the four nodes, the output on the right.

Every kept edge runs through a labelled pill, its operation, so that no label can collide with a line. Graphviz places
the shapes, which have fixed sizes and carry no text there, so that the drawing does not depend on the fonts of the
machine; matplotlib draws them, with the font it ships, into SVG and PNG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pvnas.report.style import (
    CATEGORY_NAMES,
    INK,
    KIND_COLOURS,
    KIND_DASHES,
    KIND_NAMES,
    KIND_WIDTHS,
    KINDS,
    MUTED,
    SHORT_NAMES,
    SURFACE,
    kind_of,
    new_figure,
)
from pvnas.space.genotype import INPUTS, Cell, is_reduction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pygraphviz import AGraph

POINTS = 72.0  # per inch
_NODE, _INPUT, _PILL, _OUTPUT = (0.38, 0.38), (1.0, 0.44), (1.36, 0.27), (0.86, 0.44)  # width, height in inches
_MARGIN = 6.0  # points
_PILL_TEXT = "#fdfdfd"  # on the colour of the kind, in a light and a dark page alike
_INPUT_LABELS = ("input 0\nlast cell but one", "input 1\nlast cell")


@dataclass(frozen=True)
class Placed:
    """Where Graphviz put a cell: centres by name and splines by (tail, head), all in points."""

    centres: dict[str, tuple[float, float]]
    splines: dict[tuple[str, str], list[tuple[float, float]]]
    size: tuple[float, float]


def draw_cell(category: str, cell: Cell, title: str = "") -> Figure:
    """Return the drawing of one cell. Call it inside :func:`pvnas.report.style.drawing`."""
    placed = place_cell(cell)
    width, height = placed.size[0] + 2 * _MARGIN, placed.size[1] + 2 * _MARGIN + 20
    figure = new_figure(width / POINTS, height / POINTS, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set_xlim(-_MARGIN, width - _MARGIN)
    ax.set_ylim(-_MARGIN, height - _MARGIN)
    _draw_edges(ax, placed, cell)
    _draw_shapes(ax, placed, category, cell)
    heading = title or f"{category} · {CATEGORY_NAMES[category]}"
    ax.text(0, height - _MARGIN - 14, heading, fontsize=10.5, fontweight="bold", color=INK)
    return figure


def draw_legend() -> Figure:
    """Return the legend of the cells: colour and dash by kind of operation."""
    figure = new_figure(9.0, 0.3, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set_xlim(0, 9.0)
    ax.set_ylim(0, 0.3)
    left = 0.05
    for kind in KINDS:
        ax.plot([left, left + 0.42], [0.15, 0.15], color=KIND_COLOURS[kind], ls=KIND_DASHES[kind], lw=KIND_WIDTHS[kind])
        ax.text(left + 0.5, 0.15, KIND_NAMES[kind], va="center", fontsize=9)
        left += 0.8 + 0.072 * len(KIND_NAMES[kind])
    ax.plot([left, left + 0.42], [0.15, 0.15], color=MUTED, lw=0.8)
    ax.text(left + 0.5, 0.15, "to the output", va="center", fontsize=9)
    return figure


def place_cell(cell: Cell) -> Placed:
    """Let Graphviz place the shapes of a cell from left to right."""
    graph = _graph(cell)
    graph.layout(prog="dot")
    centres = {str(node): _point(node.attr["pos"]) for node in graph.nodes()}
    splines = {
        (str(a), str(b)): _spline(graph.get_edge(a, b).attr["pos"]) for a, b in graph.edges() if (a, b) != ("0", "1")
    }
    _, _, right, top = (float(number) for number in graph.graph_attr["bb"].split(","))
    return Placed(centres, splines, (right, top))


def _graph(cell: Cell) -> AGraph:
    import pygraphviz

    graph = pygraphviz.AGraph(directed=True, rankdir="LR", ranksep="0.26", nodesep="0.13", splines="true")
    graph.node_attr.update(shape="box", fixedsize="true", label="")
    graph.edge_attr.update(arrowhead="none")
    for index in range(INPUTS):
        graph.add_node(str(index), width=_INPUT[0], height=_INPUT[1])
    for node, edges in enumerate(cell, start=INPUTS):
        graph.add_node(str(node), width=_NODE[0], height=_NODE[1], shape="circle")
        for edge in edges:
            pill = _pill(edge.source, node)
            graph.add_node(pill, width=_PILL[0], height=_PILL[1])
            graph.add_edge(str(edge.source), pill, tailport="e" if edge.source < INPUTS else "", headport="w")
            graph.add_edge(pill, str(node), tailport="e", weight=3)
    graph.add_node("out", width=_OUTPUT[0], height=_OUTPUT[1])
    for node in range(INPUTS, INPUTS + len(cell)):
        graph.add_edge(str(node), "out", headport="w")
    graph.add_subgraph([str(index) for index in range(INPUTS)], rank="min")
    graph.add_edge("0", "1", style="invis")  # input 0 above input 1
    graph.add_subgraph(["out"], rank="max")
    return graph


def _pill(source: int, node: int) -> str:
    return f"{source}>{node}"


def _point(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return float(x), float(y)


def _spline(text: str) -> list[tuple[float, float]]:
    """Return the control points of an edge without arrow heads: a start, then three per cubic Bézier curve."""
    return [_point(part) for part in text.split() if part[0] not in "es"]


def _draw_edges(ax: Axes, placed: Placed, cell: Cell) -> None:
    for node, edges in enumerate(cell, start=INPUTS):
        _draw_spline(ax, placed.splines[str(node), "out"], MUTED, 0.8, "solid", zorder=1)
        for edge in edges:
            kind, pill = kind_of(edge.operation), _pill(edge.source, node)
            look = KIND_COLOURS[kind], KIND_WIDTHS[kind], KIND_DASHES[kind]
            _draw_spline(ax, placed.splines[str(edge.source), pill], *look, zorder=2)
            _draw_spline(ax, placed.splines[pill, str(node)], *look, zorder=2)
            _draw_arrow(ax, placed.splines[pill, str(node)], KIND_COLOURS[kind])


def _draw_spline(
    ax: Axes, points: list[tuple[float, float]], colour: str, width: float, dash: object, *, zorder: int
) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    codes = [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1)
    ax.add_patch(PathPatch(Path(points, codes), fc="none", ec=colour, lw=width, ls=dash, zorder=zorder))


def _draw_arrow(ax: Axes, points: list[tuple[float, float]], colour: str) -> None:
    """Put an arrow head on the end of a spline, along its last control points."""
    from matplotlib.patches import Polygon

    (x0, y0), (x, y) = points[-2], points[-1]
    length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5 or 1.0
    dx, dy = (x - x0) / length, (y - y0) / length
    back_x, back_y = x - 7 * dx, y - 7 * dy
    corners = [(x, y), (back_x - 3.6 * dy, back_y + 3.6 * dx), (back_x + 3.6 * dy, back_y - 3.6 * dx)]
    ax.add_patch(Polygon(corners, closed=True, fc=colour, ec="none", zorder=3))


def _draw_shapes(ax: Axes, placed: Placed, category: str, cell: Cell) -> None:
    from matplotlib.patches import Circle

    for index in range(INPUTS):
        _draw_box(ax, placed.centres[str(index)], _INPUT, SURFACE, _INPUT_LABELS[index], INK, 7.5, edge=INK)
    for node, edges in enumerate(cell, start=INPUTS):
        x, y = placed.centres[str(node)]
        ax.add_patch(Circle((x, y), _NODE[0] * POINTS / 2, fc=SURFACE, ec=INK, lw=1.2, zorder=4))
        ax.text(x, y, str(node), ha="center", va="center_baseline", fontsize=10, fontweight="bold", zorder=5)
        for edge in edges:
            halves = is_reduction(category) and edge.source < INPUTS
            label = SHORT_NAMES[edge.operation] + (" ↓2" if halves else "")
            colour = KIND_COLOURS[kind_of(edge.operation)]
            _draw_box(ax, placed.centres[_pill(edge.source, node)], _PILL, colour, label, _PILL_TEXT, 8.5, rounded=True)
    _draw_box(ax, placed.centres["out"], _OUTPUT, SURFACE, "output\n2 to 5 joined", INK, 7.5, edge=INK)


def _draw_box(
    ax: Axes,
    centre: tuple[float, float],
    size: tuple[float, float],
    face: str,
    label: str,
    ink: str,
    font_size: float,
    *,
    edge: str = "none",
    rounded: bool = False,
) -> None:
    from matplotlib.patches import FancyBboxPatch

    width, height = size[0] * POINTS, size[1] * POINTS
    corner = (centre[0] - width / 2, centre[1] - height / 2)
    style = f"round,pad=0,rounding_size={height / 2 if rounded else 4}"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=face, ec=edge, lw=1.0, zorder=4))
    lines = label.split("\n")  # one text each, so that an SVG centres them whatever font the reader has
    for number, line in enumerate(lines):
        y = centre[1] + 1.25 * font_size * ((len(lines) - 1) / 2 - number)
        ax.text(centre[0], y, line, ha="center", va="center", color=ink, fontsize=font_size, zorder=5)
