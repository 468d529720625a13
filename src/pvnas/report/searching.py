"""The sections on the search: its cells, how it decided, losses, accuracies and schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from pvnas.report import cells, figures
from pvnas.report.html import Gallery, Section, absent, percent, text
from pvnas.report.record import RunRecord
from pvnas.report.style import CATEGORY_NAMES
from pvnas.space.genotype import CATEGORIES, Genotype

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
