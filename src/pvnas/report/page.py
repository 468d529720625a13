"""One self-contained HTML page for a run: no network, no scripts, the figures inside.

The page forbids itself everything but its own styles and inlined pictures (Content-Security-Policy). Whatever comes out
of the run directory loses its control characters and is escaped as it is written.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pvnas.report.record import RunRecord, read_run
from pvnas.report.text import ABSENT, clean, duration, number, percent, scaled
from pvnas.runtime.files import write_atomic
from pvnas.runtime.progress import Progress, begin
from pvnas.training.outcome import lacks, mean_class_name

REPORT_NAME, FIGURES_NAME = "report.html", "figures"
# A macro of sections.html writes each, from the run and what the function of the same name in sections.py makes of it.
SECTIONS = {
    "clips": "Test clips",
    "cells": "The cells of the network",
    "search": "How the search decided",
    "augmented": "Training clips, augmented",
    "learning": "Losses, accuracies and schedules",
    "confusion": "What is taken for what",
    "mistakes": "The most confident mistakes",
    "classes": "Class by class",
    "costs": "Costs beside the published networks",
    "exports": "Exported files",
    "data": "Data",
    "settings": "Settings",
    "repeat": "Machine, versions and how to repeat it",
}

OF_THE_RUN = ("search", "learning", "costs", "repeat")  # what the page of a test on another set leaves to the run's own


def write_report(run_dir: str | Path, progress: Progress | None = None, *, png: bool = False) -> Path:
    """Write ``figures/*.svg`` and ``report.html`` into a run directory and return the page.

    ``png``: also ``figures/*.png``. The run may be unfinished: what is missing is named on the page. Raises UserError
    when the folder holds no run.
    """
    folder = Path(run_dir)
    write_atomic(folder / REPORT_NAME, render_page(read_run(folder), folder / FIGURES_NAME, progress, png=png))
    return folder / REPORT_NAME


def render_page(record: RunRecord, figures_folder: Path, progress: Progress | None = None, *, png: bool = False) -> str:
    """Return the page of a run, and write its figures. A section that the files cannot give says so."""
    from pvnas.report import figures, sections, style  # matplotlib loads for a report, not whenever a run starts

    templates, draw = page_templates(), partial(style.embed_figure, figures_folder, png)
    templates.globals |= {"draw": draw, "figures": figures, "lacks": lacks, "mean_class_name": mean_class_name}
    macros: Any = templates.get_template("sections.html").module
    names = [name for name in SECTIONS if not (record.tested and name in OF_THE_RUN)]
    if not record.searched:  # nothing decided here: the genotype was given
        names = [name for name in names if name != "search" and not (record.peer and name == "cells")]
    if not record.mistakes:
        names.remove("mistakes")
    if not record.exports:
        names.remove("exports")
    if not record.augmented:  # of a run that has not trained yet, or a test on another set
        names.remove("augmented")
    if not record.samples:
        names.insert(names.index("classes"), names.pop(names.index("clips")))  # nothing to lead with

    def section(name: str) -> Markup:
        try:
            make = getattr(sections, name, None)
            return getattr(macros, name)(record, **(make(record, draw) if make else {}))
        except Exception as error:  # a report ends a run of hours: no file in it may make it fail
            return macros.absent(f"This part could not be made from the files of the run ({_reason(error)}).")

    try:
        result = macros.result(record)
    except Exception as error:
        result = Markup("<h1>{}</h1>").format(record.name)
        result += macros.absent(f"The result could not be read ({_reason(error)}).")
    parts = []
    with begin(progress, "report", len(names)) as task:
        for name in names:
            parts.append((name, SECTIONS[name], section(name)))
            task.advance()
    return templates.get_template("page.html").render(run=record, result=result, parts=parts)


def page_templates() -> jinja2.Environment:
    """Return what fills the templates: every value is escaped, and cleaned unless it is a finished part of the page."""
    loader = jinja2.PackageLoader("pvnas.report", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, finalize=_safe, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update({f.__name__: f for f in (clean, duration, number, percent, scaled)})
    return environment


def _safe(value: object) -> object:
    if value is None or isinstance(value, jinja2.Undefined):
        return ABSENT
    return value if isinstance(value, Markup) else clean(value, 1000)


def _reason(error: Exception) -> str:
    return clean(f"{type(error).__name__}: {error}")
