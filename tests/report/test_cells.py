"""The drawing of cells: everything in it, nothing on top of anything, the same on any machine."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pvnas.report import cells
from pvnas.report.cell_layout import lay_out
from pvnas.report.style import drawing, ink_on, inline_svg, operation_style, save_figure
from pvnas.space.genotype import CATEGORIES, ZERO, Edge, Genotype, is_reduction, operations_of, random_genotype

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Return the text elements of an SVG."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def draw(folder: Path, genotype: Genotype, category: str) -> str:
    with drawing(category):
        return save_figure(cells.draw_cell(category, genotype.cells[category]), folder, category, png=True)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_operation_and_node_is_written_as_text(tmp_path: Path, category: str) -> None:
    genotype = random_genotype(3)
    shown = texts(draw(tmp_path, genotype, category))
    edges = [
        (edge, edge.predecessor < 2 and is_reduction(category)) for c, _, edge in genotype.edges() if c == category
    ]
    wanted = [operation_style(edge.operation)[0] + (" ↓2" if halves else "") for edge, halves in edges]
    assert sorted(label for label in shown if label in wanted) == sorted(wanted)
    assert {"2", "3", "4", "5", "input 0", "input 1", "output"} <= set(shown)


@pytest.mark.parametrize("seed", range(8))
def test_no_two_shapes_overlap_and_time_runs_to_the_right(seed: int) -> None:
    for cell in random_genotype(seed).cells.values():
        layout = lay_out(cell, 92.0)
        assert len(layout.centres) == 2 + 4 + 8 + 1
        boxes = {name: (*centre, *layout.sizes[name]) for name, centre in layout.centres.items()}
        for a in boxes:
            for b in (name for name in boxes if name > a):
                assert not _overlap(boxes[a], boxes[b]), (seed, a, b)
        for tail, head in layout.lines:
            assert boxes[tail][0] < boxes[head][0]
        assert boxes["out"][0] == max(box[0] for box in boxes.values())


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return abs(a[0] - b[0]) < (a[2] + b[2]) / 2 - 0.5 and abs(a[1] - b[1]) < (a[3] + b[3]) / 2 - 0.5


@pytest.mark.parametrize("seed", range(8))
def test_no_line_runs_over_a_shape(seed: int) -> None:
    for cell in random_genotype(seed).cells.values():
        layout = lay_out(cell, 92.0)
        for ends, points in layout.lines.items():
            assert len(points) % 3 == 1
            for x, y in _on_curves(points):
                for name in set(layout.centres) - set(ends):
                    (left, low), (width, height) = layout.centres[name], layout.sizes[name]
                    assert abs(x - left) > width / 2 or abs(y - low) > height / 2, (seed, ends, name)


def _on_curves(points: list[tuple[float, float]]) -> Iterator[np.ndarray]:
    for k in range(0, len(points) - 1, 3):
        a, b, c, d = (np.array(point) for point in points[k : k + 4])
        for t in np.linspace(0, 1, 25):
            yield (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d


def test_a_cell_whose_nodes_all_hang_on_one_input_and_each_other_is_placed() -> None:
    chain = tuple((Edge(0, "identity"), Edge(node - 1, "identity")) for node in range(2, 6))
    layout = lay_out(chain, 92.0)
    assert [layout.centres[name][0] for name in "012345"] == sorted(layout.centres[name][0] for name in "012345")


def test_same_genotype_same_bytes(tmp_path: Path) -> None:
    genotype = random_genotype(0)
    assert draw(tmp_path / "a", genotype, "T-NC") == draw(tmp_path / "b", genotype, "T-NC")
    assert (tmp_path / "a/T-NC.png").read_bytes() == (tmp_path / "b/T-NC.png").read_bytes()


def test_every_operation_has_a_name_and_a_colour_of_its_own() -> None:
    styles = [operation_style(name) for name in operations_of("T-NC") if name != ZERO]
    labels, colours = zip(*styles, strict=True)
    assert len(set(labels)) == len(set(colours)) == len(styles)
    assert all(ink_on(colour) == "#fdfdfd" for colour in colours)


def test_an_unknown_operation_is_drawn_with_its_name_and_always_the_same_colour() -> None:
    assert operation_style("avg_pool_1x5x5") == operation_style("avg_pool_1x5x5")
    assert operation_style("avg_pool_1x5x5")[0] == "avg_pool_1x5x5"
    assert len(operation_style("x" * 300)[0]) < 30
    assert ink_on("yellow") != ink_on("navy")


def test_inline_svg_is_renamed_recoloured_and_still_xml(tmp_path: Path) -> None:
    inlined = inline_svg(draw(tmp_path, random_genotype(0), "S-NC"), "cell", 'a "quoted" <title>')
    assert inlined.startswith("<svg")
    assert "<style" not in inlined
    assert "var(--ink)" in inlined
    root = ElementTree.fromstring(inlined)
    assert root.get("aria-label") == 'a "quoted" <title>'
    assert all(element.get("id", "cell-").startswith("cell-") for element in root.iter())


def test_legend_names_every_operation_of_the_cells(tmp_path: Path) -> None:
    genotype = random_genotype(0)
    with drawing("legend"):
        shown = texts(save_figure(cells.draw_legend(genotype), tmp_path, "legend"))
    assert set(shown) == {operation_style(edge.operation)[0] for *_, edge in genotype.edges()} | {"to the output"}
