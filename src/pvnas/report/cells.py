"""Draws a searched cell as a graph (paper, figure 6), the operation of every kept edge written on its line."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from pvnas.report.cell_layout import CellLayout, Point, lay_out
from pvnas.report.style import INK, MUTED, SURFACE, category_name, ink_on, operation_style
from pvnas.space.genotype import INPUTS, Cell, Genotype, is_reduction
from pvnas.space.operations import is_parameter_free

POINTS = 72.0  # per inch
MARGIN, HEADING = 6.0, 22.0
PILL_FONT, PILL_WIDTH = 8.0, 92.0  # a pill is wider where a label needs it
LABELS = {"0": "input 0\nlast cell but one", "1": "input 1\nlast cell", "out": "output\n2 to 5 joined"}


def draw_cell(category: str, cell: Cell) -> Figure:
    """Return the drawing of one cell. Call it inside :func:`pvnas.report.style.drawing`."""
    edges = {f"{edge.predecessor}>{node}": edge for node, pair in enumerate(cell, start=INPUTS) for edge in pair}
    labels = {
        pill: operation_style(edge.operation)[0]
        + (" ↓2" if is_reduction(category) and edge.predecessor < INPUTS else "")
        for pill, edge in edges.items()
    }
    widest = max(TextPath((0, 0), label, size=PILL_FONT).get_extents().width for label in labels.values())
    layout = lay_out(cell, max(PILL_WIDTH, widest + 12))
    ax = _canvas(layout, f"{category} · {category_name(category)}")
    for (tail, head), points in layout.lines.items():
        edge = edges.get(tail) or edges.get(head)
        _draw_line(ax, points, edge.operation if edge else None, arrow=tail in edges)
    for name in layout.centres:
        if name in edges:
            colour = operation_style(edges[name].operation)[1]
            pill = f"round,pad=0,rounding_size={layout.sizes[name][1] / 2}"
            _draw_shape(ax, layout, name, pill, labels[name], PILL_FONT, fc=colour, ec="none", ink=ink_on(colour))
        elif name in LABELS:
            _draw_shape(ax, layout, name, "round,pad=0,rounding_size=4", LABELS[name], 7.5)
        else:
            _draw_shape(ax, layout, name, "circle,pad=0", name, 10, weight="bold")
    return ax.figure  # type: ignore[return-value]


def draw_legend(genotype: Genotype) -> Figure:
    """Return the legend of the cells: the operations that they have, with colour and dash."""
    operations = sorted({edge.operation for *_, edge in genotype.edges()}, key=operation_style)
    handles = [Line2D([], [], label=operation_style(name)[0], **_line_style(name)) for name in operations]
    handles.append(Line2D([], [], label="to the output", **_line_style(None)))
    figure = Figure(figsize=(10.4, 0.1 + 0.2 * math.ceil(len(handles) / 4)))
    figure.legend(handles=handles, ncols=4, loc="center left", borderaxespad=0, handlelength=3)
    return figure


def _line_style(operation: str | None) -> dict[str, Any]:
    """Return the style of an operation's line, dashed where there is nothing to learn; None: the way to the output."""
    if operation is None:
        return {"color": MUTED, "lw": 0.8}
    dash = (0, (4, 1.6)) if is_parameter_free(operation) else "solid"
    return {"color": operation_style(operation)[1], "lw": 1.8, "ls": dash}


def _canvas(layout: CellLayout, heading: str) -> Axes:
    """Return axes in points around a layout, with room for the heading above it."""
    boxes = [(*layout.centres[name], *layout.sizes[name]) for name in layout.centres]
    right = max(x + width / 2 for x, _, width, _ in boxes) + MARGIN
    bottom, top = min(y - h / 2 for _, y, _, h in boxes) - MARGIN, max(y + h / 2 for _, y, _, h in boxes) + HEADING
    figure = Figure(figsize=((right + MARGIN) / POINTS, (top - bottom) / POINTS))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(-MARGIN, right), ylim=(bottom, top))
    ax.set_axis_off()
    ax.text(0, top - 11, heading, fontsize=10.5, fontweight="bold", color=INK)
    return ax


def _draw_line(ax: Axes, points: list[Point], operation: str | None, *, arrow: bool) -> None:
    style, (x, y) = _line_style(operation), points[-1]
    colour = style.pop("color")
    codes = [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1)
    ax.add_patch(PathPatch(Path(points, codes), fc="none", ec=colour, zorder=2 if operation else 1, **style))
    if arrow:
        ax.add_patch(Polygon([(x, y), (x - 7, y + 3.4), (x - 7, y - 3.4)], fc=colour, ec=colour, lw=0.1, zorder=3))


def _draw_shape(
    ax: Axes, layout: CellLayout, name: str, shape: str, label: str, size: float, *,
    fc: str = SURFACE, ec: str = INK, ink: str = INK, weight: str = "normal",
) -> None:  # fmt: skip
    (x, y), (width, height) = layout.centres[name], layout.sizes[name]
    corner = x - width / 2, y - height / 2
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, fc=fc, ec=ec, lw=1.1, zorder=4))
    lines = label.split("\n")  # one text each, so that an SVG centres them whatever font the reader has
    for number, line in enumerate(lines):
        level = y + 1.25 * size * ((len(lines) - 1) / 2 - number)
        ax.text(x, level, line, ha="center", va="center", color=ink, fontsize=size, fontweight=weight, zorder=5)
