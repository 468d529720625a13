"""A run that was given hours: planned where it begins, its own config where it has begun.

plan.json keeps the hours and what was said; config.yaml, as of any run, all values.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.config import BudgetConfig, RunConfig
from pvnas.data.cache_room import room_for
from pvnas.data.check import Limits, check_videos
from pvnas.data.check.results import CheckResult, usable
from pvnas.data.dataset import OpenedVideos, Shape
from pvnas.data.identity import open_to_learn
from pvnas.errors import UserError
from pvnas.fast.kernels.choice import kernel_facts
from pvnas.plan.choose import (
    MEASURED_FIRST,
    SIZES,
    Plan,
    Wishes,
    choose,
    forget_timings,
    repeating_command,
    sized_config,
)
from pvnas.plan.expect import expectations, reasons
from pvnas.plan.facts import UNKNOWN, Facts, Speeds, StepSize
from pvnas.plan.measure import few_videos, measured
from pvnas.preflight import check_before_start, check_place, make_run_directory
from pvnas.runtime.device import choose_device, keep_freed_memory, set_threads, usable_cores
from pvnas.runtime.files import run_lock, write_atomic
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import Interrupted, StopRequest, ends_waits
from pvnas.runtime.spinning import adapt_spinning
from pvnas.settings import CONFIG_NAME, has_learnt, load_config

NAME, FORMAT, VERSION = "plan.json", "pvnas-plan", 1
VIDEOS_LOOKED_AT, VIDEOS_LOOKED_AT_FAR = 2000, 16
"""Of a pack, evenly spread, on a disk and behind a URL."""


def planned_config(run_dir: Path, hours: float, wishes: Wishes) -> RunConfig:
    """Return the config with which a run of so many hours begins, or goes on where it has begun.

    ``wishes``: with the path of the videos. Raises UserError where the directory holds another run, and where the hours
    are too few; Interrupted.
    """
    started = time.monotonic()
    forget_timings()
    if has_learnt(run_dir):
        return _resumed(run_dir, hours, wishes)
    config = sized_config(UNKNOWN, SIZES[MEASURED_FIRST], wishes)  # what cannot be wished is said before any reading
    opened = open_to_learn(config)  # a wrong path must not leave an empty run directory behind
    check_place(run_dir, config.data)
    make_run_directory(run_dir)
    with run_lock(run_dir), StopRequest() as stop, Progress() as progress:
        check_before_start(replace(config, budget=BudgetConfig()), run_dir, len(opened.catalog.classes))
        device = choose_device(config.device)
        set_threads(config.threads)
        keep_freed_memory()
        adapt_spinning()
        with ends_waits():  # kernels may have to be compiled and tested
            kernel_facts(device, torch.bfloat16 if config.precision == "bf16" else torch.float32)
        opened, facts, frames_V = _looked_at(opened, config, run_dir, device, progress, stop)
        plan, facts, speeds = _measured_plan(opened, facts, frames_V, hours, wishes, device, progress, stop, started)
        lines = [*reasons(plan, facts, speeds, hours, wishes), *expectations(plan, facts, speeds, hours, wishes)]
        lines.append(f"the same again: {repeating_command(plan.config, config.data.path)}")
        for line in lines:
            progress.line(line)
        _write(run_dir, hours, lines, plan, facts, speeds)
    return plan.config


def _resumed(run_dir: Path, hours: float, wishes: Wishes) -> RunConfig:
    """Return the config of a run that has begun, with what is wished now; whether that may be is asked as always."""
    planned = hours_of(run_dir)
    if planned is None:
        raise UserError(
            f"{run_dir} holds a run that was not planned by --hours; to go on with it type its own command, for a "
            "new run name another --dir"
        )
    if planned != hours:
        raise UserError(
            f"{run_dir} holds a run of another plan (hours: {planned:g} -> {hours:g}); to resume it type --hours "
            f"{planned:g}, for a new run name another --dir"
        )
    return load_config(file=run_dir / CONFIG_NAME, overrides=wishes)


def hours_of(run_dir: Path) -> float | None:
    """Return the hours that a run was planned for, None where it was not."""
    try:
        plan = json.loads((run_dir / NAME).read_bytes())
        return float(plan["hours"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _looked_at(
    opened: OpenedVideos, config: RunConfig, run_dir: Path, device: torch.device, progress: Progress, stop: StopRequest
) -> tuple[OpenedVideos, Facts, NDArray[np.int64]]:
    """Return the videos that can be used, facts about them, and the frames of each that is for training."""
    if opened.info is None:
        limits = Limits(torch.get_num_threads(), config.data.deadline)
        results = check_videos(opened.catalog, limits, out=run_dir, progress=progress, stop=stop)
        catalog = usable(opened.catalog, results, config.data.max_bad_share, config.data.deadline)
        lengths = _lengths_of_files(results, set(catalog.videos.names))
        shapes = {r.path: Shape(r.frames, r.height, r.width) for r in results if r.usable}
        opened = replace(opened, catalog=catalog, shapes=shapes)
        by_name = {name: shape.frames for name, shape in shapes.items()}
        frames_V = np.array([by_name[name] for name in catalog.select("train").videos.names], dtype=np.int64)
    else:
        lengths = _lengths_in_pack(opened)
        assert opened.pack is not None
        rows = opened.catalog.select("train").videos.rows.tolist()
        frames_V = np.array([opened.pack.length(row) for row in rows], dtype=np.int64)
    return opened, facts_of(opened, lengths, config, device), frames_V


def _lengths_of_files(results: list[CheckResult], names: set[str]) -> NDArray[np.float64]:
    """Return (V, 4): frames, seconds, height, width."""
    rows = [(r.frames, r.seconds, r.height, r.width) for r in results if r.path in names]
    return np.array(rows, dtype=np.float64)


def _lengths_in_pack(opened: OpenedVideos) -> NDArray[np.float64]:
    """Return (V, 4) of some of a pack's videos: frames, seconds, height, width."""
    pack = opened.pack
    assert pack is not None
    most = VIDEOS_LOOKED_AT_FAR if "://" in opened.config.path else VIDEOS_LOOKED_AT
    rows = opened.catalog.videos.rows
    some = rows[:: max(1, len(rows) // most)].tolist()
    return np.array([(pack.length(row), pack.times(row)[1], *pack.size(row)) for row in some], dtype=np.float64)


def facts_of(opened: OpenedVideos, lengths_V4: NDArray[np.float64], config: RunConfig, device: torch.device) -> Facts:
    """Return the facts of videos of which all, or some that stand for all, have these frames, seconds and sizes."""
    frames_V, seconds_V, height_V, width_V = lengths_V4.T
    short_V, long_V = np.maximum(1, np.minimum(height_V, width_V)), np.maximum(height_V, width_V)
    share = len(opened.catalog.videos) / len(lengths_V4)
    counts = opened.catalog.counts()
    room = room_for(replace(config.data, cache="auto", cache_gib=1e6))
    return Facts(
        classes=opened.catalog.classes,
        train_K=tuple(counts["train"].values()),
        validation_K=tuple(counts["val"].values()),
        test_K=tuple(counts["test"].values()),
        seconds=(float(seconds_V.min()), float(np.median(seconds_V)), float(seconds_V.max())),
        short_side=int(np.median(short_V)),
        frames=share * float(frames_V.sum()),
        squares=share * float((frames_V * long_V / short_V).sum()),
        packed=opened.info is not None,
        memory=room.bytes,
        cores=usable_cores(),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
    )


def _measured_plan(
    opened: OpenedVideos,
    facts: Facts,
    frames_V: NDArray[np.int64],
    hours: float,
    wishes: Wishes,
    device: torch.device,
    progress: Progress,
    stop: StopRequest,
    started: float,
) -> tuple[Plan, Facts, Speeds]:
    """Return the plan whose steps have been measured: measure what the choice asks for until it asks for no more."""
    config, speeds = sized_config(facts, SIZES[MEASURED_FIRST], wishes), Speeds()
    kept = facts.are_kept(config)
    sizes = StepSize.of(config, "search", kept=kept), StepSize.of(config, "train", kept=kept)
    while any(size not in speeds.clips for size in sizes):
        if stop.requested:
            raise Interrupted("stopped before anything was learnt")
        progress.line(f"measuring steps at width {config.train.width}, {config.train.augment.crop} pixels")
        source = replace(opened, config=config.data).dataset("train", config.decoded_short_side, config.clip.colours)
        few = source.select(few_videos(frames_V, config.train.batch.clips))
        speeds = measured(speeds, sizes, config, few, device, hours)
        facts = replace(facts, spent=time.monotonic() - started)
        plan = choose(facts, speeds, hours, wishes)
        config, sizes = plan.config, plan.sizes
    return plan, facts, speeds


def _write(run_dir: Path, hours: float, lines: list[str], plan: Plan, facts: Facts, speeds: Speeds) -> None:
    """Write plan.json."""
    seconds = {part: round(getattr(plan, part), 1) for part in ("search", "train", "test", "rest")}
    rates = [size._asdict() | speed._asdict() for size, speed in speeds.clips.items()]
    record: Mapping[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "hours": hours,
        "lines": lines,
        "seconds": seconds,
        "facts": asdict(facts),
        "speeds": rates,
        "decode": speeds.decode,
    }
    write_atomic(run_dir / NAME, json.dumps(record, indent=1) + "\n")
