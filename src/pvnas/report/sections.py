"""The sections of the report: each turns a part of a run directory into HTML, with a sentence on what to see in it.

Everything that comes out of the run directory passes :func:`text` (escaped, no control characters) before it is HTML.
"""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvnas.config import PAPER_LAYOUT
from pvnas.errors import UserError
from pvnas.report import cells, figures
from pvnas.report.record import RunRecord, Sample
from pvnas.report.style import CATEGORY_NAMES, clean, drawing, inline_svg, save_figure
from pvnas.space.genotype import CATEGORIES, Genotype

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD_VERDICTS = frozenset({"ok", "short"})
BAD_VIDEOS_SHOWN = 100
STRIP_BYTES = 120_000  # a larger strip is made a JPEG, so that twelve of them stay well below 2 MB
STRIP_WIDTH = 1120
CONFUSIONS_SHOWN = 8
FOLD_CLASSES_FROM = 30
FOLD_FRAME = "</summary>"


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables (its section 4). None where the paper gives no number."""

    network: str
    data: str
    params: float | None
    macs: float | None
    top1: float
    top5: float


PUBLISHED = (
    Published("PV-NAS-L", "Kinetics-400", 19.65e6, 22.14e9, 78.7, 93.5),
    Published("PV-NAS-M", "Kinetics-400", 77.15e6, 82.11e9, 81.4, 94.2),
    Published("PV-NAS-L", "Something-Something V2", None, None, 62.5, 88.4),
    Published("PV-NAS-L", "UCF-101, from scratch", None, None, 66.43, 85.70),
    Published("5 random networks, mean", "UCF-101, from scratch", None, None, 61.81, 82.97),
)
PUBLISHED_VIEWS, PUBLISHED_CLIP, PUBLISHED_CLASSES = 30, (8, 224, 224), 400


@dataclass(frozen=True)
class Section:
    """A part of the page: heading, the sentence that says what to see, and the HTML below it."""

    anchor: str
    title: str
    see: str
    body: str


class Gallery:
    """Draws figures: writes them into ``folder`` and returns them as elements of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def figure(self, name: str, title: str, draw: Callable[[], Figure], css: str = "") -> str:
        """Draw, save as ``name.svg`` and ``name.png``, return a ``<figure>``; screen readers speak the ``title``."""
        with drawing(name):
            svg = save_figure(draw(), self.folder, name)
        return f'<figure class="{css}">{inline_svg(svg, name, title)}</figure>'


def text(value: object, limit: int = 200) -> str:
    """Return any value as HTML text: no control characters, not endless, escaped."""
    return escape(clean(value, limit))


def number(value: Any, digits: int = 2) -> str:
    """Return a number for people, or an en dash where there is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def scaled(value: Any, unit: str = "") -> str:
    """Return a count with three or four digits and k, M, G or T, as 19.65 M."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "–"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.2f} {prefix}{unit}"
    return f"{value:g} {unit}".strip()


def duration(seconds: Any) -> str:
    """Return seconds as 45 s, 12 min 3 s or 4 h 07 min."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(value: Any) -> str:
    """Return a share that is already in percent, with one or two digits as it was given."""
    return "–" if number(value) == "–" else f"{value:.4g} %"


def absent(sentence: str) -> str:
    """Return the frame that stands where something is missing."""
    return f'<p class="absent">{escape(sentence)}</p>'


# Result


def result_header(record: RunRecord) -> str:
    """Return the head of the page: the result, or how far the run is."""
    parts = [
        '<header class="result">',
        f'<p class="kicker">pvnas report{_dated(record)}</p>',
        f"<h1>{text(record.name)}</h1>",
        f"<p>{_outcome(record)}</p>",
    ]
    if record.results:
        parts.append(_scores(record.results))
    parts.append(_facts(record))
    return "".join([*parts, "</header>"])


def _dated(record: RunRecord) -> str:
    date = str(record.environment.get("date") or "").replace("T", " ").replace("+00:00", " UTC")
    return f" · run of {text(date, 40)}" if date else ""


def _outcome(record: RunRecord) -> str:
    results = record.results
    if not results:
        return f"No test result yet: {text(progress_text(record))}."
    classes = results.get("classes") or []
    chance = f", where guessing gives {100 / len(classes):.1f} %" if classes else ""
    return (
        f"The network found by the search names the right one of {len(classes)} classes for "
        f"<b>{percent(results.get('top1'))}</b> of {number(results.get('n_videos'))} held-out test videos{chance}."
    )


def progress_text(record: RunRecord) -> str:
    """Return how far search, training and test are, in words."""

    def stage(name: str, entries: Sequence[Any], wanted: Any) -> str:
        done = int(entries[-1]["epoch"]) if entries else 0
        return f"{name} {done} of {wanted} epochs" if isinstance(wanted, int) else f"{name} {done} epochs"

    parts = [
        stage("search", record.search, record.setting("search.epochs")),
        stage("training", record.train, record.setting("train.epochs")),
        "tested" if record.results else "not tested",
    ]
    return ", ".join(parts)


def _scores(results: Mapping[str, Any]) -> str:
    k = results.get("k", 5)
    scores = (("top1", "top-1", ""), ("top5", f"top-{k}", "small"), ("mean_class", "mean over classes", "small"))
    shown = [
        f'<div class="score {css}"><b>{text(percent(results.get(key)).removesuffix(" %"))}<i>%</i></b>'
        f"<span>{text(name)}</span></div>"
        for key, name, css in scores
    ]
    return f'<div class="headline">{"".join(shown)}</div>'


def _facts(record: RunRecord) -> str:
    results = record.results
    seconds = _seconds(record)
    facts = [("Time", _times(seconds))]
    if results:
        views = f"{results.get('temporal_views', '–')} in time × {results.get('spatial_views', '–')} in space"
        failed = results.get("n_failed", 0)
        clip = "×".join(map(str, results.get("clip", [])))
        facts = [
            ("Videos tested", f"{number(results.get('n_videos'))} <small>{number(failed)} left out</small>"),
            ("Parameters", scaled(results.get("params"))),
            (
                "Multiply-accumulates (MACs)",
                f"{scaled(results.get('macs_per_view'))} × {text(results.get('views'))} views "
                f"<small>= {scaled(results.get('macs_per_video'))} a video</small>",
            ),
            ("View", f"{text(clip)} <small>frames × pixels; {text(views)}</small>"),
            ("Network", f"width {text(results.get('width'))}, K = {text(results.get('repeat'))}"),
            *facts,
            ("Digest", f"<code>{text(str(results.get('digest', '–'))[:16])}…</code>"),
        ]
    else:
        facts.insert(0, ("Progress", text(progress_text(record))))
    facts.append(("Preset", text(record.setting("preset") or "–")))
    return '<dl class="facts">' + "".join(f"<div><dt>{n}</dt><dd>{v}</dd></div>" for n, v in facts) + "</dl>"


def _seconds(record: RunRecord) -> dict[str, float]:
    """Return the seconds of each stage: as the test noted them, else the sum over the epochs so far."""
    noted = record.results.get("seconds") or {}
    summed = {
        name: math.fsum(float(entry.get("seconds") or 0) for entry in entries)
        for name, entries in (("search", record.search), ("train", record.train))
    }
    return {name: value for name, value in {**summed, **noted}.items() if value}


def _times(seconds: Mapping[str, float]) -> str:
    names = {"search": "search", "train": "training", "test": "test"}
    return (
        "<br>".join(f"{duration(seconds[key])} <small>{name}</small>" for key, name in names.items() if key in seconds)
        or "–"
    )


def notices(record: RunRecord, missing_names: Mapping[str, str]) -> str:
    """Return what is missing or cannot be read; empty when there is nothing to say."""
    items = [f"Missing: {escape(missing_names[name])} (<code>{escape(name)}</code>)." for name in record.missing]
    items += [f"Not readable: {text(problem, 300)}." for problem in record.unreadable]
    if not items:
        return ""
    listed = "".join(f"<li>{item}</li>" for item in items)
    head = f"<p><b>This page is not complete</b> ({text(progress_text(record))}).</p>"
    return f'<div class="notice">{head}<ul>{listed}</ul></div>'


# Cells and search


def cells_section(record: RunRecord, gallery: Gallery) -> Section:
    """The four cells as graphs."""
    see = (
        "Read from left to right: each numbered node adds up what two operations bring it, and the output joins the "
        "four nodes. ↓2 marks an operation that halves height and width."
    )
    title, genotype = "The cells that the search found", record.latest_genotype
    if genotype is None:
        return Section("cells", title, see, absent("No genotype yet."))
    body = [gallery.figure("cells_legend", "Colours and dashes by kind of operation", cells.draw_legend, "legend")]
    for category in genotype.cells:
        words = f"{category}, {CATEGORY_NAMES[category]}: {_cell_in_words(genotype, category)}"
        body.append(gallery.figure(f"cell_{category}", words, _drawer(category, genotype)))
    if record.genotype is None:
        body.insert(0, absent(f"Not the last word: the cells after epoch {max(record.epoch_genotypes)} of the search."))
    return Section("cells", title, see + _free_sentence(genotype), "".join(body))


def _drawer(category: str, genotype: Genotype) -> Callable[[], Figure]:
    return lambda: cells.draw_cell(category, genotype.cells[category])


def _cell_in_words(genotype: Genotype, category: str) -> str:
    return "; ".join(
        f"node {node} from {edge.source} by {edge.operation}" for c, node, edge in genotype.edges() if c == category
    )


def _free_sentence(genotype: Genotype) -> str:
    counts = genotype.parameter_free()
    kept = figures.OPERATIONS_PER_CELL * len(genotype.cells)
    return f" {counts['total']} of the {kept} operations have no parameters (identity, pooling)."


def search_section(record: RunRecord, gallery: Gallery) -> Section:
    """Alpha, parameter-free operations and entropy over the epochs."""
    see = (
        "How the choice was made: every edge starts undecided, and one operation should rise on it; a search that "
        "collapses drifts to identity and pooling instead."
    )
    body = []
    known = record.latest_genotype.cells if record.latest_genotype else dict.fromkeys(CATEGORIES, ())
    if record.search and all("parameter_free" in entry for entry in record.search):
        body.append(_parameter_free(record, gallery, known))
    if record.search and all("alpha_entropy" in entry for entry in record.search):
        body.append("<h3>Entropy of α</h3>")
        body.append(
            "<p>It falls as the search makes up its mind; flat at the dotted line means that nothing was decided.</p>"
        )
        draw = lambda: figures.entropy_figure(record.search, known)  # noqa: E731
        body.append(gallery.figure("alpha_entropy", "Entropy of alpha over the epochs", draw))
    body.append(_alpha_maps(record, gallery))
    if not record.search and not record.alphas:
        body = [absent("No epoch of a search is recorded here.")]
    return Section("search", "How the search decided", see, "".join(body))


def _parameter_free(record: RunRecord, gallery: Gallery, known: Mapping[str, Any]) -> str:
    from pvnas.search.collapse import COLLAPSED_AT

    last = record.search[-1]["parameter_free"]
    collapsed = [category for category in known if last[category] >= COLLAPSED_AT]
    verdict = f"collapsed: {', '.join(collapsed)}" if collapsed else "no cell has collapsed"
    draw = lambda: figures.parameter_free_figure(record.search, COLLAPSED_AT, known)  # noqa: E731
    sentence = f"The lines should stay below the dashed one; at the last epoch {verdict}."
    figure = gallery.figure("parameter_free", "Parameter-free operations kept, over the epochs", draw)
    return f"<h3>Operations without parameters among those kept</h3><p>{escape(sentence)}</p>{figure}"


def _alpha_maps(record: RunRecord, gallery: Gallery) -> str:
    if not record.alphas:
        return absent("No alphas are recorded here (alphas.safetensors).")
    parts = [
        "<h3>α over the epochs</h3><p>One map per edge, epochs to the right. The brighter a row, the larger the share "
        "of that operation; the framed edges were kept, each with the operation at the mark.</p>"
    ]
    kept = record.latest_genotype
    for category, alpha_PEO in record.alphas.items():
        cell = kept.cells.get(category) if kept and _same_epoch(record, kept) else None
        draw = _alpha_drawer(category, alpha_PEO, record.alpha_epochs, cell)
        title = f"Share of every operation on the 14 edges of {category} over the epochs"
        parts.append(f"<h3>{category} · {CATEGORY_NAMES[category]}</h3>")
        parts.append(gallery.figure(f"alpha_{category}", title, draw))
    return "".join(parts)


def _alpha_drawer(category: str, alpha_PEO: Any, epochs: Sequence[int], cell: Any) -> Callable[[], Figure]:
    return lambda: figures.alpha_figure(category, alpha_PEO, epochs, cell)


def _same_epoch(record: RunRecord, kept: Genotype) -> bool:
    """Whether the genotype is that of the last epoch drawn: a search stopped earlier keeps other edges."""
    last = record.epoch_genotypes.get(record.alpha_epochs[-1])
    return last is None or last == kept


def learning_section(record: RunRecord, gallery: Gallery) -> Section:
    """Schedules, losses and accuracies."""
    see = "Losses should fall and accuracies rise; where validation falls behind training, the network memorises."
    body = []
    for name, title, entries in (("search", "Search (supernet)", record.search), ("train", "Training", record.train)):
        body.append(f"<h3>{title}</h3>")
        if entries:
            body.append(f"<p>{_last_epoch(entries)}</p>")
            body.append(gallery.figure(f"learning_{name}", f"{title}: loss and accuracy", _learning_drawer(entries)))
        else:
            body.append(absent("No epoch is recorded yet."))
    if record.search or record.train:
        draw = lambda: figures.schedule_figure(record.search, record.train)  # noqa: E731
        body.append("<h3>Learning rates</h3><p>At the end of every epoch, on a logarithmic scale.</p>")
        body.append(gallery.figure("schedules", "Learning rates over the epochs", draw))
    return Section("learning", "Losses, accuracies and schedules", see, "".join(body))


def _learning_drawer(entries: Any) -> Callable[[], Figure]:
    return lambda: figures.learning_figure(entries)


def _last_epoch(entries: Sequence[Mapping[str, Any]]) -> str:
    last = entries[-1]
    waiting = last.get("wait_share")
    parts = [f"After epoch {text(last['epoch'])}: training top-1 {percent(last.get('top1'))}"]
    if last.get("val_top1") is not None:
        parts.append(f"validation top-1 {percent(last['val_top1'])}")
    if last.get("clips_per_s") is not None:
        parts.append(f"{float(last['clips_per_s']):.1f} clips/s")
    if waiting is not None:
        parts.append(f"{100 * float(waiting):.0f} % of the time spent waiting for data")
    return text(", ".join(parts) + ".", 300)


# Test


def confusion_section(record: RunRecord, gallery: Gallery) -> Section:
    """The confusion matrix and the most frequent mistakes."""
    title = "What is taken for what"
    matrix, classes = record.confusion, record.confusion_classes
    if matrix is None:
        see = "Each row is a true class, each column a prediction; the diagonal is right."
        return Section("confusion", title, see, absent("The network has not been tested yet."))
    mistakes = _mistakes(record)
    see = "Each row is a true class, each column a prediction; the diagonal is right. "
    if mistakes:
        count, total, truth, prediction = mistakes[0]
        names = f"{clean(truth, 40)} taken for {clean(prediction, 40)}"
        see += f"The most frequent mistake: {names} ({count} of {total} videos)."
    else:
        see += "There is no mistake."
    draw = lambda: figures.confusion_figure(matrix, classes)  # noqa: E731
    body = gallery.figure("confusion", f"Confusion matrix of {len(classes)} classes", draw)
    rows = [
        [_td(truth), _td(prediction), _n(f"{count} of {total}"), _n(f"{100 * count / total:.0f} %")]
        for count, total, truth, prediction in mistakes
    ]
    if rows:
        body += "<h3>Most frequent mistakes</h3>" + table(["truth", "taken for", "videos!", "share!"], rows)
    return Section("confusion", title, see, body)


def _mistakes(record: RunRecord) -> list[tuple[int, int, str, str]]:
    """Return (videos, videos of the class, truth, prediction) of the most frequent mistakes."""
    matrix, classes = record.confusion, record.confusion_classes
    if matrix is None:
        return []
    found = [
        (int(matrix[t, p]), int(matrix[t].sum()), classes[t], classes[p])
        for t, p in zip(*matrix.nonzero(), strict=True)
        if t != p
    ]
    return sorted(found, key=lambda mistake: -mistake[0])[:CONFUSIONS_SHOWN]


def clips_section(record: RunRecord) -> Section:
    """Test clips as strips of frames."""
    right = sum(sample.right for sample in record.samples)
    see = (
        "What the network was shown (one view of each video, first frame left) and what it made of it. "
        f"{right} of these {len(record.samples)} are right; they are examples, not the score."
        if record.samples
        else "What the network was shown and what it made of it."
    )
    clips = "".join(_clip(sample) for sample in record.samples)
    body = f'<div class="clips">{clips}</div>' if clips else absent("No test clips yet.")
    return Section("clips", "Test clips", see, body)


def _clip(sample: Sample) -> str:
    css, mark = ("right", "✓ right") if sample.right else ("wrong", "✗ wrong")
    picture = '<p class="absent">the strip is missing</p>'
    if sample.png:
        kind, data = _compact(sample.png)
        coded = base64.b64encode(data).decode()
        picture = f'<img alt="frames of {text(sample.path)}" src="data:image/{kind};base64,{coded}">'
    score = f" ({100 * sample.score:.0f} %)" if math.isfinite(sample.score) else ""
    said = f"<b>{text(sample.prediction, 60)}</b>{score}"
    words = f"said {said}" if sample.right else f"said {said}, is <b>{text(sample.truth, 60)}</b>"
    caption = f'<span class="mark">{mark}</span> {words}<br><code>{text(sample.path)}</code>'
    return f'<figure class="clip {css}">{picture}<figcaption>{caption}</figcaption></figure>'


def _compact(png: bytes) -> tuple[str, bytes]:
    """Return the picture as it is when it is small, else scaled to the page's width as a JPEG: (kind, bytes)."""
    if len(png) <= STRIP_BYTES:
        return "png", png
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=["PNG"]) as strip:
        picture = strip.convert("RGB")
    if picture.width > STRIP_WIDTH:
        picture = picture.resize((STRIP_WIDTH, max(1, round(picture.height * STRIP_WIDTH / picture.width))))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "jpeg", buffer.getvalue()


def classes_section(record: RunRecord) -> Section:
    """Accuracy of every class."""
    title, see = "Class by class", "The classes that need help come first: more or cleaner videos of them pay most."
    classes = [str(name) for name in record.results.get("classes", [])]
    accuracies = record.results.get("class_accuracy", [])
    if not classes or len(classes) != len(accuracies):
        return Section("classes", title, see, absent("The network has not been tested yet."))
    order = sorted(range(len(classes)), key=lambda index: (_sortable(accuracies[index]), classes[index]))
    rows = [_class_row(record, classes[index], accuracies[index]) for index in order]
    body = table(["class", "accuracy!", "", "test videos!", "training videos!", "most often taken for"], rows)
    if len(classes) >= FOLD_CLASSES_FROM:
        body = f"<details><summary>All {len(classes)} classes{FOLD_FRAME}{body}</details>"
        body = f"<p>{_range_sentence(accuracies)}</p>" + body
    return Section("classes", title, see, body)


def _sortable(accuracy: Any) -> float:
    return float(accuracy) if number(accuracy) != "–" else math.inf


def _range_sentence(accuracies: Iterable[Any]) -> str:
    values = sorted(value for value in map(_sortable, accuracies) if math.isfinite(value))
    if not values:
        return "No class has a test video."
    return f"From {values[0]:.1f} % to {values[-1]:.1f} %, median {values[len(values) // 2]:.1f} %."


def _class_row(record: RunRecord, name: str, accuracy: Any) -> list[str]:
    counts = record.catalog.get("counts", {})
    tested: Any = counts.get("test", {}).get(name)
    confused = ""
    if record.confusion is not None and name in record.confusion_classes:
        index = record.confusion_classes.index(name)
        row = record.confusion[index].copy()
        tested, row[index] = int(row.sum()), 0
        confused = f"{record.confusion_classes[int(row.argmax())]} ({int(row.max())})" if row.max() > 0 else ""
    width = min(100.0, max(0.0, _sortable(accuracy))) if number(accuracy) != "–" else 0.0
    bar = f'<td><span class="bar"><i style="width:{width:.1f}%"></i></span></td>'
    trained = counts.get("train", {}).get(name)
    return [_td(name), _n(percent(accuracy)), bar, _n(number(tested)), _n(number(trained)), _td(confused)]


# Costs, data, settings


def costs_section(record: RunRecord) -> Section:
    """Costs beside the published ones."""
    see = (
        "How large the network is beside the published ones. The published rows are other data sets and a GPU "
        "cluster's training: compare the costs, not the accuracies."
    )
    headings = ["network", "data", "parameters!", "MACs a view!", "views!", "top-1!", "top-5!"]
    rows = [("own", _own_cost(record))] if record.results else []
    same = _published_size(record.latest_genotype) if record.latest_genotype else []
    groups = [("This run", rows), ("The cells of this run at the published size (not trained)", same)]
    groups.append(("Published, on other data", [("", _published_row(row)) for row in PUBLISHED]))
    body = []
    for heading, group in groups:
        if group:
            body.append(f'<tr class="group"><td colspan="{len(headings)}">{escape(heading)}</td></tr>')
            body += [f'<tr class="{css}">{"".join(row)}</tr>' for css, row in group]
    note = (
        '<p class="quiet">MACs are multiply-accumulates of convolutions and classifier for one view; the paper calls '
        "them GFLOPs. A dash: the paper gives no number, or the network was not trained.</p>"
    )
    return Section("costs", "Costs beside the published networks", see, _table(headings, "".join(body)) + note)


def _own_cost(record: RunRecord) -> list[str]:
    results = record.results
    data = str(record.catalog.get("root") or record.setting("data.path") or "–")
    top5 = percent(results.get("top5")) + (f" (top-{results['k']})" if results.get("k", 5) != 5 else "")
    return [
        _td(record.name, 40),
        _td(Path(data).name or data, 40),
        _n(scaled(results.get("params"))),
        _n(scaled(results.get("macs_per_view"))),
        _n(number(results.get("views"))),
        _n(percent(results.get("top1"))),
        _n(top5),
    ]


def _published_size(genotype: Genotype) -> list[tuple[str, list[str]]]:
    """Return the rows of the genotype as PV-NAS-L and -M on Kinetics-400; none when it lacks a cell of that layout."""
    from pvnas.space.cost import network_cost

    rows = []
    for name, width, repeat in (("L: width 64, K = 1", 64, 1), ("M: width 100, K = 2", 100, 2)):
        try:
            cost = network_cost(
                genotype,
                width=width,
                repeat=repeat,
                clip=PUBLISHED_CLIP,
                classes=PUBLISHED_CLASSES,
                layout=PAPER_LAYOUT,
            )
        except UserError:
            return []
        size = [_n(scaled(cost.params)), _n(scaled(cost.macs)), _n(str(PUBLISHED_VIEWS))]
        rows.append(("", [_td(name), _td("8×224×224, 400 classes"), *size, _n("–"), _n("–")]))
    return rows


def _published_row(row: Published) -> list[str]:
    return [
        _td(row.network),
        _td(row.data),
        _n(scaled(row.params)),
        _n(scaled(row.macs)),
        _n(str(PUBLISHED_VIEWS)),
        _n(percent(row.top1)),
        _n(percent(row.top5)),
    ]


def data_section(record: RunRecord) -> Section:
    """Videos by split and the verdicts on them."""
    verdicts = Counter(row["verdict"] for row in record.verdicts)
    bad = [row for row in record.verdicts if row["verdict"] not in GOOD_VERDICTS]
    see = "Which videos were used and which could not be read; a bad video is named and left out, never replaced."
    if record.verdicts:
        see += f" {len(record.verdicts) - len(bad)} of {len(record.verdicts)} videos are good."
    body = [_splits(record)]
    if verdicts:
        rows = [[_td(name), _n(number(count))] for name, count in verdicts.most_common()]
        body.append("<h3>Verdicts</h3>" + table(["verdict", "videos!"], rows))
    if bad:
        body.append(_bad_videos(bad))
    if not record.catalog and not record.verdicts:
        body = [absent("The data of this run are not recorded here.")]
    return Section("data", "Data", see, "".join(body))


def _splits(record: RunRecord) -> str:
    counts = record.catalog.get("counts", {})
    if not counts:
        return ""
    rows = [
        [_td(split), _n(number(sum(by_class.values()))), _n(number(len(by_class))), _n(_range(by_class.values()))]
        for split, by_class in counts.items()
    ]
    excluded = f"{number(record.catalog.get('excluded', 0))} excluded; folder "
    folder = f"<code>{text(record.catalog.get('root', '–'), 400)}</code>"
    return table(["split", "videos!", "classes!", "videos a class!"], rows) + f'<p class="quiet">{excluded}{folder}</p>'


def _range(values: Iterable[int]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "–"
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _bad_videos(bad: Sequence[Mapping[str, Any]]) -> str:
    rows = [[_td(row.get("path")), _td(row["verdict"]), _td(row.get("detail", ""))] for row in bad[:BAD_VIDEOS_SHOWN]]
    more = (
        f'<p class="quiet">and {len(bad) - BAD_VIDEOS_SHOWN} more, in verdicts.csv</p>'
        if len(bad) > BAD_VIDEOS_SHOWN
        else ""
    )
    listed = table(["video", "verdict", "what was found"], rows) + more
    fold = " open" if len(bad) <= 12 else ""
    return f"<h3>Videos that are not good</h3><details{fold}><summary>{len(bad)} videos{FOLD_FRAME}{listed}</details>"


def settings_section(record: RunRecord) -> Section:
    """The complete config."""
    see = "Every setting of this run, complete: the file can be given to another run."
    if not record.config_text:
        return Section("settings", "Settings", see, absent("No config.yaml."))
    shown = escape("\n".join(clean(line, 400) for line in record.config_text.splitlines()[:1000]))
    return Section(
        "settings", "Settings", see, f"<details><summary>config.yaml{FOLD_FRAME}<pre>{shown}</pre></details>"
    )


def machine_section(record: RunRecord) -> Section:
    """Versions, machine, digest and the commands that make the run again."""
    see = (
        "The same command, data, versions and number of threads give the same digest, which stands for every weight, α "
        "and statistic of the run."
    )
    rows = [[_td(key), _td(value, 400)] for key, value in _flat(record.environment)]
    names = {"digest": "digest", "genotype_digest": "digest of the genotype"}
    rows += [[_td(name), _td(record.results[key])] for key, name in names.items() if key in record.results]
    body = ["<h3>Again</h3>", f"<pre>{escape(_commands(record))}</pre>", "<h3>Machine, versions, digest</h3>"]
    body.append(table(["", ""], rows) if rows else absent("Machine and versions are not recorded here."))
    return Section("again", "Machine, versions and how to repeat it", see, "".join(body))


def _commands(record: RunRecord) -> str:
    """Return the commands that made the run, make it again into another folder, and check it."""
    folder = clean(record.folder)
    data = clean(record.setting("data.path") or record.catalog.get("root") or "DATA", 400)
    command = record.environment.get("command")
    lines = []
    if command:
        made = shlex.join(_without_place(command)) if isinstance(command, list) else str(command)
        lines += ["# made by", clean(made, 1000), ""]
    config = shlex.quote(f"{folder}/config.yaml")
    lines += [
        "# the same again, into another folder",
        f"pvnas run {shlex.quote(data)} --config {config} --dir AGAIN",
        "",
    ]
    lines += ["# compare", f"pvnas digest {shlex.quote(folder)}", "pvnas digest AGAIN"]
    return "\n".join(lines)


def _without_place(argv: Sequence[Any]) -> list[str]:
    """Return a command line as a person would type it, not with the path of the script that ran."""
    script, *rest = map(str, argv)
    name = Path(script).name
    return (["python", "-m", "pvnas"] if name == "__main__.py" else [name]) + rest


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name} ")
        elif key != "command" and value not in (None, "", [], {}):
            rows.append((name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


# Tables


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of finished cells. A heading that ends in ``!`` stands over numbers."""
    return _table(headings, "".join(f"<tr>{''.join(row)}</tr>" for row in rows))


def _table(headings: Sequence[str], body: str) -> str:
    head = "".join(
        f'<th class="n" scope="col">{escape(h[:-1])}</th>' if h.endswith("!") else f'<th scope="col">{escape(h)}</th>'
        for h in headings
    )
    head = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _td(value: object, limit: int = 200) -> str:
    return f'<td class="text">{text(value, limit)}</td>'


def _n(shown: str) -> str:
    return f'<td class="n">{escape(shown)}</td>'
