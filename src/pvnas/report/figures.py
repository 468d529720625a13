"""The figures of the report, one function each: plain data in, a matplotlib ``Figure`` out.

Call them inside :func:`pvnas.report.style.drawing` and write them with :func:`pvnas.report.style.save_figure`.
Legend of array suffixes: P epochs, E the 14 candidate edges, O operations, K classes.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from pvnas.report.style import CATEGORY_STYLES, INK, LINE, MUTED, operation_style
from pvnas.report.text import clean
from pvnas.search.derive import COLLAPSED_AT, OPERATIONS_PER_CELL
from pvnas.space.genotype import EDGES, INPUTS, NODES, ZERO, Cell, operations_of
from pvnas.space.operations import is_parameter_free

Entries = Sequence[Mapping[str, Any]]

CONFUSION_NUMBERS_UP_TO, CONFUSION_NAMES_UP_TO = 30, 120
# Blues of the page, from nearly the paper's colour, so that an empty field is a quiet one.
CONFUSION_MAP = LinearSegmentedColormap.from_list("confusion", ["#eef2f6", "#9cc4ec", "#1a6fc4", "#0b3d75"])
TRAIN_COLOUR, VALIDATION_COLOUR, EXTRA_COLOUR = "#5f6b7a", "#1a6fc4", "#bf3278"


def softmax(alpha_PEO: NDArray[Any]) -> NDArray[Any]:
    """Return softmax over the operations, (P, E, O), as float64: the share of each operation on its edge."""
    shifted = np.exp(alpha_PEO.astype(np.float64) - alpha_PEO.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _panels(height: float, n: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width with ``n`` plots over the epochs side by side."""
    figure = Figure(figsize=(10.4, height), layout="constrained")
    panels = list(figure.subplots(1, n, squeeze=False)[0])
    for ax in panels:
        _epoch_axis(ax)
    return figure, panels


def _epoch_axis(ax: Axes) -> None:
    """Label an axis of epochs: whole numbers only."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    ax.set_xlabel("epoch")


def alpha_figure(
    category: str,
    alpha_PEO: NDArray[Any],
    epochs: Sequence[int],
    cell: Cell | None,
    temperatures_P: NDArray[Any] | None = None,
) -> Figure:
    """Return a small heat map for each of the 14 edges: operations downwards, epochs to the right, colour the share.

    Rows of maps are nodes, columns where the edge comes from. The edges of ``cell`` are framed. ``temperatures_P``:
    what alpha is divided by in the search's own softmax, where it is.
    """
    share_PEO = softmax(alpha_PEO if temperatures_P is None else alpha_PEO / temperatures_P[:, None, None])
    operations = operations_of(category)
    columns = INPUTS + NODES - 1
    map_height, gap = 0.135 * len(operations), 0.26
    height = NODES * (map_height + gap) + 0.42
    figure = Figure(figsize=(10.4, height))
    longest = max(len(operation_style(name)[0]) for name in operations)
    figure.subplots_adjust(max(0.118, 0.0068 * longest), 0.44 / height, 0.985, 1 - 0.2 / height, 0.1, gap / map_height)
    grid = figure.add_gridspec(NODES, columns)  # its upper right half stays empty: no axes there
    # At least 5 % to both sides of undecided, so that the noise of the first epoch does not look like a choice.
    undecided = 1 / len(operations)
    limits = min(float(share_PEO.min()), 0.95 * undecided), max(float(share_PEO.max()), 1.05 * undecided)
    extent = (epochs[0] - 0.5, epochs[-1] + 0.5, len(operations) - 0.5, -0.5)
    chosen = {(node, e.predecessor): e.operation for node, edges in enumerate(cell or (), start=INPUTS) for e in edges}
    for row, (node, tail) in enumerate(EDGES):
        ax = figure.add_subplot(grid[node - INPUTS, tail])
        image = ax.imshow(share_PEO[:, row].T, aspect="auto", cmap="viridis", norm=Normalize(*limits), extent=extent)
        _style_alpha_map(ax, node, tail, operations, chosen.get((node, tail)))
    bar_ax = figure.add_axes((0.66, 1 - 0.5 / height, 0.28, 0.11 / height))
    bar = figure.colorbar(image, cax=bar_ax, orientation="horizontal", format=PercentFormatter(1, 1, " %"))
    bar.outline.set_visible(False)  # type: ignore[operator]
    formula = "softmax(α)" if temperatures_P is None else "softmax(α / temperature)"
    bar.set_label(f"share of an operation, {formula}\nall about {100 * undecided:.1f} % at the start")
    bar.set_ticks(np.linspace(*limits, 3).tolist())
    return figure


def _style_alpha_map(ax: Axes, node: int, tail: int, operations: Sequence[str], chosen: str | None) -> None:
    name = f"input {tail}" if tail < INPUTS else f"node {tail}"
    ax.set_title(f"{name} → node {node}", fontsize=8, fontweight="bold" if chosen else "normal", pad=3)
    ax.grid(visible=False)
    ax.tick_params(length=0, pad=2, labelsize=7.5)
    labels = [operation_style(name)[0] for name in operations] if tail == 0 else []
    ax.set_yticks(range(len(labels)), labels)
    if node == INPUTS + NODES - 1:
        _epoch_axis(ax)
    else:
        ax.set_xticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=INK if chosen else LINE, linewidth=1.8 if chosen else 0.6)
    if chosen:
        right = ax.get_xlim()[1]
        ax.plot([right], [operations.index(chosen)], marker=">", markersize=6.5, color=INK, clip_on=False, zorder=5)


def parameter_free_figure(search: Entries, cells: Collection[str]) -> Figure:
    """Return operations without parameters in the ``cells`` of every epoch, by category: per cell, and stacked."""
    figure, (left, right) = _panels(2.9, 2)
    epochs = [int(entry["epoch"]) for entry in search]
    _plot_categories(left, search, "parameter_free", cells)
    left.axhline(COLLAPSED_AT, color=INK, lw=1, ls=(0, (4, 3)))
    warning = f"collapse warning: {COLLAPSED_AT} of {OPERATIONS_PER_CELL}"
    left.text(epochs[0], COLLAPSED_AT + 0.12, warning, fontsize=8, va="bottom")  # above the line, descenders too
    left.set(ylim=(-0.3, OPERATIONS_PER_CELL + 0.4), yticks=range(0, OPERATIONS_PER_CELL + 1, 2))
    left.set_title(f"per cell, of {OPERATIONS_PER_CELL} operations")
    bottom, total, chance = np.zeros(len(epochs)), OPERATIONS_PER_CELL * len(cells), 0.0
    for category in cells:
        counts = np.array([float(entry["parameter_free"][category]) for entry in search])
        right.bar(epochs, counts, bottom=bottom, width=0.8, color=CATEGORY_STYLES[category]["color"])
        bottom += counts
        operations = set(operations_of(category)) - {ZERO}
        chance += OPERATIONS_PER_CELL * sum(map(is_parameter_free, operations)) / len(operations)
    right.axhline(chance, color=INK, lw=1, ls=":", label=f"mean of random cells: {chance:.1f}")
    right.set(ylim=(0, total), title=f"all cells, of {total} operations")
    right.legend(loc="upper right")
    return figure


def _plot_categories(ax: Axes, search: Entries, key: str, cells: Collection[str]) -> None:
    epochs = [int(entry["epoch"]) for entry in search]
    for category in cells:
        values = [float(entry[key][category]) for entry in search]
        ax.plot(epochs, values, label=category, **CATEGORY_STYLES[category])
    ax.legend(ncols=len(cells), loc="upper center", bbox_to_anchor=(0.5, -0.22))


def front_figure(macs_N: Sequence[float], scores_N: Sequence[float], chosen: tuple[float, float]) -> Figure:
    """Return the log scores of the best genotypes against their multiply-accumulates, and the chosen one among them.

    ``macs_N`` rise; a genotype that another one beats in both is left out.
    """
    figure = Figure(figsize=(10.4, 2.8), layout="constrained")
    ax = figure.subplots()
    best = np.maximum.accumulate(np.asarray(scores_N, dtype=np.float64))
    ax.step(np.asarray(macs_N) / 1e9, best, where="post", color=VALIDATION_COLOUR)
    ax.plot([chosen[0] / 1e9], [chosen[1]], "o", color=EXTRA_COLOUR, markersize=6, label="chosen")
    ax.set_xlabel("multiply-accumulates of a view (G)")
    ax.set_ylabel("sum of log scores")
    ax.legend(loc="lower right")
    return figure


def entropy_figure(search: Entries, cells: Collection[str]) -> Figure:
    """Return the mean entropy of softmax(alpha) per category over the epochs, in nats."""
    figure, (ax,) = _panels(2.7, 1)
    _plot_categories(ax, search, "alpha_entropy", cells)
    for name, category in (("spatial", "S-NC"), ("temporal", "T-NC")):
        undecided = math.log(len(operations_of(category)))
        ax.axhline(undecided, color=MUTED, lw=0.9, ls=":")
        text = f"undecided ({name}: ln {len(operations_of(category))})"
        ax.annotate(
            text, (1, undecided), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points",
            fontsize=7.5, color=MUTED, ha="right",
        )  # fmt: skip
    ax.set_ylabel("entropy of α, nats")
    ax.margins(y=0.12)
    return figure


def schedule_figure(search: Entries, train: Entries) -> Figure:
    """Return the learning rates at the end of every epoch: weights and alpha in the search, weights in the training."""
    stages = [(name, entries) for name, entries in (("search", search), ("training", train)) if entries]
    figure, panels = _panels(2.5, len(stages))
    for ax, (name, entries) in zip(panels, stages, strict=True):
        _plot_series(ax, entries, "lr", "weights", TRAIN_COLOUR, "-")
        _plot_series(ax, entries, "alpha_lr", "α", EXTRA_COLOUR, "--")
        _rate_axis(ax)
        ax.set(title=name, ylabel="learning rate")
        ax.legend(loc="best")
    return figure


def _rate_axis(ax: Axes) -> None:
    """Make a logarithmic axis with plain numbers, also between the powers of ten where the rates span few of them."""
    ax.set_yscale("log")
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 50 else (1.0,)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: "")


def learning_figure(entries: Entries) -> Figure:
    """Return loss and accuracy over the epochs of one stage, training beside validation."""
    figure, (loss, accuracy) = _panels(2.9, 2)
    _plot_series(loss, entries, "loss", "training", TRAIN_COLOUR, "--")
    _plot_series(loss, entries, "val_loss", "validation", VALIDATION_COLOUR, "-")
    loss.set(title="loss", ylabel="cross-entropy, nats", ylim=(0, 1.05 * loss.get_ylim()[1]))
    _plot_series(accuracy, entries, "top1", "training top-1", TRAIN_COLOUR, "--")
    _plot_series(accuracy, entries, "val_top1", "validation top-1", VALIDATION_COLOUR, "-")
    _plot_series(accuracy, entries, "val_top5", "validation top-5", EXTRA_COLOUR, ":")
    accuracy.set(title="accuracy", ylabel="%", ylim=(0, 102))
    for ax in (loss, accuracy):
        ax.legend(loc="best")
    return figure


def _plot_series(ax: Axes, entries: Entries, key: str, label: str, colour: str, style: Any) -> None:
    """Plot a value over the epochs that have it."""
    points = [(int(entry["epoch"]), float(entry[key])) for entry in entries if entry.get(key) is not None]
    if points:
        marker = "o" if len(points) <= 30 else None
        ax.plot(*zip(*points, strict=True), color=colour, ls=style, marker=marker, label=label)


def confusion_figure(matrix_KK: NDArray[Any], classes: Sequence[str]) -> Figure:
    """Return the confusion matrix, each row (a true class) as shares of its videos.

    With counts in the fields up to 30 classes, with names up to 120; beyond that the diagonal has to speak.
    """
    n = len(classes)
    totals = matrix_KK.sum(1, keepdims=True)
    share_KK = np.divide(100.0 * matrix_KK, totals, out=np.zeros(matrix_KK.shape), where=totals > 0)
    side = min(10.4, 3.6 + 0.36 * n)
    figure = Figure(figsize=(side, side * 0.9 if n <= CONFUSION_NUMBERS_UP_TO else side * 0.96), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(share_KK, cmap=CONFUSION_MAP, vmin=0, vmax=100)
    ax.grid(visible=False)
    ax.set(xlabel="prediction", ylabel="truth")
    _name_classes(ax, classes)
    if n <= CONFUSION_NUMBERS_UP_TO:
        _write_counts(ax, matrix_KK, share_KK, 9 if n <= 12 else 7)
    bar = figure.colorbar(
        image, ax=ax, shrink=0.5, aspect=28, pad=0.02, format="%d %%", label="share of the true class"
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def calibration_figure(bins: Entries) -> Figure:
    """Return the share of videos that is right against the scores that they got, and how many got them."""
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centres = [(entry["low"] + entry["high"]) / 2 for entry in bins]
    widths = [0.92 * (entry["high"] - entry["low"]) for entry in bins]
    ax.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
    ax.bar(centres, [entry["right"] for entry in bins], widths, color=VALIDATION_COLOUR, alpha=0.75)
    ax.plot(
        [entry["said"] for entry in bins],
        [entry["right"] for entry in bins],
        "o",
        color=INK,
        markersize=4,
        clip_on=False,
    )
    ax.set(ylabel="right (%)", ylim=(0, 100), xlim=(0, 100))
    below.bar(centres, [entry["n"] for entry in bins], widths, color=MUTED)
    below.set(xlabel="score of the class that was said (%)", ylabel="videos")
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3, min_n_ticks=1))
    return figure


def _name_classes(ax: Axes, classes: Sequence[str]) -> None:
    n = len(classes)
    ax.tick_params(length=0, pad=2)
    if n > CONFUSION_NAMES_UP_TO:
        return
    size = 8.5 if n <= 30 else max(4.0, 520 / n)
    names = [clean(name, 24) for name in classes]
    ax.set_yticks(range(n), names, fontsize=size)
    ax.set_xticks(range(n), names, fontsize=size, rotation=90 if n > 4 else 0)
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_color(INK)


def _write_counts(ax: Axes, matrix_KK: NDArray[Any], share_KK: NDArray[Any], size: float) -> None:
    for truth, prediction in np.argwhere(matrix_KK > 0):
        # These two colours belong to the field behind them, not to the page: never turned into CSS variables.
        colour = "#fdfdfd" if share_KK[truth, prediction] > 45 else "#20242a"
        ax.text(
            prediction, truth, str(matrix_KK[truth, prediction]), ha="center", va="center", fontsize=size, color=colour
        )
