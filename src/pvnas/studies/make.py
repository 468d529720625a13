"""A study from beginning to end: its config, its parts, what they have come to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from pvnas.api import Videos, config_of, run_of
from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.plan.begin import hours_of
from pvnas.report.style import drawing, save_figure
from pvnas.runtime.files import make_folder, write_atomic
from pvnas.runtime.progress import Progress
from pvnas.settings import CONFIG_NAME, changed_fields, dump_config, fields_of_file, load_config
from pvnas.studies import tables
from pvnas.studies.experiments import OURS, STUDIES, Setting, Study
from pvnas.studies.figures import study_figure
from pvnas.studies.outcome import outcomes
from pvnas.studies.parts import Part, with_needs
from pvnas.studies.workers import make_parts

ALL = "all"
THREADS = 1
"""Of each run unless the config says more: they change last bits, so they must not hang on how many run at once."""
ABOUT, WRITING = "study.json", ".study.lock"


class Wish(NamedTuple):
    """What a person asks a study for."""

    data: Videos
    preset: str | None = None
    config: str | Path | None = None
    overrides: Mapping[str, object] = {}
    hours: float | None = None
    searched_on: str | None = None


def begin(folder: Path, wish: Wish) -> RunConfig:
    """Return the config of all runs of a study, and keep it in its folder.

    With hours it is planned, once, for the videos and this machine; other workers wait for it. All runs have one test:
    what is held out hangs on the first seed. Raises UserError where the folder holds a study of another config or of
    other videos.
    """
    overrides = dict(wish.overrides)
    if "threads" not in {**(fields_of_file(wish.config) if wish.config else {}), **overrides}:
        overrides["threads"] = THREADS
    at_hand = config_of(wish.data, None, None, {n: v for n, v in overrides.items() if n.startswith("data.")})
    config = config_of(wish.data, wish.preset, wish.config, overrides) if wish.hours is None else None
    make_folder(folder)
    with FileLock(folder / WRITING):
        path = folder / CONFIG_NAME
        _check_videos(folder, {"data": at_hand.data.path, "searched_on": wish.searched_on})
        if config is None and path.exists():
            _check_hours(folder, wish.hours)
            config = load_config(file=path, overrides=overrides)
            config.data.path = at_hand.data.path
        elif config is None:
            config, _ = run_of(wish.data, folder, wish.preset, wish.config, overrides, wish.hours)
        if config.budget.width != "given" or config.budget.latency_ms:
            raise UserError(
                "a study compares networks of one size, alike on any machine; leave budget.width and budget.latency_ms "
                "away"
            )
        if config.data.split_seed < 0:
            config.data.split_seed = config.seed
        if not path.exists():
            write_atomic(path, dump_config(config))
        elif fields := changed_fields(load_config(file=path), config):
            raise UserError(
                f"{folder} holds a study of another config ({fields}); to go on with it type the old values, for a "
                "new one name another --dir"
            )
    return config


def _check_videos(folder: Path, now: dict[str, str | None]) -> None:
    """Keep which videos a study is on. Raises UserError for others, unless those that it was on have moved away."""
    path = folder / ABOUT
    before = json.loads(path.read_bytes()) if path.exists() else {}
    for name, was in before.items():
        if was and now.get(name) and now[name] != was and ("://" in was or Path(was).exists()):
            raise UserError(f"{folder} holds a study on {was}, not on {now[name]}; name another --dir")
    write_atomic(path, json.dumps({**before, **{n: v for n, v in now.items() if v}}, indent=1) + "\n")


def _check_hours(folder: Path, hours: float | None) -> None:
    """Raise UserError where a study was planned for other hours."""
    planned = hours_of(folder)
    if planned != hours:
        was = f"planned for {planned} hours" if planned is not None else "not planned by --hours"
        raise UserError(f"{folder} holds a study that was {was}; type that again, or name another --dir")


def studies_of(name: str, setting: Setting) -> list[Study]:
    """Return one study, or all of the paper's that can be made: transfer needs another set."""
    if name != ALL:
        return [STUDIES[name](setting)]
    left_out = {*OURS, *(() if setting.other is not None else ("transfer",))}
    return [make(setting) for each, make in STUDIES.items() if each not in left_out]


def parts_of(studies: Sequence[Study], only: Sequence[str] = (), share: tuple[int, int] | None = None) -> list[Part]:
    """Return the parts of some studies, needed ones first; those whose names fit a pattern, or every Nth from the Kth.

    Raises UserError where none is left.
    """
    parts = with_needs(part for study in studies for part in study.parts)
    if only:
        chosen = [part for part in parts if any(fnmatch(part.name, pattern) for pattern in only)]
        if not chosen:
            raise UserError(f"no part is named {', '.join(only)}; see them all with --list")
        return chosen
    return parts if share is None else parts[share[0] - 1 :: share[1]]


def make(studies: Sequence[Study], parts: Sequence[Part], folder: Path, jobs: int, command: str) -> list[Path]:
    """Make the parts, then write what the studies have come to; return the pages. Errors as of ``make_parts``."""
    with Progress() as progress:
        try:
            make_parts(parts, jobs, progress)
        finally:
            pages = [write_outcome(study, folder, command) for study in studies]
    return pages


def write_outcome(study: Study, folder: Path, command: str) -> Path:
    """Write NAME.csv, NAME_differences.csv, NAME.svg and NAME.md into the folder, by all runs that are finished."""
    page = folder / f"{study.name}.md"
    with FileLock(folder / WRITING):  # of several workers the last one writes, and it knows all that the others do
        runs = outcomes(study)
        found = tables.differences(study, runs)
        write_atomic(folder / f"{study.name}.csv", tables.runs_csv(study, runs))
        write_atomic(folder / f"{study.name}_differences.csv", tables.differences_csv(study, found))
        if runs:
            with drawing(study.name):
                save_figure(study_figure(study, runs), folder, study.name)
        write_atomic(page, tables.page(study, runs, found, command))
    return page
