"""Colours, type and file output that every figure of the report shares.

Figures are matplotlib ``Figure`` objects, never pyplot's global ones. The files are drawn on white; the page takes the
same SVG with its neutral colours turned into CSS variables, so that it follows the reader's light or dark setting.
"""

import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pvnas.report.text import clean
from pvnas.space.genotype import is_reduction
from pvnas.space.operations import registered_operations

# Neutral colours. Each is written nowhere else in a figure, so that the page can replace it.
INK, MUTED, LINE, SURFACE, PAPER = "#1f2328", "#656d76", "#d1d9e0", "#fffffe", "#ffffff"
_CSS_OF = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", SURFACE: "var(--surface)"}

CATEGORY_STYLES: dict[str, dict[str, Any]] = {
    "S-NC": {"color": "#1a6fc4", "linestyle": "-", "marker": "o"},
    "S-RC": {"color": "#3d9be9", "linestyle": "--", "marker": "s"},
    "T-NC": {"color": "#bf3278", "linestyle": "-", "marker": "^"},
    "T-RC": {"color": "#e070a8", "linestyle": "--", "marker": "D"},
}
# For operations that declare none, each with a contrast of 4.5 to white text and of nearly 3 to a dark page.
_OTHER_COLOURS = ("#2f7d32", "#6d5bd0", "#64742a", "#3f6f9e", "#a33d9b", "#7a5c2e", "#a4462b")

_RC: dict[str, Any] = {
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same everywhere
    "font.size": 9,
    "text.parse_math": False,  # a class may be called "$x$"
    **dict.fromkeys(("text.color", "axes.titlecolor"), INK),
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), MUTED),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), LINE),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 8),
    "axes.facecolor": "none",
    "axes.labelsize": 8.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # not searched for among ticks, which are below
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",  # text stays text
}


def category_name(category: str) -> str:
    """Return the full name of a category of cells, as: spatial normal cell."""
    space = "temporal" if category.startswith("T-") else "spatial"
    return f"{space} {'reduction' if is_reduction(category) else 'normal'} cell"


def operation_style(name: str) -> tuple[str, str]:
    """Return the short label of an operation and its colour; of an unknown one its name and always the same colour."""
    declared = registered_operations().get(name)
    label = clean(declared.label if declared else name, 24)
    any_colour = _OTHER_COLOURS[zlib.crc32(name.encode()) % len(_OTHER_COLOURS)]
    return label, (declared and declared.colour) or any_colour


def ink_on(colour: str) -> str:
    """Return the colour of text on a colour. Not the page's own: it stays in a light and a dark page alike."""
    linear = (value / 12.92 if value <= 0.04 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour))
    luminance = sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#fdfdfd" if luminance < 0.18 else "#20242a"


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Apply the report's look inside the block; ``name`` makes the identifiers in the SVG reproducible."""
    look: dict[Any, Any] = {**_RC, "svg.hashsalt": f"pvnas-{name}"}
    with matplotlib.rc_context(look), warnings.catch_warnings():
        # A class name in a script that the font lacks: an SVG still carries the text, a PNG shows boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def save_figure(figure: Figure, folder: Path, name: str, *, png: bool = False) -> str:
    """Write ``name.svg`` into the folder, and ``name.png`` (160 dots per inch) if asked; return the SVG text.

    A PNG is a second drawing of all there is; one that lies there is kept up to date. Equal figures give equal bytes:
    no date, identifiers from the name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{name}.png"
    svg = svg_of(figure)
    if png or picture.exists():
        quick = {"compress_level": 1}  # even areas are small in any case
        figure.savefig(picture, format="png", dpi=160, metadata={"Software": "pvnas"}, pil_kwargs=quick)
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return svg


def svg_of(figure: Figure) -> str:
    """Return a figure as SVG; what is saved of it afterwards has the same layout."""
    if engine := figure.get_layout_engine():  # laid out once, not for each of the files and twice
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=160, metadata={"Date": None, "Creator": "pvnas"})
    return buffer.getvalue().decode("utf-8")


def embed_figure(folder: Path, png: bool, name: str, title: str, function: Callable[..., Figure], *data: Any) -> Markup:
    """Draw a figure, write its files into the folder, return it for the page; screen readers speak the ``title``."""
    with drawing(name):
        svg = save_figure(function(*data), folder, name, png=png)
    return Markup(f'<figure class="{name}">{inline_svg(svg, name, title)}</figure>')


def inline_svg(svg: str, name: str, title: str) -> str:
    """Return the SVG as an element of the page: no prolog, own identifiers, the page's neutral colours."""
    dropped = r"<!--.*?-->|<metadata>.*?</metadata>|<style .*?</style>"
    svg = re.sub(dropped, "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(f"fill: {PAPER}", "fill: none")
    svg = svg.replace("font-family: 'DejaVu Sans', sans-serif; ", "")  # the page's own
    for colour, css in _CSS_OF.items():
        svg = svg.replace(colour, css)
    head, rest = svg.split(">", 1)
    width = re.search(r'width="([\d.]+)pt"', head)
    # One point of a figure is 4/3 CSS pixels, so that 9 points read as the page's 12 pixels.
    limit = f"max-width:{float(width[1]) * 4 / 3:.0f}px" if width else ""
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(title)}" style="{limit}">{rest}'
