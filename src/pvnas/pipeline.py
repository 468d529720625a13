"""The main job, stage by stage: search, derive, train, test, report.

Only a genotype and the run directory go from one stage to the next. Every stage skips what is finished and resumes what
is not, so the same command continues an interrupted run.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pvnas.config import RunConfig
from pvnas.data.catalog import SPLITS, Catalog
from pvnas.data.check import Limits, check_videos
from pvnas.data.check.results import CheckResult, read_check_results, usable
from pvnas.data.clips.augment import flip_message
from pvnas.data.dataset import OpenedVideos, VideoDataset, open_videos
from pvnas.deploy.model import load_model, save_model
from pvnas.errors import UserError
from pvnas.fast.inference import ready
from pvnas.fast.kernels.choice import kernel_facts
from pvnas.report.page import write_report
from pvnas.runtime.checkpoint import load_checkpoint
from pvnas.runtime.device import choose_device, describe_machine, keep_freed_memory, set_threads
from pvnas.runtime.digest import digest
from pvnas.runtime.files import write_atomic
from pvnas.runtime.lock import RunLock
from pvnas.runtime.loop import SUMS, Stage, run_epochs
from pvnas.runtime.progress import Progress
from pvnas.runtime.record import read_metrics
from pvnas.runtime.scalars import ScalarLog
from pvnas.runtime.signals import StopRequest
from pvnas.search.stage import SearchStage
from pvnas.settings import check_resumable, dump_config
from pvnas.space.cost import network_cost
from pvnas.space.genotype import Genotype
from pvnas.training.evaluate import score_views
from pvnas.training.log import EpochLog
from pvnas.training.results import write_results
from pvnas.training.stage import TrainStage

GENOTYPE, RESULTS = "genotype.json", "results.json"


@dataclass
class Videos:
    """The readable videos of a run, by split."""

    train: VideoDataset
    validation: VideoDataset
    test: VideoDataset
    test_excluded: int
    """Test videos that cannot be read."""


@dataclass
class Session:
    """What all stages of one command share."""

    config: RunConfig
    run_dir: Path
    device: torch.device
    progress: Progress
    stop: StopRequest
    opened: OpenedVideos
    _videos: Videos | None = None

    def videos(self) -> Videos:
        """Return the run's videos, read, checked and cached at the first call."""
        if self._videos is None:
            self._videos = load_videos(self.config, self.run_dir, self.progress, self.device, self.opened)
        return self._videos

    def log(self) -> EpochLog:
        """Return where the stages write their epochs."""
        scalars = ScalarLog(self.run_dir / "tensorboard", self.config.tensorboard)
        return EpochLog(self.run_dir, self.progress, scalars)


def default_run_dir(config: RunConfig) -> Path:
    """Return ``runs/<folder of the videos>-<preset>``."""
    name = config.data.path.rstrip("/").rpartition("/")[2] if "://" in config.data.path else ""
    return Path("runs") / f"{name or Path(config.data.path).resolve().name or 'videos'}-{config.preset}"


def run(config: RunConfig, run_dir: Path) -> Path:
    """Search, train, test and report; return the path of the report's page."""
    with open_session(config, run_dir) as session:
        _search(session)
        _train(session)
        _test(session)
        return write_report(run_dir)


def search(config: RunConfig, run_dir: Path) -> Genotype:
    """Search only; return the genotype."""
    with open_session(config, run_dir) as session:
        genotype = _search(session)
        write_report(run_dir)
        return genotype


def train(config: RunConfig, run_dir: Path, genotype_path: Path | None = None) -> Path:
    """Train, test and report the network of a genotype file, or of the genotype that the run directory holds."""
    given = Genotype.load(genotype_path) if genotype_path else None
    with open_session(config, run_dir) as session:
        if given is not None:
            _keep_genotype(run_dir, given)
        if not (run_dir / GENOTYPE).exists():
            raise UserError(f"{run_dir}: no genotype there; search first, or give one with --genotype FILE")
        _train(session)
        _test(session)
        return write_report(run_dir)


def test(config: RunConfig, run_dir: Path, *, compile_it: bool) -> dict[str, Any]:
    """Test the trained network of a run again, with torch.compile if asked for, and return its results."""
    with open_session(config, run_dir) as session:
        results = _test(session, again=True, compile_it=compile_it)
        write_report(run_dir)
        return results


@contextmanager
def open_session(config: RunConfig, run_dir: Path) -> Iterator[Session]:
    """Take the run directory, refuse another configuration in it, and listen to signals until the end."""
    opened = open_videos(config.data, config.seed)  # first: a wrong path must not leave an empty run directory behind
    run_dir.mkdir(parents=True, exist_ok=True)
    with RunLock(run_dir), StopRequest() as stop, Progress() as progress:
        check_resumable(run_dir, config)
        write_atomic(run_dir / "config.yaml", dump_config(config))
        set_threads(config.threads)
        keep_freed_memory()
        device = choose_device(config.device)
        environment = describe_machine() | {
            **kernel_facts(device, torch.bfloat16 if config.precision == "bf16" else torch.float32),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
        }
        write_atomic(run_dir / "environment.json", json.dumps(environment, indent=1) + "\n")
        yield Session(config, run_dir, device, progress, stop, opened)


def load_videos(
    config: RunConfig, run_dir: Path, progress: Progress, device: torch.device, opened: OpenedVideos | None = None
) -> Videos:
    """Check every video once, leave out and name what cannot be read, and cache the rest where it fits."""
    opened = opened or open_videos(config.data, config.seed)
    catalog = opened.catalog
    if opened.info is None:
        good = usable(catalog, _verdicts(catalog, run_dir, progress), config.data.max_bad_share)
        left_out = Counter(catalog.videos.splits.tolist())
        left_out.subtract(good.videos.splits.tolist())
        excluded = {split: left_out[number] for number, split in enumerate(SPLITS)}
    else:
        good = catalog  # it was checked when it was packed
        excluded = dict(Counter(video.split for video in opened.info.left_out))
    n = sum(excluded.values())
    if n:
        where = "verdicts.csv" if opened.info is None else "the pack's pack.json"
        progress.line(f"{n} of {len(good.videos) + n} videos cannot be read and are left out: see {where}")
    progress.line(good.summary())
    _write_catalog(run_dir, good, n)
    _tell_of_flips(config, catalog, progress)
    side = max(config.search.augment.short_side_max, config.train.augment.short_side_max, config.test.short_side)
    opened = replace(opened, catalog=good)
    train, validation, test = (opened.dataset(split, side) for split in SPLITS)
    for source in (train, validation, test):
        source.prepare_cache(device, progress)
    return Videos(train, validation, test, excluded.get("test", 0))


def _write_catalog(run_dir: Path, catalog: Catalog, excluded: int) -> None:
    summary = {
        "root": str(catalog.root),
        "format": catalog.format,
        "classes": list(catalog.classes),
        "counts": catalog.counts(),
        "excluded": excluded,
        "unlabelled": catalog.unlabelled,
    }
    write_atomic(run_dir / "catalog.json", json.dumps(summary, indent=1) + "\n")


def _verdicts(catalog: Catalog, run_dir: Path, progress: Progress) -> list[CheckResult]:
    """Return the verdicts of an earlier start of this run, or check what it has not checked and write the lists."""
    path = run_dir / "verdicts.json"
    if path.exists():
        verdicts = read_check_results(path)
        if [v.path for v in verdicts] == list(catalog.videos.paths):
            return verdicts
    with StopRequest() as stop:  # of its own: the stages ask theirs at each step, and this comes before any
        return check_videos(catalog, Limits(torch.get_num_threads()), out=run_dir, progress=progress, stop=stop)


def _tell_of_flips(config: RunConfig, catalog: Catalog, progress: Progress) -> None:
    for stage, augment in (("search", config.search.augment), ("train", config.train.augment)):
        message = flip_message(catalog.classes, augment.flip, stage)
        if message:
            progress.line(message)


def _search(session: Session) -> Genotype:
    run_dir, config = session.run_dir, session.config
    if (run_dir / GENOTYPE).exists():
        session.progress.line("search: finished before; its genotype is kept")
        return Genotype.load(run_dir / GENOTYPE)
    videos = session.videos()
    stage = SearchStage(config, videos.train, videos.validation, run_dir, session.device, session.log())
    _run_stage(session, stage)
    genotype = stage.genotype()
    write_atomic(run_dir / GENOTYPE, genotype.to_json())
    return genotype


def _train(session: Session) -> None:
    run_dir, config = session.run_dir, session.config
    if (run_dir / "model.safetensors").exists():
        session.progress.line("train: finished before; its weights are kept")
        return
    genotype = Genotype.load(run_dir / GENOTYPE)
    videos = session.videos()
    stage = TrainStage(config, genotype, videos.train, videos.validation, session.device, session.log())
    _run_stage(session, stage)
    save_model(run_dir, stage.network, genotype, videos.train.catalog.classes, config)


def _run_stage(session: Session, stage: SearchStage | TrainStage) -> None:
    """Run a stage from its last checkpoint, or from the start."""
    folder = session.run_dir / "checkpoints" / stage.name
    checkpoint = load_checkpoint(folder)
    stage.log.rewind(stage.name, checkpoint.state["epoch"] if checkpoint else 0)
    if checkpoint:
        session.progress.line(
            f"{stage.name}: resumes after epoch {checkpoint.state['epoch']}, step {checkpoint.state['step']}"
        )
    elif isinstance(stage, SearchStage):
        stage.start()
    typed: Stage = stage
    minutes = session.config.checkpoint_minutes
    run_epochs(typed, folder, checkpoint, session.stop, session.progress, checkpoint_minutes=minutes)


def _test(session: Session, *, again: bool = False, compile_it: bool = False) -> dict[str, Any]:
    run_dir, config = session.run_dir, session.config
    if (run_dir / RESULTS).exists() and not again:
        session.progress.line("test: finished before; its results are kept")
        return json.loads((run_dir / RESULTS).read_text(encoding="utf-8"))
    model = load_model(run_dir)
    network = ready(model.network.to(session.device), compile_it=compile_it)  # says what is missing before reading
    videos = session.videos()
    started = time.monotonic()
    scores_VK = score_views(network, videos.test, config, session.device, session.progress)
    seconds = stage_seconds(run_dir) | {"test": round(time.monotonic() - started, 1)}
    about = describe_run(run_dir, config, model.genotype, len(model.classes)) | {
        "n_failed": videos.test_excluded,
        "seconds": seconds,
    }
    results = write_results(run_dir, videos.test, scores_VK, config, about)
    session.progress.line(
        f"test: top-1 {results['top1']:.2f} %, top-{results['k']} {results['top5']:.2f} %, "
        f"mean class {results['mean_class']:.2f} % on {results['n_videos']} videos, {results['views']} views"
    )
    return results


def describe_run(run_dir: Path, config: RunConfig, genotype: Genotype, classes: int) -> dict[str, Any]:
    """Return cost, geometry and digests of a run, as results.json holds them."""
    test = config.test
    clip = (config.clip.frames, test.crop, test.crop)
    geometry = {name: getattr(config.network, name) for name in ("width", "repeat", "layout", "stem")}
    cost = network_cost(genotype, config.network, clip=clip, classes=classes)
    views = cost.over_views(test.temporal_views * test.spatial_views)
    kept = ("params", "activations", "macs_per_view", "macs_per_video", "clip")
    return {name: views[name] for name in kept} | {
        "digest": run_digest(run_dir),
        "genotype_digest": digest({}, genotype.with_about().to_json()),
        **geometry,
        "sampling": config.clip.sampling,
        "rule": test.rule,
        "short_videos": config.clip.short_videos,
    }


def stage_seconds(run_dir: Path) -> dict[str, float]:
    """Return the seconds that each stage has trained, from metrics.jsonl."""
    seconds: dict[str, float] = {}
    for line in read_metrics(run_dir / "metrics.jsonl"):
        seconds[line["stage"]] = round(seconds.get(line["stage"], 0.0) + line["seconds"], 1)
    return seconds


def run_digest(run_dir: Path) -> str:
    """Return the SHA-256 over weights, alphas, both optimisers, BN statistics and genotype of a run.

    Raises UserError where the directory holds no checkpoint.
    """
    tensors: dict[str, torch.Tensor] = {}
    for stage in ("search", "train"):
        checkpoint = load_checkpoint(run_dir / "checkpoints" / stage)
        if checkpoint is not None:
            tensors |= {f"{stage}/{k}": v for k, v in checkpoint.tensors.items() if not k.startswith(SUMS)}
    if not tensors:
        raise UserError(f"{run_dir}: not a run directory, or nothing is saved in it yet")
    path = run_dir / GENOTYPE
    genotype = Genotype.load(path).with_about().to_json() if path.exists() else None
    return digest(tensors, genotype)


def _keep_genotype(run_dir: Path, genotype: Genotype) -> None:
    path = run_dir / GENOTYPE
    if path.exists() and Genotype.load(path) != genotype:
        raise UserError(f"{path}: holds another genotype than the one given; choose another --dir")
    write_atomic(path, genotype.to_json())
