"""What every section of the page is made of: escaped text, numbers, tables, figures.

Everything that comes out of the run directory passes :func:`text` (escaped, no control characters) before it is HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvnas.report.style import clean, drawing, inline_svg, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FOLD_FRAME = "</summary>"


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


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of finished cells. A heading that ends in ``!`` stands over numbers."""
    return table_of(headings, "".join(f"<tr>{''.join(row)}</tr>" for row in rows))


def table_of(headings: Sequence[str], body: str) -> str:
    """Return a table around finished rows; it scrolls by itself where the page is narrow."""
    head = "".join(
        f'<th class="n" scope="col">{escape(h[:-1])}</th>' if h.endswith("!") else f'<th scope="col">{escape(h)}</th>'
        for h in headings
    )
    head = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def td(value: object, limit: int = 200) -> str:
    """Return a cell of escaped text."""
    return f'<td class="text">{text(value, limit)}</td>'


def right(shown: str) -> str:
    """Return a cell of a number, set to the right."""
    return f'<td class="n">{escape(shown)}</td>'
