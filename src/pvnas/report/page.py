"""One self-contained HTML page for a run: no network, no scripts, the figures inside.

The page forbids itself everything but its own styles and inlined pictures (Content-Security-Policy), besides escaping
whatever comes out of the run directory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path

from pvnas.errors import UserError
from pvnas.report import costs, facts, head, searching, testing
from pvnas.report.html import Gallery, Section, absent, text
from pvnas.report.record import EXPECTED, RunRecord, read_run

REPORT_NAME, FIGURES_NAME = "report.html", "figures"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(run_dir: str | Path) -> Path:
    """Write ``figures/*.svg``, ``figures/*.png`` and ``report.html`` into a run directory and return the page.

    The run may be unfinished: what is missing is named on the page. Raises UserError when the folder holds no run.
    """
    folder = Path(run_dir)
    page = render_page(read_run(folder), folder / FIGURES_NAME)
    target = folder / REPORT_NAME
    _replace(target, page)
    return target


def render_page(record: RunRecord, figures_folder: Path) -> str:
    """Return the page of a run, and write its figures."""
    parts = page_sections(record, Gallery(figures_folder))
    links = "".join(f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in parts)
    body = "".join(_section_html(part) for part in parts)
    css = files("pvnas.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(record.name)} · pvnas report</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        f"{_header(record)}\n{head.notices(record, EXPECTED)}<nav>{links}</nav>\n{body}"
        '<p class="quiet">The figures of this page lie as SVG and PNG in <code>figures/</code> beside it.</p>\n'
        "</main>\n</body>\n</html>\n"
    )


def page_sections(record: RunRecord, gallery: Gallery) -> list[Section]:
    """Return the sections in their order. One that cannot be drawn from what the run holds says so."""
    makers: list[tuple[str, str, Callable[[], Section]]] = [
        ("clips", "Test clips", lambda: testing.clips_section(record)),
        ("cells", "The cells that the search found", lambda: searching.cells_section(record, gallery)),
        ("search", "How the search decided", lambda: searching.search_section(record, gallery)),
        ("learning", "Losses, accuracies and schedules", lambda: searching.learning_section(record, gallery)),
        ("confusion", "What is taken for what", lambda: testing.confusion_section(record, gallery)),
        ("classes", "Class by class", lambda: testing.classes_section(record)),
        ("costs", "Costs beside the published networks", lambda: costs.costs_section(record)),
        ("data", "Data", lambda: facts.data_section(record)),
        ("settings", "Settings", lambda: facts.settings_section(record)),
        ("again", "Machine, versions and how to repeat it", lambda: facts.machine_section(record)),
    ]
    if not record.samples:
        makers.insert(6, makers.pop(0))  # nothing to lead with
    return [_attempt(anchor, title, make) for anchor, title, make in makers]


# What files of another version or another hand can provoke. The report comes last in a run of hours: it must not fail.
_DATA_ERRORS = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, UserError, ValueError)


def _attempt(anchor: str, title: str, make: Callable[[], Section]) -> Section:
    try:
        return make()
    except _DATA_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        return Section(
            anchor, title, "", absent(f"This part could not be made from the files of the run ({reason[:200]}).")
        )


def _header(record: RunRecord) -> str:
    try:
        return head.result_header(record)
    except _DATA_ERRORS as error:
        return f"<h1>{text(record.name)}</h1>" + absent(f"The result could not be read ({type(error).__name__}).")


def _section_html(part: Section) -> str:
    see = f'<p class="see">{text(part.see, 1000)}</p>' if part.see else ""
    return f'<section id="{part.anchor}">\n<h2>{escape(part.title)}</h2>\n{see}{part.body}\n</section>\n'


def _replace(target: Path, page: str) -> None:
    """Write the page whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".report-", suffix=".html")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would keep a shared report from its readers
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
