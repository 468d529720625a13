"""The figures take plain data of any size."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from pvnas.report import figures
from pvnas.report.style import drawing, save_figure
from pvnas.report.text import clean
from pvnas.space.genotype import random_genotype

ENTRIES = [
    {
        "epoch": epoch,
        "loss": 2.0 / epoch,
        "top1": 10.0 * epoch,
        "lr": 0.1 / epoch,
        "parameter_free": {"S-NC": 3, "S-RC": 8, "T-NC": 0, "T-RC": 1, "total": 12},
        "alpha_entropy": {"S-NC": 1.7, "S-RC": 1.6, "T-NC": 2.0, "T-RC": 2.05, "mean": 1.84},
    }
    for epoch in (1, 2, 3)
]


def svg_texts(figure: object, folder: Path) -> list[str]:
    svg = save_figure(figure, folder, "figure")  # type: ignore[arg-type]
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_softmax_is_a_share_of_each_edge() -> None:
    alpha_PEO = np.array([[[0.0, np.log(3.0)], [1000.0, 1000.0]]], np.float32)
    np.testing.assert_allclose(figures.softmax(alpha_PEO), [[[0.25, 0.75], [0.5, 0.5]]], rtol=1e-6)


def test_alpha_figure_names_each_edge_and_marks_the_kept_ones(tmp_path: Path) -> None:
    cell = random_genotype(1).cells["T-NC"]
    alpha_PEO = np.random.default_rng(0).normal(size=(4, 14, 8)).astype(np.float32)
    with drawing("alpha"):
        figure = figures.alpha_figure("T-NC", alpha_PEO, [0, 1, 2, 3], cell)
        titles = [ax.get_title("left") for ax in figure.axes if ax.get_title("left")]
        bold = [ax.get_title("left") for ax in figure.axes if ax._left_title.get_weight() == "bold"]
        shown = svg_texts(figure, tmp_path)
    assert len(titles) == 14
    assert len([title for title in bold if title]) == 8
    assert "temporal 3+3×3" in shown


def test_alpha_figure_shows_the_shares_at_the_searchs_own_temperature() -> None:
    """Of logits ln 4 and 0: 0.8 and 0.2 at a temperature of 1, 2/3 and 1/3 at 2."""
    alpha_PEO = np.zeros((2, 14, 8), np.float32)
    alpha_PEO[:, :, 0], alpha_PEO[:, :, 2:] = np.log(4.0), -1e9
    with drawing("alpha"):
        figure = figures.alpha_figure("T-NC", alpha_PEO, [0, 1], None, np.array([1.0, 2.0]))
    np.testing.assert_allclose(figure.axes[0].images[0].get_array()[:2], [[0.8, 2 / 3], [0.2, 1 / 3]], rtol=1e-6)


@pytest.mark.parametrize("n", [5, 20])
def test_figures_take_any_number_of_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    names = ("identity", "zero", *(f"operation {k}" for k in range(n - 2)))
    monkeypatch.setattr(figures, "operations_of", lambda category: names)
    monkeypatch.setattr(figures, "is_parameter_free", lambda name: name == "identity")
    alpha_PEO = np.random.default_rng(0).normal(size=(2, 14, n)).astype(np.float32)
    with drawing("alpha"):
        shown = svg_texts(figures.alpha_figure("S-NC", alpha_PEO, [0, 1], None), tmp_path)
        assert all(shown.count(name) == 4 for name in names)
        assert f"undecided (spatial: ln {n})" in svg_texts(figures.entropy_figure(ENTRIES, ["S-NC"]), tmp_path)
        figures.parameter_free_figure(ENTRIES, ["S-NC"])


def test_figures_of_one_epoch_and_of_missing_values(tmp_path: Path) -> None:
    cells = random_genotype(0).cells
    with drawing("search"):
        assert "collapse warning: 7 of 8" in svg_texts(figures.parameter_free_figure(ENTRIES[:1], cells), tmp_path)
        assert "S-RC" in svg_texts(figures.entropy_figure(ENTRIES[:1], cells), tmp_path)
        assert "training" in svg_texts(figures.learning_figure(ENTRIES[:1]), tmp_path)
        shown = svg_texts(figures.schedule_figure(ENTRIES, []), tmp_path)
    assert "weights" in shown
    assert not any("mathdefault" in label for label in shown)


@pytest.mark.parametrize("n", [2, 8, 21, 101, 130])
def test_confusion_of_any_number_of_classes(tmp_path: Path, n: int) -> None:
    names = [f"class {k}" for k in range(n)]
    matrix = np.eye(n, dtype=np.int64) * 7
    matrix[0, 0] = 0  # a class without test videos
    with drawing("confusion"):
        shown = svg_texts(figures.confusion_figure(matrix, names), tmp_path)
    assert shown.count("class 1") == (2 if n <= figures.CONFUSION_NAMES_UP_TO else 0)
    assert shown.count("7") == (n - 1 if n <= figures.CONFUSION_NUMBERS_UP_TO else 0)


def test_class_names_are_never_formulas_and_never_markup(tmp_path: Path) -> None:
    with drawing("confusion"):
        shown = svg_texts(figures.confusion_figure(np.eye(2, dtype=np.int64), ["$x^2$", "<b>&\x1b"]), tmp_path)
    assert "$x^2$" in shown
    assert "<b>&\N{REPLACEMENT CHARACTER}" in shown


def test_clean_removes_what_could_act_and_shortens() -> None:
    assert clean("a\x1b[31m\u202eb\ud800") == "a\ufffd[31m\ufffdb\ufffd"
    assert clean("x" * 500, 10) == "x" * 9 + "…"
    assert clean("日本語 é") == "日本語 é"
