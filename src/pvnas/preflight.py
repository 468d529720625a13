"""What can be known before hours of work is said before them: of networks, report, run directory and disk."""

import importlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from pvnas.config import AugmentConfig, BatchConfig, DataConfig, RunConfig
from pvnas.data.catalog import Catalog
from pvnas.data.clips.augment import smallest_size
from pvnas.deploy.latency import ProcessClock, clock_of
from pvnas.errors import UserError
from pvnas.report.record import TESTED
from pvnas.runtime.files import explained
from pvnas.search.budget import Limits, derive_within
from pvnas.search.candidates import STEP, sized
from pvnas.search.history import limits_of, price_table
from pvnas.search.latency import ACCEPTED, RUNS, Timing, cheapest, too_slow
from pvnas.settings import has_learnt
from pvnas.space.genotype import EDGES, Genotype, is_reduction, random_genotype
from pvnas.space.layers import PLAIN
from pvnas.space.layout import cell_specs, parse_layout
from pvnas.space.network import PVNASNetwork
from pvnas.space.operations import operations_of
from pvnas.space.search_cell import SearchCell
from pvnas.space.stem import frames_after_stem, side_after_stem

FOLDERS = (
    "checkpoints",
    "checkpoints/search",
    "checkpoints/train",
    "genotypes",
    "tensorboard",
    "samples",
    "figures",
    "candidates",
)
FILES = (
    *("config.yaml", "environment.json", "catalog.json", "verdicts.json", "verdicts.csv", "metrics.jsonl"),
    *("genotype.json", "alphas.safetensors", "model.json", "model.safetensors", "results.json", "predictions.csv"),
    *("confusion.json", "report.html", "plan.json"),
)
BYTES_OF_A_PARAMETER = 3 * 4  # in float32, in two checkpoints that are kept and one that is being written
SPARE_BYTES = 32 << 20  # of tables, figures and the page


def check_place(run_dir: Path, data: DataConfig) -> None:
    """Raise UserError for a directory that is no place for a run of these videos."""
    if (run_dir / TESTED).exists():
        raise UserError(f"{run_dir} holds a test of another set, no run; name another --dir")
    if run_dir.resolve() == Path(data.path).resolve():
        raise UserError(f"{run_dir} is the folder of the videos; name a run directory of its own with --dir")


def make_run_directory(run_dir: Path) -> None:
    """Make the directory of a run. Raises UserError where it cannot be made."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be made ({error.strerror}); name a run directory with --dir") from None


def check_before_start(
    config: RunConfig,
    run_dir: Path,
    classes: int,
    genotype: Genotype | None = None,
    *,
    trains: bool = True,
    threads: int = 0,
) -> None:
    """Raise UserError for what would end the run later: before a video is decoded.

    ``genotype``: the one to train, where it was not the run directory's search that found it; ``trains`` False: only a
    test; ``threads``: of this process, where the config names none.
    """
    check_outputs(run_dir)
    check_report()
    if not trains or (run_dir / "model.safetensors").exists():  # nothing is left to train
        return
    found = run_dir / "genotype.json"
    if genotype is None and found.exists():
        genotype = Genotype.load(found)
    parameters = check_networks(config, classes, genotype)
    check_budget(config, classes, genotype)
    if not found.exists() and not has_learnt(run_dir):  # a run that was begun is not refused by a busy moment
        check_latency(config, classes, genotype, threads=threads)
    copies = 3 if config.train.ema > 0 else 2  # weights, their momentum, and their moving average
    check_disk(run_dir, max(parameters) * copies * BYTES_OF_A_PARAMETER + SPARE_BYTES)


def check_networks(config: RunConfig, classes: int, genotype: Genotype | None = None) -> list[int]:
    """Return the parameters of the networks to search and to train. Raises UserError where they cannot be built."""
    search, train, counts = config.search, config.train, []
    with _field_of("train"), torch.device("meta"):
        trained = parse_layout(train.layout, train.repeat)
        network = PVNASNetwork(genotype or random_genotype(0), config.network, num_classes=classes)
        counts.append(sum(p.numel() for p in network.parameters()))
    _check_size("train", trained, config, train.augment, train.batch)
    if genotype is not None:
        return counts
    with _field_of("search"), torch.device("meta"):  # the supernet's cells alone: no alphas are drawn
        searched = parse_layout(search.layout)
        cells = [SearchCell(spec, PLAIN) for spec in cell_specs(searched, search.width)]
        counts.append(sum(p.numel() for cell in cells for p in cell.parameters()))
    _check_size("search", searched, config, search.augment, search.batch)
    if missing := [category for category in dict.fromkeys(trained) if category not in searched]:
        raise UserError(
            f"train.layout has {', '.join(missing)}, which search.layout ({search.layout}) does not search; "
            "set --search.layout or --train.layout"
        )
    return counts


def check_budget(config: RunConfig, classes: int, genotype: Genotype | None = None) -> None:
    """Raise UserError where the network of a genotype is not within the budget, or without a genotype no network is."""
    limits = limits_of(config)
    if not limits.any:
        return
    if config.budget.width == "fit" and genotype is None:
        config = sized(config, STEP, 1)
    if genotype is not None:
        price = price_table(config, classes).of(genotype)
        if not limits.allow(price):
            over = [f"{n} {getattr(price, n):,} (budget.{n}: {limit:,})" for n, limit in limits.given.items()]
            raise UserError(
                f"the network of the genotype has {' and '.join(over)}; derive cells within the budget (pvnas derive "
                "RUN --budget.macs N), or leave it away"
            )
        return
    try:
        cheapest_within(config, classes, limits)
    except UserError as error:
        layout, width = config.train.layout, _widest_within(config, classes, limits)
        narrower = f"--train.width {width} has one" if width else f"no width of {layout!r} has one"
        narrower = "narrower ones are not tried" if config.budget.width == "fit" else narrower
        raise UserError(f"{error}; {narrower}, or allow more") from None


def cheapest_within(config: RunConfig, classes: int, limits: Limits) -> Genotype:
    """Return any genotype within the limits. Raises UserError where there is none."""
    categories = dict.fromkeys(parse_layout(config.train.layout, config.train.repeat))
    undecided = {name: torch.zeros(len(EDGES), len(operations_of(name))) for name in categories}
    return derive_within(undecided, price_table(config, classes), limits)


def timed(clock: ProcessClock, genotype: Genotype) -> Timing:
    """Return how long a network takes, measured now."""
    return clock([genotype], RUNS)[0]


def check_latency(
    config: RunConfig,
    classes: int,
    genotype: Genotype | None = None,
    share: float = ACCEPTED,
    threads: int = 0,
    measure: Callable[[ProcessClock, Genotype], Timing] = timed,
) -> None:
    """Raise UserError where the network of a genotype is too slow for the budget, or without one every network is.

    Measures one, of the fewest multiply-accumulates where there is no genotype; ``share``: of the limit, that it may
    take.
    """
    if not (most_ms := config.budget.latency_ms):
        return
    clock = clock_of(config, classes, threads)
    if genotype is None:
        categories = dict.fromkeys(parse_layout(config.train.layout, config.train.repeat))
        undecided = {name: torch.zeros(len(EDGES), len(operations_of(name))) for name in categories}
        genotype = cheapest(price_table(config, classes), undecided, limits_of(config))
        if (timing := measure(clock, genotype)).median_ms > share * most_ms:
            raise UserError(too_slow(timing, clock))
    elif (timing := measure(clock, genotype)).median_ms > most_ms:
        raise UserError(
            f"the network of the genotype takes {timing.median_ms:.3g} ms for {clock.where} (budget.latency_ms: "
            f"{most_ms:g}); derive cells within the budget (pvnas derive RUN --budget.latency_ms N), or leave it away"
        )


def _widest_within(config: RunConfig, classes: int, limits: Limits) -> int:
    """Return the largest width below the config's of which a network is within the limits; 0 where there is none."""

    def has_one(width: int) -> bool:
        narrow = replace(config, train=replace(config.train, width=width))
        try:
            return bool(cheapest_within(narrow, classes, limits))
        except UserError:
            return False

    low, high = 1, config.train.width  # costs grow with the width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if has_one(middle) else (low, middle)
    return low if low > 1 else 0


def check_fit(config: RunConfig, catalog: Catalog) -> None:
    """Raise UserError where a width is to be found by validation videos, and there are none."""
    if config.budget.width == "fit" and not len(catalog.select("val").videos):
        raise UserError(
            "budget.width fit decides by validation videos, and there are none: list some as val, or set "
            "--data.validation_share"
        )


def check_shards(config: RunConfig, processes: int) -> None:
    """Raise UserError where the logical shards of a batch cannot be dealt out to so many processes evenly."""
    batches = {"search": config.search.batch, "train": config.train.batch}
    uneven = {stage: batch for stage, batch in batches.items() if batch.shards % processes}
    if not uneven:
        return
    common = math.gcd(*(batch.shards for batch in batches.values()))
    may = " or ".join(str(n) for n in range(1, common + 1) if common % n == 0)
    named = " and ".join(f"{stage}.batch.shards is {batch.shards}" for stage, batch in uneven.items())
    options = " ".join(
        f"--{stage}.batch.shards {processes} --{stage}.batch.clips_per_shard {max(1, batch.clips // processes)}"
        for stage, batch in uneven.items()
    )
    raise UserError(
        f"{named}, which {processes} processes cannot share evenly ({may} can); for {processes} of them begin another "
        f"run with {options}"
    )


@contextmanager
def _field_of(stage: str) -> Iterator[None]:
    """Let an error that begins with a field of a network name it with its stage."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{stage}.{error}") from None


def _check_size(
    stage: str, categories: Sequence[str], config: RunConfig, augment: AugmentConfig, batch: BatchConfig
) -> None:
    """Raise UserError where batch norm would have one value of a channel to take the variance of."""
    crop, frames = smallest_size(augment, config.clip.frames)
    crop_field = "crop" if crop == augment.crop else "first_crop"
    frames_field = "clip.frames" if frames == config.clip.frames else f"{stage}.augment.first_frames"
    side = side_after_stem(config.stem, crop)
    for _ in filter(is_reduction, categories):
        side = (side + 1) // 2
    if batch.clips_per_shard * frames_after_stem(config.stem, frames) * side * side < 2:
        raise UserError(
            f"{stage}: one clip of one frame behind the stem with a crop of {crop} pixels leaves one value of a "
            f"channel, which has no variance; set a larger --{stage}.augment.{crop_field}, "
            f"--{stage}.batch.clips_per_shard or --{frames_field}"
        )


def check_report() -> None:
    """Raise UserError where the report could not be made: after the training it would be too late."""
    try:
        for name in ("matplotlib.figure", "jinja2", "pvnas.report.figures"):
            importlib.import_module(name)
    except Exception as error:  # a damaged installation or cache raises whatever it likes
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"the report cannot be made: loading {name} fails ({type(error).__name__}: {reason}); install it again "
            "(pip install --force-reinstall matplotlib jinja2), or set MPLCONFIGDIR to a folder that can be written"
        ) from None


def check_outputs(run_dir: Path) -> None:
    """Raise UserError where a file lies in the way of a folder, or a folder of a file, or nothing can be written."""
    for name in FOLDERS:
        path = run_dir / name
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, and the run writes a folder of that name; move it away")
    for name in FILES:
        path = run_dir / name
        if path.is_dir():
            raise UserError(f"{path} is a folder, and the run writes a file of that name; move it away")
    for folder in (run_dir, *(run_dir / name for name in FOLDERS)):
        if folder.is_dir():
            with explained(folder), tempfile.TemporaryFile(dir=folder):
                pass
    metrics = run_dir / "metrics.jsonl"  # which lines are added to; all other files are replaced
    if metrics.exists() and not os.access(metrics, os.W_OK):
        raise UserError(f"{metrics} cannot be written; make it writable, then type the same command again")


def check_disk(run_dir: Path, wanted: int) -> None:
    """Raise UserError where the disk has less room than the run's checkpoints will take beside those that are there."""
    there = sum(path.stat().st_size for path in (run_dir / "checkpoints").rglob("*") if path.is_file())
    free, missing = shutil.disk_usage(run_dir).free, wanted - there
    if free < missing:
        raise UserError(
            f"{run_dir}: its disk has {free / 2**20:,.0f} MiB left, and checkpoints and results take about "
            f"{missing / 2**20:,.0f} MiB; free some space, or name another --dir"
        )
