"""What a study leaves: every run as csv, differences as csv, and a page of Markdown with the published numbers."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any

from pvnas.data.check.results import inert
from pvnas.studies.experiments import Arm, Study
from pvnas.studies.outcome import Outcome
from pvnas.studies.statistics import Difference, in_words, paired_difference, spread

MACHINE = ("cpu", "gpu", "threads", "pvnas", "torch", "date")
RUNS = (
    *("study", "arm", "seed", "top1", "top5", "mean_class", "n_videos", "train_top1", "params"),
    *("macs_per_view", "views", "macs_per_video", "parameter_free", "parameter_free_by_epoch"),
    *("seconds", "digest", "run", *MACHINE),
)
DIFFERENCES = ("study", "claim", "better", "than", "points", "low", "high", "seeds", "videos", "groups")


def runs_csv(study: Study, runs: Sequence[Outcome]) -> str:
    """Return a line for each run, whatever it has come to."""
    return _csv(RUNS, (_row(study, run) for run in runs))


def _row(study: Study, run: Outcome) -> dict[str, Any]:
    results = {name: run.results.get(name) for name in RUNS if name in run.results}
    return results | {
        "study": study.name,
        "arm": run.arm,
        "seed": run.seed,
        "train_top1": None if run.train_top1 is None else round(run.train_top1, 2),
        "parameter_free": run.parameter_free,
        "parameter_free_by_epoch": " ".join(map(str, run.by_epoch)),
        "seconds": round(sum(run.results.get("seconds", {}).values())),
        "run": run.run,
        **{name: run.machine.get(name) for name in MACHINE},
    }


def differences(study: Study, runs: Sequence[Outcome]) -> dict[int, Difference]:
    """Return what came out for each claim, by its number, of which both arms have a run of one seed."""
    by_arm: dict[str, dict[int, Outcome]] = {}
    for run in runs:
        by_arm.setdefault(run.arm, {})[run.seed] = run
    found = {}
    for number, claim in enumerate(study.claims):
        better, than = by_arm.get(claim.better, {}), by_arm.get(claim.than, {})
        if seeds := sorted(better.keys() & than.keys()):
            ours, theirs = ([arm[seed].right for seed in seeds] for arm in (better, than))
            with suppress(ValueError):  # tested on different videos: nothing can be said
                found[number] = paired_difference(ours, theirs, better[seeds[0]].group_of)
    return found


def differences_csv(study: Study, found: Mapping[int, Difference]) -> str:
    """Return a line for each claim that could be looked at."""
    rows = []
    for number, difference in found.items():
        claim = study.claims[number]
        measured = {name: round(value, 3) for name, value in difference._asdict().items()}
        rows.append({"study": study.name, "claim": claim.text, "better": claim.better, "than": claim.than, **measured})
    return _csv(DIFFERENCES, rows)


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = (row.get(name) for name in columns)
        writer.writerow([inert(value) if isinstance(value, str) else value for value in values])
    return text.getvalue()


def page(study: Study, runs: Sequence[Outcome], found: Mapping[int, Difference], command: str) -> str:
    """Return the study as Markdown: arms, what they show, what was published."""
    lines = [f"## {study.title}", "", _made_by(runs, command), ""]
    head = ["arm", "runs", "top-1, mean ± sd (each)", "M parameters", "GFLOPs per view", "× views", "per video"]
    operations = max((run.operations for run in runs), default=0)
    head += [f"without parameters, of {operations} operations"] if study.counts else []
    lines += [_line(head), _line(["---"] * len(head))]
    lines += [_line(_arm_row(study, arm, [run for run in runs if run.arm == arm.name])) for arm in study.arms]
    lines += ["", *(f"- {in_words(study.claims[number].text, found[number])}" for number in found)]
    if missing := [claim.text for number, claim in enumerate(study.claims) if number not in found]:
        lines += [f"- Not measured yet: {'; '.join(missing)}."]
    if rows := [row for row in published()["rows"] if study.name in row["studies"]]:
        lines += ["", f"Published ({published()['counting']}):", "", *_published(rows)]
    return "\n".join(lines) + "\n"


def _made_by(runs: Sequence[Outcome], command: str) -> str:
    machines = sorted(
        {f"{run.machine.get('gpu') or run.machine.get('cpu')}, PyTorch {run.machine.get('torch')}" for run in runs}
    )
    dates = sorted(str(run.machine.get("date", ""))[:10] for run in runs)
    when = f"{dates[0]} to {dates[-1]}" if dates and dates[0] != dates[-1] else "".join(dates[:1])
    return f"`{command}`; {'; '.join(machines) or 'no run is finished yet'}{', ' + when if when else ''}."


def _arm_row(study: Study, arm: Arm, runs: Sequence[Outcome]) -> list[str]:
    if not runs:
        return [arm.what, "0", *["–"] * (5 + study.counts)]
    tops = [run.results["top1"] for run in runs]
    mean = spread(tops)
    accuracy = f"{mean.mean:.1f}" + (f" ± {mean.sd:.1f}" if mean.sd is not None else "")
    each = ", ".join(f"{top:.1f}" for top in tops)
    params, macs = (
        _range([run.results[name] / scale for run in runs]) for name, scale in (("params", 1e6), ("macs_per_view", 1e9))
    )
    views = runs[0].results["views"]
    row = [arm.what, str(len(runs)), f"{accuracy} ({each})", params, macs, f"× {views}"]
    row.append(_range([run.results["macs_per_video"] / 1e9 for run in runs]))
    if study.counts:
        counts = [run.parameter_free for run in runs if run.parameter_free is not None]
        row.append(f"{statistics.fmean(counts):.1f}" if counts else "–")
    return row


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def published() -> dict[str, Any]:
    """Return the published numbers, each row with its source."""
    return dict(json.loads((resources.files("pvnas.studies") / "published.json").read_bytes()))


def _published(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["network", "set", "top-1 / top-5", "M parameters", "GFLOPs per view", "× views", "per video", "source"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        macs, views = row["gmacs_per_view"], row["views"]
        video = f"{macs * views:,.0f}" if macs and views else "–"
        numbers = [_number(row["params_m"]), _number(macs), f"× {views}" if views else "–", video]
        accuracy = f"{_number(row['top1'])} / {_number(row['top5'])}"
        lines.append(_line([row["network"], row["set"], accuracy, *numbers, row["source"]]))
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
