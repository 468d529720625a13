"""The figures of the studies: plain data in, a matplotlib ``Figure`` out, in the look of the report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pvnas.report.style import INK, MUTED
from pvnas.studies.experiments import Study
from pvnas.studies.outcome import Outcome

COLOURS = ("#1a6fc4", "#bf3278", "#2f7d32", "#a4462b", "#6d5bd0", "#7a5c2e", "#3f6f9e", "#64742a", "#a33d9b")


def study_figure(study: Study, runs: Sequence[Outcome]) -> Figure:
    """Return accuracy by arm; beside it accuracy against cost, or operations without parameters over the epochs."""
    names = [arm.name for arm in study.arms if any(run.arm == arm.name for run in runs)]
    figure = Figure(figsize=(10.4, max(2.6, 0.42 * len(names) + 1.3)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    _accuracies(left, names, runs, colours)
    if study.counts:
        _counts(right, names, runs, colours)
    else:
        _against_cost(right, names, runs, colours)
    return figure


def _accuracies(ax: Axes, names: Sequence[str], runs: Sequence[Outcome], colours: dict[str, str]) -> None:
    """Draw each run as a point, the mean of an arm as a line, one sd to both sides."""
    for row, name in enumerate(names):
        tops = [run.results["top1"] for run in runs if run.arm == name]
        mean = statistics.fmean(tops)
        sd = statistics.stdev(tops) if len(tops) > 1 else 0.0
        ax.plot([mean - sd, mean + sd], [row, row], color=colours[name], alpha=0.35, linewidth=6, solid_capstyle="butt")
        ax.plot(tops, [row] * len(tops), "o", color=colours[name], markersize=4.5)
        ax.plot([mean], [row], "|", color=INK, markersize=14, markeredgewidth=1.6)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("top-1 (%): each run, mean, one standard deviation")
    ax.set_title("Accuracy")


def _against_cost(ax: Axes, names: Sequence[str], runs: Sequence[Outcome], colours: dict[str, str]) -> None:
    """Draw each run at its multiply-accumulates of a view, its circle's area by its parameters."""
    largest = max((run.results["params"] for run in runs), default=1)
    for name in names:
        own = [run for run in runs if run.arm == name]
        costs = [run.results["macs_per_view"] / 1e9 for run in own]
        areas = [20 + 180 * run.results["params"] / largest for run in own]
        ax.scatter(costs, [run.results["top1"] for run in own], areas, color=colours[name], alpha=0.6, label=name)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("multiply-accumulates of a view (G)")
    ax.set_ylabel("top-1 (%)")
    ax.set_title("Accuracy and cost; circles by parameters")
    if names:
        legend = ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for handle in legend.legend_handles:
            handle.set_sizes([30])  # type: ignore[union-attr]


def _counts(ax: Axes, names: Sequence[str], runs: Sequence[Outcome], colours: dict[str, str]) -> None:
    """Draw the mean count over the epochs of each arm's searches."""
    for name in names:
        searches = [run.by_epoch for run in runs if run.arm == name and run.by_epoch]
        if searches:
            epochs = min(map(len, searches))
            counts_SP = np.array([search[:epochs] for search in searches])
            ax.plot(np.arange(1, epochs + 1), counts_SP.mean(0), "-o", color=colours[name], label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    operations = max(run.operations for run in runs)
    ax.set_ylim(0, operations)
    ax.set_xlabel("epoch of the search")
    ax.set_ylabel(f"of {operations} operations kept", color=MUTED)
    ax.set_title("Operations without parameters")
    if names:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
