"""The page of what a network sees over the time of videos: frames, scores and segments below one another."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pvnas.report.page import page_templates
from pvnas.report.style import LINE, MUTED, drawing, inline_svg, svg_of
from pvnas.report.text import clean

COLOURS = ("#1a6fc4", "#bf3278", "#2f7d32", "#9a6700", "#6d5bd0", "#0f7b83", "#a4462b", "#64742a")
OTHER = "#8a929a"
ROWS = 200  # of a video's table; more are told, not shown
SHOWN_VIDEOS = 200
HEIGHT = 90  # pixels of a frame


@dataclass(frozen=True)
class Shown:
    """What the page shows of a video: S stretches between bounds, K classes."""

    name: str
    error: str = ""
    seconds: float = 0.0
    segments: Sequence[tuple[float, float, str, float]] = ()  # start, end, class, score
    bounds_S1: NDArray[np.float64] | None = None
    scores_SK: NDArray[np.float64] | None = None
    classes: Sequence[str] = ()
    pictures: Sequence[tuple[float, NDArray[np.uint8]]] = ()


def timeline_page(videos: Sequence[Shown], n_videos: int, **about: Any) -> str:
    """Return the page of the first of so many videos.

    ``about``: network, window, stride (seconds), margin and least of the segments.
    """
    parts = [_part(number, video) for number, video in enumerate(videos)]
    return page_templates().get_template("timeline.html").render(videos=parts, n_videos=n_videos, **about)


def _part(number: int, video: Shown) -> dict[str, Any]:
    colours = colours_of(video)
    rows = [
        {"start": clock(start), "end": clock(end), "name": name, "score": score, "colour": colours.get(name, OTHER)}
        for start, end, name, score in video.segments[:ROWS]
    ]
    figure = None
    if video.bounds_S1 is not None and len(video.bounds_S1) > 1:
        name = f"timeline-{number}"
        with drawing(name):
            svg = svg_of(draw_timeline(video, colours))
        title = "Scores of the classes over time, and the segments they join to"
        figure = Markup("<figure>{}</figure>").format(Markup(inline_svg(svg, name, title)))
    pictures = [(clock(second), _data_uri(picture)) for second, picture in video.pictures]
    more = max(0, len(video.segments) - ROWS)
    about = {"name": video.name, "error": video.error, "length": f"{clock(video.seconds)} long"}
    return about | {"figure": figure or "", "rows": rows, "more": more, "pictures": pictures}


def colours_of(video: Shown) -> dict[str, str]:
    """Return a colour for each of the classes that most of the time is seen."""
    seconds: dict[str, float] = {}
    for start, end, name, _ in video.segments:
        seconds[name] = seconds.get(name, 0.0) + end - start
    most = sorted(seconds, key=lambda name: -seconds[name])
    return dict(zip(most, COLOURS, strict=False))


def draw_timeline(video: Shown, colours: dict[str, str]) -> Figure:
    """Return scores over time above a bar of segments."""
    assert video.bounds_S1 is not None
    assert video.scores_SK is not None
    figure = Figure(figsize=(9.6, 2.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for index, name in enumerate(video.classes):
        if name in colours:
            above.stairs(video.scores_SK[:, index], video.bounds_S1, color=colours[name], baseline=None, linewidth=1.3)
    above.set(ylim=(0, 1.02), ylabel="score")
    for start, end, name, _ in video.segments:
        below.axvspan(start, end, color=colours.get(name, OTHER), linewidth=0)
        if end - start > 0.07 * video.seconds:
            shown = clean(name, max(4, int(110 * (end - start) / video.seconds)))
            below.text((start + end) / 2, 0.5, shown, ha="center", va="center", color="#fdfdfd", fontsize=8)
    below.set(ylim=(0, 1), yticks=[], xlabel="seconds", xlim=(video.bounds_S1[0], video.bounds_S1[-1]))
    below.grid(visible=False)
    below.spines["bottom"].set_color(LINE)
    below.tick_params(labelcolor=MUTED)
    return figure


def clock(seconds: float) -> str:
    """Return seconds as 0:07.5 or 1:02:03.5."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _data_uri(picture_HW3: NDArray[np.uint8]) -> Markup:
    picture = Image.fromarray(np.ascontiguousarray(picture_HW3))
    picture.thumbnail((4 * HEIGHT, HEIGHT))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return Markup("data:image/jpeg;base64,{}").format(base64.b64encode(buffer.getvalue()).decode())
