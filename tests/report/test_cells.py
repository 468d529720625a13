"""The drawing of cells: everything in it, nothing on top of anything, the same on any machine."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pvnas.report import cells
from pvnas.report.style import KINDS, SHORT_NAMES, drawing, inline_svg, kind_of, save_figure
from pvnas.space.genotype import CATEGORIES, TEMPORAL_OPERATIONS, Genotype, is_reduction, random_genotype

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Return the text elements of an SVG."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def draw(folder: Path, genotype: Genotype, category: str) -> str:
    with drawing(category):
        return save_figure(cells.draw_cell(category, genotype.cells[category]), folder, category)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_operation_and_node_is_written_as_text(tmp_path: Path, category: str) -> None:
    genotype = random_genotype(3)
    shown = texts(draw(tmp_path, genotype, category))
    edges = [(edge, edge.source < 2 and is_reduction(category)) for c, _, edge in genotype.edges() if c == category]
    wanted = [SHORT_NAMES[edge.operation] + (" ↓2" if halves else "") for edge, halves in edges]
    assert sorted(label for label in shown if label in wanted) == sorted(wanted)
    assert {"2", "3", "4", "5", "input 0", "input 1", "output"} <= set(shown)


@pytest.mark.parametrize("seed", range(8))
def test_no_two_shapes_overlap_and_time_runs_to_the_right(seed: int) -> None:
    for cell in random_genotype(seed).cells.values():
        placed = cells.place_cell(cell)
        assert len(placed.centres) == 2 + 4 + 8 + 1
        boxes = {name: (*centre, *_size(name)) for name, centre in placed.centres.items()}
        for a in boxes:
            for b in (name for name in boxes if name > a):
                assert not _overlap(boxes[a], boxes[b]), (seed, a, b)
        for (tail, head), spline in placed.splines.items():
            assert boxes[tail][0] < boxes[head][0]
            assert len(spline) % 3 == 1
        assert boxes["out"][0] == max(box[0] for box in boxes.values())


def _size(name: str) -> tuple[float, float]:
    if name == "out":
        inches = cells._OUTPUT
    elif ">" in name:
        inches = cells._PILL
    else:
        inches = cells._INPUT if name in "01" else cells._NODE
    return inches[0] * 72, inches[1] * 72


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return abs(a[0] - b[0]) < (a[2] + b[2]) / 2 - 0.5 and abs(a[1] - b[1]) < (a[3] + b[3]) / 2 - 0.5


def test_same_genotype_same_bytes(tmp_path: Path) -> None:
    genotype = random_genotype(0)
    assert draw(tmp_path / "a", genotype, "T-NC") == draw(tmp_path / "b", genotype, "T-NC")
    assert (tmp_path / "a/T-NC.png").read_bytes() == (tmp_path / "b/T-NC.png").read_bytes()


def test_every_operation_has_a_kind_and_a_name() -> None:
    assert {kind_of(name) for name in TEMPORAL_OPERATIONS} == set(KINDS)
    assert set(SHORT_NAMES) == set(TEMPORAL_OPERATIONS)


def test_inline_svg_is_renamed_recoloured_and_still_xml(tmp_path: Path) -> None:
    inlined = inline_svg(draw(tmp_path, random_genotype(0), "S-NC"), "cell", 'a "quoted" <title>')
    assert inlined.startswith("<svg")
    assert "<style" not in inlined
    assert "var(--ink)" in inlined
    root = ElementTree.fromstring(inlined)
    assert root.get("aria-label") == 'a "quoted" <title>'
    assert all(element.get("id", "cell-").startswith("cell-") for element in root.iter())


def test_legend_names_every_kind(tmp_path: Path) -> None:
    with drawing("legend"):
        shown = texts(save_figure(cells.draw_legend(), tmp_path, "legend"))
    assert shown == ["identity", "pooling", "spatial convolution", "temporal convolution", "to the output"]
