"""The head of the page: the result at one glance, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pvnas.report.html import duration, number, percent, scaled, text
from pvnas.report.record import RunRecord


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
            ("Sampling", f"{text(results.get('sampling', '–'))} <small>rule {text(results.get('rule', '–'))}</small>"),
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
