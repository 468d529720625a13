"""Decode every video once before training and say what is wrong with it. Nothing here ever changes a video.

Headers lie (a truncated file still claims all its frames), so the verdict is on what decodes. A bad video is named and
left out with its count, never replaced by another one in silence.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, cast, get_args

from pvnas.data.catalog import Catalog
from pvnas.data.decode import VideoError, decode_video, probe
from pvnas.data.progress import Progress, begin
from pvnas.errors import UserError

VerdictKind = Literal["ok", "short", "partial", "unreadable", "refused", "no-video", "empty"]
USABLE = frozenset({"ok", "short", "partial"})
# Frames are only counted and thrown away, so they are scaled down to where a long video fits into memory.
CHECKED_SHORT_SIDE = 16
# Headers of good files are off by a frame or two (edit lists, dropped frames); less than this share is a lack.
COMPLETE_SHARE = 0.95
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Verdict:
    """What decoding a video to its end has shown; zeros where nothing is known."""

    path: str
    """As in the catalog."""
    verdict: VerdictKind
    """ok; short or partial (both usable); unreadable, refused, no-video or empty (not usable)."""
    detail: str = ""
    frames: int = 0
    """Frames that decode."""
    rate: float = 0.0
    """Average frames per second."""
    width: int = 0
    height: int = 0
    """Size as shown, in pixels."""
    seconds: float = 0.0
    """Duration of the frames that decode."""

    @property
    def usable(self) -> bool:
        """Whether the video can be trained on."""
        return self.verdict in USABLE


def check_videos(
    catalog: Catalog,
    *,
    workers: int,
    progress: Progress | None = None,
    shortest_seconds: float = 0.0,
) -> list[Verdict]:
    """Decode each video and return its verdict, in the catalog's order whatever the number of threads `workers`.

    A video of a single frame, or of less than `shortest_seconds` (a clip's window, say), is `short`.
    """
    verdicts = []
    paths = [video.path for video in catalog.videos]
    with begin(progress, "checking videos", len(paths)) as bar, ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for verdict in pool.map(lambda path: check_video(catalog.root, path, shortest_seconds), paths):
                verdicts.append(verdict)
                bar.advance(1)
        except BaseException:  # leave at once on Ctrl-C: what waits in the queue is not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return verdicts


def check_video(root: Path, path: str, shortest_seconds: float = 0.0) -> Verdict:
    """Decode one video (relative to `root`) to its end and return the verdict; no fault of the file is raised."""
    try:
        return _decoded_verdict(root, path, shortest_seconds)
    except VideoError as error:
        kind = error.kind if error.kind in get_args(VerdictKind) else "unreadable"
        return Verdict(path, cast(VerdictKind, kind), error.text)
    except (OSError, ValueError, MemoryError) as error:
        return Verdict(path, "unreadable", f"{type(error).__name__}: {error}")


def _decoded_verdict(root: Path, path: str, shortest_seconds: float) -> Verdict:
    """Return ok, short or partial. Raises VideoError for all others."""
    claimed = probe(root / path)
    video = decode_video(root / path, short_side=CHECKED_SHORT_SIDE)
    frames, _, height, width = video.frames_TCHW.shape
    turned = (width > height) != (claimed.width > claimed.height) and width != height
    shown = (claimed.height, claimed.width) if turned else (claimed.width, claimed.height)
    faults = []
    if video.frames_bad:
        faults.append(f"{video.frames_bad} packets or frames are corrupt")
    if frames < COMPLETE_SHARE * claimed.frames:
        faults.append(f"{frames} of the {claimed.frames} frames in the header decode")
    kind: VerdictKind = "partial" if faults else "ok"
    # A clip's window counted in frames is a sum of rounded times: a microsecond is no lack.
    if not faults and (frames == 1 or video.duration < shortest_seconds - 1e-6):
        kind, faults = "short", [f"{frames} frames, {video.duration:.3f} s"]
    return Verdict(path, kind, "; ".join(faults), frames, round(video.rate, 4), *shown, round(video.duration, 4))


def write_verdicts(verdicts: Sequence[Verdict], path: str | Path) -> None:
    """Write `path` as exact JSON or as csv for a spreadsheet, by its ending; any other is a folder for both.

    No csv cell is a formula, whatever a file is called.
    """
    path = Path(path)
    if path.suffix == ".json":
        _replace(path, json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    elif path.suffix == ".csv":
        names = [field.name for field in fields(Verdict)]
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(names)
        rows.writerows([inert(getattr(verdict, name)) for name in names] for verdict in verdicts)
        _replace(path, table.getvalue())
    else:
        path.mkdir(parents=True, exist_ok=True)
        write_verdicts(verdicts, path / "verdicts.json")
        write_verdicts(verdicts, path / "verdicts.csv")


def read_verdicts(path: str | Path) -> list[Verdict]:
    """Return what `write_verdicts` wrote as JSON. Raises UserError for a file that is not such a list."""
    try:
        verdicts = [Verdict(**row) for row in json.loads(Path(path).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a list of verdicts ({error}); delete it to check the videos again") from None
    if any(verdict.verdict not in get_args(VerdictKind) for verdict in verdicts):
        raise UserError(f"{path} holds an unknown verdict; delete it to check the videos again")
    return verdicts


def inert(cell: object) -> str:
    """Return a csv cell that a spreadsheet shows and never runs: no formula, no control characters."""
    text = CONTROL_CHARACTERS.sub(lambda found: f"\\x{ord(found[0]):02x}", str(cell))
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not isinstance(cell, int | float) else text


def summary(verdicts: Iterable[Verdict]) -> str:
    """Return one line that counts the verdicts, such as `46 ok, 1 partial, 1 unreadable`."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    return ", ".join(f"{counts[kind]} {kind}" for kind in get_args(VerdictKind) if counts[kind]) or "no videos"


def usable(catalog: Catalog, verdicts: Iterable[Verdict], max_bad_share: float) -> Catalog:
    """Return the catalog without the videos that cannot be used.

    Raises UserError when they are more than `max_bad_share` of the catalog, or all of a class's training videos; write
    the verdicts first, so that the person finds the list.
    """
    known = {video.path for video in catalog.videos}
    bad = [verdict for verdict in verdicts if verdict.path in known and not verdict.usable]
    remaining = catalog.without({verdict.path for verdict in bad})
    if not bad:
        return remaining
    # A repr keeps a file name with control characters on one line.
    first = f"the first is {bad[0].path!r} ({bad[0].verdict}: {bad[0].detail}); all are in verdicts.csv"
    if len(bad) > max_bad_share * len(catalog.videos):
        raise UserError(
            f"{len(bad)} of {len(catalog.videos)} videos cannot be used, more than max_bad_share={max_bad_share:g} "
            f"allows; {first}; mend or remove them, or allow more: --data.max_bad_share {_enough(bad, catalog)}"
        )
    for name, number in remaining.counts()["train"].items():
        if not number:
            raise UserError(f"no training video of class {name!r} can be used; {first}; mend them or remove the class")
    return remaining


def _enough(bad: Sequence[Verdict], catalog: Catalog) -> str:
    """Return the least share, rounded up to a thousandth, that would allow so many bad videos."""
    return f"{math.ceil(1000 * len(bad) / len(catalog.videos)) / 1000:g}"


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; names that are no UTF-8 are shown with escapes."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)
