"""What sections of the page need beyond the run's own files: figures, sums and orders. Macros of the same names in
sections.html write them."""

import base64
import io
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pvnas.config import AlphaOptimizerConfig
from pvnas.errors import UserError
from pvnas.report import figures
from pvnas.report.cells import draw_cell, draw_legend
from pvnas.report.record import RunRecord
from pvnas.report.style import category_name
from pvnas.report.text import clean, is_number, number, percent, scaled
from pvnas.search.budget import Scores, pareto_front
from pvnas.search.derive import OPERATIONS_PER_CELL, collapsed_cells
from pvnas.search.history import alpha_name, alphas_of_epoch, price_table
from pvnas.search.relaxation import has_temperature, temperature_at
from pvnas.settings import CONFIG_NAME, load_config
from pvnas.space.cost import network_cost
from pvnas.space.genotype import CATEGORIES, Genotype

TEMPERATURES = ("search.alphas.temperature", "search.alphas.final_temperature")
STRIP_BYTES = 120_000  # a larger strip is made a JPEG, so that twelve of them stay well below 2 MB
STRIP_WIDTH = 1120
MISTAKE_BYTES, MISTAKE_WIDTH = 30_000, 560  # of which there are two dozen
CONFUSIONS_SHOWN = 8
GOOD_VERDICTS = frozenset({"ok", "short"})


Draw = Callable[..., Markup]
"""Draws a figure and returns it as an element of the page: name of its files, spoken title, function, its data."""


def clips(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """Test clips with their strips of frames as data URIs; None where there is no strip."""
    return {"clips": [(sample, _data_uri(sample.png) if sample.png else None) for sample in record.samples]}


def mistakes(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """What is wrong with the highest scores, with strips half as wide."""
    shown = [
        (each, _data_uri(each.png, MISTAKE_BYTES, MISTAKE_WIDTH) if each.png else None) for each in record.mistakes
    ]
    return {"shown": shown}


def _data_uri(png: bytes, most: int = STRIP_BYTES, width: int = STRIP_WIDTH) -> Markup:
    kind, data = compact_strip(png, most, width)
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


def compact_strip(png: bytes, most: int = STRIP_BYTES, width: int = STRIP_WIDTH) -> tuple[str, bytes]:
    """Return the picture as it is when it has at most so many bytes, else as a JPEG, no wider: (kind, bytes)."""
    if len(png) <= most:
        return "png", png
    with Image.open(io.BytesIO(png), formats=["PNG"]) as strip:
        picture = strip.convert("RGB")
    if picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "jpeg", buffer.getvalue()


def augmented(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """Training clips as augmentation makes them."""
    return {"sheet": _data_uri(record.augmented)}


def cells(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """The cells as graphs."""
    genotype = record.latest_genotype
    if genotype is None:
        return {"genotype": None}
    graphs = [draw("cells_legend", "Colours by operation; dashed: without parameters", draw_legend, genotype)]
    for category, cell in genotype.cells.items():
        words = "; ".join(
            f"node {n} from {e.predecessor} by {e.operation}" for c, n, e in genotype.edges() if c == category
        )
        title = f"{category}, {category_name(category)}: {words}"
        graphs.append(draw(f"cell_{category}", title, draw_cell, category, cell))
    operations = OPERATIONS_PER_CELL * len(genotype.cells)
    return {"genotype": genotype, "graphs": graphs, "operations": operations}


def search(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """Alpha, operations without parameters and entropy over the epochs of the search."""
    genotype, entries = record.latest_genotype, record.search
    searched = tuple(genotype.cells) if genotype else CATEGORIES
    collapsed, parameter_free, entropy, alphas = [], None, None, []
    if entries and all("parameter_free" in entry for entry in entries):
        collapsed = collapsed_cells(entries[-1])
        title = "Operations without parameters in the cells, over the epochs"
        parameter_free = draw("parameter_free", title, figures.parameter_free_figure, entries, searched)
    if entries and all("alpha_entropy" in entry for entry in entries):
        entropy = draw("alpha_entropy", "Entropy of α over the epochs", figures.entropy_figure, entries, searched)
    temperatures_P = _temperatures(record)
    for category, alpha_PEO in record.alphas.items():
        cell = genotype.cells.get(category) if genotype and is_last_epoch(record, genotype) else None
        title = f"Share of every operation on the 14 edges of {category} over the epochs"
        data = category, alpha_PEO, record.alpha_epochs, cell, temperatures_P
        figure = draw(f"alpha_{category}", title, figures.alpha_figure, *data)
        alphas.append((category, category_name(category), figure))
    return {
        "collapsed": collapsed,
        "parameter_free": parameter_free,
        "entropy": entropy,
        "alphas": alphas,
        "front": _front(record, draw),
        "notes": list(_departures(record)),
    }


def _front(record: RunRecord, draw: Draw) -> Markup | None:
    """Return the figure of what cells of any cost score; None where the files do not say all that it takes."""
    genotype, classes = record.genotype, record.catalog.get("classes")
    epoch = genotype.about.get("epoch") if genotype else None
    if genotype is None or not isinstance(epoch, int) or not isinstance(classes, list) or not record.alphas:
        return None
    try:
        config = load_config(file=record.folder / CONFIG_NAME)
        history = {
            alpha_name(each, category): torch.from_numpy(alpha_PEO[row])
            for category, alpha_PEO in record.alphas.items()
            for row, each in enumerate(record.alpha_epochs)
        }
        alphas = alphas_of_epoch(config, epoch, history, tuple(genotype.cells))
        table = price_table(config, len(classes))
        points = pareto_front(alphas, table)
    except UserError:
        return None
    macs, scores = [point.price.macs for point in points], [point.log_score for point in points]
    title = f"Log score of the best cells of any cost: {len(points)} of them, and the chosen ones"
    chosen = table.of(genotype).macs, Scores(alphas).of(genotype)
    return draw("front", title, figures.front_figure, macs, scores, chosen)


def _temperatures(record: RunRecord) -> NDArray[Any] | None:
    """Return what alpha was divided by after each epoch; None where it is 1, or no config says."""
    first, last, epochs = map(record.setting, (*TEMPERATURES, "search.epochs"))
    if not all(is_number(value) and value > 0 for value in (first, last, epochs)):
        return None
    alphas = AlphaOptimizerConfig(temperature=first, final_temperature=last)
    if not has_temperature(alphas):
        return None
    return np.array([temperature_at(alphas, epoch, epochs) for epoch in record.alpha_epochs])


def _departures(record: RunRecord) -> Iterator[str]:
    """Yield a sentence for each option by which the search was another than the paper's."""
    start, mean_of = record.setting("search.alphas.start_epoch"), record.setting("search.derive_epochs")
    stopped = record.setting("search.stop_epoch") or record.setting("search.epochs")
    if is_number(start) and start > 0:
        yield f"The weights were trained alone for {start:g} of {number(record.setting('search.epochs'))} epochs."
    if _temperatures(record) is not None:
        first, last = map(record.setting, TEMPERATURES)
        yield f"Shares are softmax(α / temperature), with a temperature that falls from {first:g} to {last:g}."
    costs = [entry.get("expected_macs") or entry.get("expected_params") for entry in record.search]
    if record.setting("budget.pressure") and costs and is_number(costs[0]) and is_number(costs[-1]):
        what = "multiply-accumulates of a view" if "expected_macs" in record.search[-1] else "parameters"
        yield (
            f"The search felt the budget: alphas that promised too costly cells were pushed to cheaper ones (from "
            f"{number(costs[0])} {what} after the first epoch to {number(costs[-1])} after the last)."
        )
    budget = genotype.about.get("budget") if (genotype := record.genotype) else None
    if genotype and isinstance(budget, dict) and is_number(lost := _lost_score(budget)):
        found = "found " if "latency_ms" in budget else ""
        latency = f"milliseconds for {budget.get('latency_of')}"
        limits = " and ".join(
            f"{number(budget[name])} {what}"
            for name, what in {
                "params": "parameters",
                "macs": "multiply-accumulates of a view",
                "latency_ms": latency,
            }.items()
            if name in budget
        )
        yield (
            f"The cells are the best ones {found}within {limits}: {budget.get('edges_changed')} of "
            f"{len(list(genotype.edges()))} edges are others than without it, at {lost:.3g} of the sum of log scores."
        )
        if isinstance(timing := budget.get("latency"), dict):
            yield (
                f"When they were chosen the network took {number(timing.get('median_ms'))} milliseconds, in the median "
                f"of {number(timing.get('runs'))} runs in a process of its own; of twenty runs one took longer than "
                f"{number(timing.get('p95_ms'))}."
            )
    widths = genotype.about.get("tried") if genotype else None
    if isinstance(widths, list) and all(isinstance(each, dict) for each in widths):
        tried = "; ".join(
            f"width {each.get('width')}, repeat {each.get('repeat')}, {number(each.get('macs'))} multiply-accumulates: "
            f"{_validation(each.get('top1'))} after {number(each.get('epochs'))} epochs"
            for each in widths
        )
        yield (
            f"Width {record.setting('train.width')} and repeat {record.setting('train.repeat')} were chosen by short "
            f"trainings within the budget, by top-1 on validation ({tried or 'nothing else was within it'})."
        )
    if is_number(mean_of) and mean_of > 1 and is_number(stopped):
        since = max(1, int(stopped) + 1 - int(mean_of))
        yield f"The cells were derived from the mean of the shares after epochs {since} to {stopped}."


def _validation(top1: Any) -> str:
    return "left out" if is_number(top1) and top1 < 0 else percent(top1)


def _lost_score(budget: Mapping[str, Any]) -> float | None:
    """Return what a budget has cost in log score, None where the notes do not say."""
    without, within = budget.get("log_score_without"), budget.get("log_score")
    return float(without - within) if is_number(without) and is_number(within) else None


def is_last_epoch(record: RunRecord, genotype: Genotype) -> bool:
    """Return whether the genotype is that of the last epoch of alpha: a search stopped earlier keeps other edges."""
    last, epoch = record.alpha_epochs[-1], genotype.about.get("epoch")
    return epoch == last if is_number(epoch) else record.epoch_genotypes.get(last, genotype) == genotype


def confusion(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """The confusion matrix and the most frequent mistakes."""
    matrix, names = record.confusion, record.confusion_classes
    if matrix is None or not matrix.any():
        return {"matrix": None}
    mistakes = [(int(matrix[t, p]), names[t], names[p], int(matrix[t].sum())) for t, p in np.argwhere(matrix) if t != p]
    mistakes = sorted(mistakes, key=lambda mistake: -mistake[0])[:CONFUSIONS_SHOWN]
    figure = draw("confusion", f"Confusion matrix of {len(names)} classes", figures.confusion_figure, matrix, names)
    shown: dict[tuple[str, str], list[int]] = {}  # numbers of the clips of each pair that the page shows
    for place, each in enumerate(record.mistakes):
        shown.setdefault((each.truth, each.prediction), []).append(place)
    rows = [
        [truth, taken, f"{n} of {total}", f"{100 * n / total:.0f} %", _links(shown.get((truth, taken), []))]
        for n, truth, taken, total in mistakes
    ]
    return {"matrix": figure, "mistakes": rows, "calibration": _calibration(record, draw)}


def _links(numbers: list[int]) -> Markup:
    """Return links to clips among the most confident mistakes, which are counted from 1."""
    return Markup(" ").join(Markup('<a href="#mistake-{0}">{0}</a>').format(number + 1) for number in numbers)


BIN = ("low", "high", "n", "said", "right")


def _calibration(record: RunRecord, draw: Draw) -> tuple[float, Markup] | None:
    """Return the calibration error and its figure; None where the results do not have them."""
    found = record.results.get("calibration")
    if not isinstance(found, dict) or not is_number(found.get("ece")) or not isinstance(found.get("bins"), list):
        return None
    bins = [entry for entry in found["bins"] if isinstance(entry, dict) and all(is_number(entry.get(k)) for k in BIN)]
    if not bins:
        return None
    title = "Share of videos that is right, by the score that they got"
    return float(found["ece"]), draw("calibration", title, figures.calibration_figure, bins)


def classes(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """Accuracy of every class, the lowest first."""
    names = [str(name) for name in record.results.get("classes", [])]
    accuracies = record.results.get("class_accuracy", [])
    if not names or len(names) != len(accuracies) or record.results.get("n_videos") == 0:
        return {"rows": []}
    known = sorted(accuracy for accuracy in accuracies if is_number(accuracy))
    pairs = zip((accuracy if is_number(accuracy) else math.inf for accuracy in accuracies), names, strict=True)
    return {"rows": [_class_row(record, *pair) for pair in sorted(pairs)], "accuracies": known}


def _class_row(record: RunRecord, accuracy: float, name: str) -> list[str]:
    counts, matrix, confused = record.catalog.get("counts", {}), record.confusion, ""
    tested = counts.get("test", {}).get(name)
    if matrix is not None and name in record.confusion_classes:
        index = record.confusion_classes.index(name)
        others = np.delete(matrix[index], index)
        tested = int(matrix[index].sum())
        if others.max(initial=0) > 0:
            confused = f"{np.delete(record.confusion_classes, index)[others.argmax()]} ({others.max()})"
    width = min(100.0, max(0.0, accuracy)) if math.isfinite(accuracy) else 0.0
    bar = Markup(f'<span class="bar"><i style="width:{width:.1f}%"></i></span>')
    splits = ("train", "val") if record.setting("train.final_on") == "train+validation" else ("train",)
    known = [counts[split][name] for split in splits if name in counts.get(split, {})]
    trained = sum(known) if known else None
    return [name, percent(accuracy), bar, number(tested), number(trained), confused]


# The paper's tables (its section 4), at 30 views. None where it gives no number.
PUBLISHED = (
    ("PV-NAS-L", "Kinetics-400", 19.65e6, 22.14e9, 78.7, 93.5),
    ("PV-NAS-M", "Kinetics-400", 77.15e6, 82.11e9, 81.4, 94.2),
    ("PV-NAS-L", "Something-Something V2", None, None, 62.5, 88.4),
    ("PV-NAS-L", "UCF-101, from scratch", None, None, 66.43, 85.70),
    ("5 random networks, mean", "UCF-101, from scratch", None, None, 61.81, 82.97),
)


def costs(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """Costs beside the published ones."""
    rows: list[list[str]] = []
    if results := record.results:
        data = str(record.catalog.get("root") or record.setting("data.path") or "–")
        params, macs, views, top1, top5 = map(results.get, ("params", "macs_per_view", "views", "top1", "top5"))
        k = results.get("k", 5)
        row = _cost_row(clean(record.name, 40), clean(Path(data).name or data, 40), params, macs, top1, top5, views)
        row[-1] += f" (top-{clean(k, 10)})" if k != 5 else ""
        rows += [["This run"], [Markup("<b>{}</b>").format(cell) for cell in row]]
    if record.latest_genotype and (same := _at_published_size(record.latest_genotype)):
        rows += [["The cells of this run at the published size (not trained)"], *same]
    return {"rows": [*rows, ["Published, on other data"], *(_cost_row(*network) for network in PUBLISHED)]}


def _cost_row(name: str, data: str, params: Any, macs: Any, top1: Any, top5: Any, views: Any = 30) -> list[str]:
    return [name, data, scaled(params), scaled(macs), number(views), percent(top1), percent(top5)]


def _at_published_size(genotype: Genotype) -> list[list[str]]:
    """Return the genotype's costs as PV-NAS-L and -M on Kinetics-400; none when it lacks a cell of that layout."""
    rows = []
    for name, width, repeat in (("L: width 64, K = 1", 64, 1), ("M: width 100, K = 2", 100, 2)):
        try:
            cost = network_cost(genotype, clip=(8, 224, 224), classes=400, width=width, repeat=repeat)
        except UserError:
            return []
        rows.append(_cost_row(name, "8×224×224, 400 classes", cost.params, cost.macs, None, None))
    return rows


def data(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """The videos by split, the verdicts on them, and the bad ones."""
    splits = []
    for split, by_class in record.catalog.get("counts", {}).items():
        low, high = min(by_class.values(), default=0), max(by_class.values(), default=0)
        a_class = str(low) if low == high else f"{low} to {high}"
        splits.append([split, number(sum(by_class.values())), number(len(by_class)), a_class])
    verdicts = Counter(row["verdict"] for row in record.verdicts).most_common()
    bad = [row for row in record.verdicts if row["verdict"] not in GOOD_VERDICTS]
    return {
        "splits": splits,
        "verdicts": [[verdict, number(videos)] for verdict, videos in verdicts],
        "bad": [[row.get("path"), row["verdict"], row.get("detail", "")] for row in bad],
    }


def repeat(record: RunRecord, draw: Draw) -> dict[str, Any]:
    """The commands that made the run, make it again and compare; machine, versions and digests."""
    command = record.environment.get("command")
    digests = {"digest": "digest", "digest of the genotype": "genotype_digest"}
    known = [(name, record.results[key]) for name, key in digests.items() if key in record.results]
    return {
        "made": shlex.join(typed_command(command)) if isinstance(command, list) else command,
        "data": shlex.quote(clean(record.setting("data.path") or record.catalog.get("root") or "DATA", 400)),
        "folder": shlex.quote(clean(record.folder)),
        "config": shlex.quote(f"{clean(record.folder)}/config.yaml"),
        "machine": [*_flat(record.environment), *known],
    }


def typed_command(argv: list[Any]) -> list[str]:
    """Return a command line as a person would type it, not with the path of the script that ran."""
    script, *rest = map(str, argv)
    name = Path(script).name
    return (["python", "-m", "pvnas"] if name == "__main__.py" else [name]) + rest


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} ")
        elif key != "command" and value not in (None, "", [], {}):
            yield name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)
