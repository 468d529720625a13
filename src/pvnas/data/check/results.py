"""What the check has found in each video: the lists of it, sums by class, and whether a run may go on without the rest.

File and class names come from anywhere. In JSON they are exact; in csv no cell is a formula or steers a terminal.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from pvnas.data.catalog import Catalog
from pvnas.data.processes import MORE_TIME
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic

Verdict = Literal["ok", "short", "partial", "unreadable", "refused", "timeout", "missing", "no-video", "empty"]
KINDS: tuple[Verdict, ...] = get_args(Verdict)
USABLE = frozenset({"ok", "short", "partial"})
JSON_NAME, CSV_NAME = "verdicts.json", "verdicts.csv"
# How the detail of a verdict begins that the limits or the machine decided, not the file alone.
CRASHED, MEMORY = "crashed", "memory"
# What steers a terminal: control characters, marks that turn the direction of writing, and line breaks of other kinds.
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What decoding a video to its end has shown; zeros where nothing is known."""

    path: str  # as in the catalog; of a segment with its seconds, as ``Video.name`` is
    verdict: Verdict  # ok; short or partial (both usable); the others are not usable
    detail: str = ""  # why, in one line; `n of m frames decode` for a partial video
    frames: int = 0  # frames that decode
    claimed: int = 0  # frames that the header claims; without a count, its duration over the frames' rate
    rate: float = 0.0  # average frames per second
    variable_rate: bool = False  # whether the gaps between the frames' time stamps differ by more than rounding
    rotation: int = 0  # degrees clockwise that the stored picture is turned by: 0, 90, 180 or 270
    width: int = 0
    height: int = 0  # size as shown, in pixels, of the first frame
    resized: bool = False  # whether a later frame has another size or rotation; it is scaled to the first's
    codec: str = ""
    seconds: float = 0.0  # duration of the frames that decode
    bytes: int = 0  # size of the file
    modified_ns: int = 0  # when the file was last written, in ns; with its size what tells a changed file

    @property
    def usable(self) -> bool:
        """Whether the video can be trained on."""
        return self.verdict in USABLE

    @property
    def passing(self) -> bool:
        """Whether time, memory or a crash decided, so that another check may find otherwise."""
        return self.verdict == "timeout" or self.detail.startswith((CRASHED, MEMORY))


def write_check_results(results: Sequence[CheckResult], folder: str | Path) -> None:
    """Write verdicts.json (exact, one line per video) and verdicts.csv (for a spreadsheet), each whole or not at all.

    Raises UserError where the place cannot be written.
    """
    rows = ",\n".join(json.dumps(asdict(result)) for result in results)
    write_atomic(Path(folder) / JSON_NAME, f"[\n{rows}\n]\n" if rows else "[]\n")
    names = [field.name for field in fields(CheckResult) if field.name != "modified_ns"]
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(names)
    lines.writerows([inert(getattr(result, name)) for name in names] for result in results)
    write_atomic(Path(folder) / CSV_NAME, table.getvalue().encode("utf-8", "backslashreplace"))


def read_check_results(path: str | Path) -> list[CheckResult]:
    """Return what `write_check_results` wrote as JSON. Raises UserError for a file that is not such a list."""
    try:
        results = [CheckResult(**row) for row in json.loads(Path(path).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a list of verdicts ({error}); delete it to check the videos again") from None
    if any(result.verdict not in KINDS for result in results):
        raise UserError(f"{path} holds an unknown verdict; delete it to check the videos again")
    return results


def inert(cell: object) -> str:
    """Return a csv cell that a spreadsheet shows and never runs: no formula, nothing that steers a terminal."""
    text = STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), str(cell))
    return f"'{text}" if text.startswith(FORMULA) and not isinstance(cell, int | float) else text


def counts(results: Iterable[CheckResult]) -> dict[str, int]:
    """Return how many videos have each verdict, without those that no video has."""
    numbers = Counter(result.verdict for result in results)
    return {kind: numbers[kind] for kind in KINDS if numbers[kind]}


def summary(results: Iterable[CheckResult]) -> str:
    """Return one line that counts the verdicts, such as `46 ok, 1 partial, 1 unreadable`."""
    return ", ".join(f"{number} {kind}" for kind, number in counts(results).items()) or "no videos"


def by_class(catalog: Catalog, results: Sequence[CheckResult]) -> dict[str, dict[str, int]]:
    """Return for each class, in the catalog's order, how many of its videos have each verdict.

    `results` are those of the catalog's videos, in its order.
    """
    of_class: dict[str, list[CheckResult]] = {name: [] for name in catalog.classes}
    for label, result in zip(catalog.videos.labels.tolist(), results, strict=True):
        of_class[catalog.classes[label]].append(result)
    return {name: counts(some) for name, some in of_class.items()}


def usable(
    catalog: Catalog, results: Iterable[CheckResult], max_bad_share: float, deadline: float = math.inf
) -> Catalog:
    """Return the catalog without the videos that cannot be used.

    ``deadline``: the one, in seconds, under which they were checked. Raises UserError when they are more than
    `max_bad_share` of the catalog, or all of a class's training videos; write the verdicts first, so that the person
    finds the list.
    """
    known = set(catalog.videos.names)
    unusable = [result for result in results if result.path in known and not result.usable]
    bad = [(result.path, f"{result.verdict}: {result.detail}") for result in unusable]
    slow = any(result.verdict == "timeout" for result in unusable) and math.isfinite(deadline)
    more_time = f"give them more time: --data.deadline {MORE_TIME * deadline:g}, " if slow else ""
    advice = more_time + "mend or remove them, or allow more: --data.max_bad_share {:g}"
    return catalog.without_bad(bad, max_bad_share, verb="used", listed=CSV_NAME, advice=advice)
