"""The section on costs, beside the networks that the paper publishes."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from pvnas.errors import UserError
from pvnas.report.html import Section, number, percent, right, scaled, table_of, td
from pvnas.report.record import RunRecord
from pvnas.space.genotype import Genotype


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
    return Section("costs", "Costs beside the published networks", see, table_of(headings, "".join(body)) + note)


def _own_cost(record: RunRecord) -> list[str]:
    results = record.results
    data = str(record.catalog.get("root") or record.setting("data.path") or "–")
    top5 = percent(results.get("top5")) + (f" (top-{results['k']})" if results.get("k", 5) != 5 else "")
    return [
        td(record.name, 40),
        td(Path(data).name or data, 40),
        right(scaled(results.get("params"))),
        right(scaled(results.get("macs_per_view"))),
        right(number(results.get("views"))),
        right(percent(results.get("top1"))),
        right(top5),
    ]


def _published_size(genotype: Genotype) -> list[tuple[str, list[str]]]:
    """Return the rows of the genotype as PV-NAS-L and -M on Kinetics-400; none when it lacks a cell of that layout."""
    from pvnas.space.cost import network_cost

    rows = []
    for name, width, repeat in (("L: width 64, K = 1", 64, 1), ("M: width 100, K = 2", 100, 2)):
        try:
            cost = network_cost(genotype, width=width, repeat=repeat, clip=PUBLISHED_CLIP, classes=PUBLISHED_CLASSES)
        except UserError:
            return []
        size = [right(scaled(cost.params)), right(scaled(cost.macs)), right(str(PUBLISHED_VIEWS))]
        rows.append(("", [td(name), td("8×224×224, 400 classes"), *size, right("–"), right("–")]))
    return rows


def _published_row(row: Published) -> list[str]:
    return [
        td(row.network),
        td(row.data),
        right(scaled(row.params)),
        right(scaled(row.macs)),
        right(str(PUBLISHED_VIEWS)),
        right(percent(row.top1)),
        right(percent(row.top5)),
    ]
