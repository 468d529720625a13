"""The sections on the test: what is taken for what, clips, class by class."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from typing import Any

from pvnas.report import figures
from pvnas.report.html import FOLD_FRAME, Gallery, Section, absent, number, percent, right, table, td, text
from pvnas.report.record import RunRecord, Sample
from pvnas.report.style import clean

STRIP_BYTES = 120_000  # a larger strip is made a JPEG, so that twelve of them stay well below 2 MB
STRIP_WIDTH = 1120
CONFUSIONS_SHOWN = 8
FOLD_CLASSES_FROM = 30


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
        [td(truth), td(prediction), right(f"{count} of {total}"), right(f"{100 * count / total:.0f} %")]
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
    return [td(name), right(percent(accuracy)), bar, right(number(tested)), right(number(trained)), td(confused)]


# Costs, data, settings
