"""A run directory that is held: the stages of one command on it, and what it says of what it has come to."""

from __future__ import annotations

import io
import json
import shutil
import socket
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pvnas.config import RunConfig
from pvnas.data.catalog import SPLITS
from pvnas.data.clips.mirrored_views import views_of_a_video
from pvnas.data.clips.sheet import write_sheet
from pvnas.data.dataset import OpenedVideos, VideoDataset
from pvnas.data.identity import LearntVideos, located, open_learnt, open_to_learn
from pvnas.data.readable import Videos, check_once, checked_before, load_videos
from pvnas.deploy.latency import clock_of
from pvnas.deploy.model import load_model, save_model
from pvnas.deploy.origin import load_origin, with_body
from pvnas.errors import DivergedError, TooLargeError, UserError
from pvnas.fast.inference import for_inference
from pvnas.fast.kernels.choice import kernel_facts
from pvnas.preflight import check_before_start, check_fit, check_place, check_shards, make_run_directory
from pvnas.report.page import write_report
from pvnas.report.record import AUGMENTED, PEER
from pvnas.runtime.checkpoint import digest, load_checkpoint, shared_checkpoint
from pvnas.runtime.device import choose_device, describe_machine, keep_freed_memory, set_threads
from pvnas.runtime.distributed import ALONE, World, joined_world
from pvnas.runtime.drift import check_alike, check_drift, drift_of, read_environment, threads_for_each
from pvnas.runtime.files import run_lock, write_atomic
from pvnas.runtime.loop import SUMS, run_epochs
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import StopRequest, ends_waits
from pvnas.runtime.spinning import adapt_spinning
from pvnas.search.candidates import LEFT_OUT, Candidate, best_of, candidates, sized, tried_for
from pvnas.search.history import (
    final_alphas,
    final_epoch,
    genotype_of_epoch,
    limits_of,
    price_table,
    read_history,
)
from pvnas.search.stage import SearchStage
from pvnas.settings import CONFIG_NAME, ENVIRONMENT_NAME, check_resumable, dump_config, has_learnt, with_fitted_size
from pvnas.space.cost import network_cost
from pvnas.space.cost_table import Price
from pvnas.space.genotype import Genotype
from pvnas.space.network import PVNASNetwork
from pvnas.training.evaluate import score_views
from pvnas.training.log import EpochLog, read_metrics
from pvnas.training.outcome import summary
from pvnas.training.results import write_results
from pvnas.training.stage import TrainStage, derived_network

GENOTYPE, WEIGHTS, RESULTS = "genotype.json", "model.safetensors", "results.json"
CANDIDATES = "candidates"
"""Folder of the short trainings that decide on the width."""


@contextmanager
def open_session(
    config: RunConfig,
    run_dir: str | Path,
    splits: Collection[str] = SPLITS,
    genotype: Genotype | None = None,
    is_peer: bool = False,
) -> Iterator[Session]:
    """Take the run directory, refuse another configuration or other videos in it, listen to signals; report at the end.

    ``splits``: of which every video is needed as it was when the run began; ``genotype``: the one to train, if given;
    ``is_peer``: whether a network of no genotype is trained.
    """
    run_dir = Path(run_dir)

    def check_directory() -> bool:
        check_place(run_dir, config.data)
        if (run_dir / (GENOTYPE if is_peer else PEER)).exists():
            kind = "a network of a genotype" if is_peer else f"a network to compare with ({PEER})"
            raise UserError(f"{run_dir} holds {kind}; name another --dir")
        check_resumable(run_dir, config)
        return has_learnt(run_dir)

    def open_there() -> tuple[RunConfig, OpenedVideos, LearntVideos | None]:
        if not begun:
            return config, open_to_learn(config), None  # a wrong path must not leave an empty run directory behind
        now = replace(config, data=located(config.data, run_dir))
        return now, *open_learnt(now, run_dir, splits)

    with joined_world(config) as world:
        begun = world.first_does(check_directory)
        train = world.first_does(lambda: asdict(with_fitted_size(config, run_dir).train))
        config = sized(config, train["width"], train["repeat"])
        config, opened, learnt = world.together(open_there, patient=True)
        with session_in(config, run_dir, opened, world, learnt, splits, genotype) as session:
            yield session


@contextmanager
def session_in(
    config: RunConfig,
    run_dir: Path,
    opened: OpenedVideos,
    world: World = ALONE,
    learnt: LearntVideos | None = None,
    splits: Collection[str] = SPLITS,
    genotype: Genotype | None = None,
) -> Iterator[Session]:
    """Hold the directory, try what can be tried early, write what is run and on what, and at the end the report."""
    with ExitStack() as held:
        stop = held.enter_context(StopRequest(speaks=world.is_first))
        progress = held.enter_context(Progress() if world.is_first else Progress(io.StringIO()))

        def take_directory() -> None:
            """Hold the directory, if this run may have it, and say and write what is run."""
            make_run_directory(run_dir)
            held.enter_context(run_lock(run_dir))
            check_resumable(run_dir, config)  # once more: another process may have been at it until now
            check_before_start(
                config, run_dir, len(opened.catalog.classes), genotype, trains="train" in splits, threads=there
            )
            if "train" in splits:
                check_shards(config, world.size)
                check_fit(config, opened.catalog)
            for remark in opened.catalog.remarks:
                progress.line(f"note: {remark}")
            write_atomic(run_dir / CONFIG_NAME, dump_config(config))

        device = world.together(lambda: choose_device(config.device, world.local_rank))
        there = config.threads or threads_for_each(world)
        world.first_does(take_directory)
        # A finished network may be tested anywhere, and its page goes on saying how it was made; what is not finished
        # goes on as it was begun.
        is_finished = world.first_does((run_dir / WEIGHTS).exists)
        goes_on = learnt is not None and "train" in splits and not is_finished
        before = world.first_does(lambda: read_environment(run_dir / ENVIRONMENT_NAME)) if goes_on else {}
        threads = config.threads or before.get("threads") or there
        environment = world.together(lambda: _prepare_machine(config, run_dir, device, threads, world), patient=True)
        check_alike(world, environment)
        if learnt is None or not is_finished:
            world.first_does(lambda: _write_environment(run_dir, environment, before, config.accept_drift))
        yield Session(config, run_dir, opened, device, progress, stop, learnt, splits, run_dir, world)

        def report() -> None:
            with ends_waits():
                write_report(run_dir, progress)

        world.first_does(report)


def _prepare_machine(
    config: RunConfig, run_dir: Path, device: torch.device, threads: int, world: World
) -> dict[str, Any]:
    """Set up threads, memory and kernels of this process, and return what environment.json says of them.

    Raises UserError where this process does not see the run directory of the first.
    """
    if not (run_dir / CONFIG_NAME).exists():
        raise UserError(
            f"{run_dir} is not there on {socket.gethostname()}, where process {world.rank} of {world.size} runs; put "
            "the run on a file system that all hosts share"
        )
    set_threads(threads)
    keep_freed_memory()
    adapt_spinning()
    with ends_waits():  # kernels may have to be compiled and tested
        kernels = kernel_facts(device, torch.bfloat16 if config.precision == "bf16" else torch.float32)
    shared = {"device": device.type, "processes": world.size, "sums": config.determinism}
    return describe_machine() | shared | kernels


def _write_environment(run_dir: Path, environment: dict[str, Any], before: dict[str, Any], accept_drift: bool) -> None:
    """Write environment.json; ``before``: what it said when the run began, if it goes on.

    Raises UserError where what changes bits is another one now, unless that is accepted; then the file keeps it.
    """
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv}
    if before:
        changes = drift_of(before, environment)
        check_drift(run_dir, changes, accepted=accept_drift)
        about["drift"] = [*before.get("drift", []), *changes]
    write_atomic(run_dir / ENVIRONMENT_NAME, json.dumps(environment | about, indent=1) + "\n")


@dataclass
class Session:
    """The stages of one command on one run directory."""

    config: RunConfig
    run_dir: Path
    opened: OpenedVideos
    device: torch.device
    progress: Progress
    stop: StopRequest
    learnt: LearntVideos | None  # None for a run that begins
    splits: Collection[str]  # those that are read
    model_dir: Path  # where the trained network is
    world: World = ALONE  # the processes that share the run; the first of them writes

    @cached_property
    def videos(self) -> Videos:
        """The run's videos, checked and cached when a stage first needs them."""
        config, run_dir, opened, learnt = self.config, self.run_dir, self.opened, self.learnt
        if learnt is None and self.world.size > 1:  # the first checks them, the others read what it has found
            self.world.first_does(lambda: bool(check_once(opened, config, run_dir, self.progress)))
            learnt = self.world.together(lambda: checked_before(opened, run_dir), patient=True)
        return load_videos(opened, config, run_dir, self.progress, self.device, learnt, self.splits, self.world)

    @cached_property
    def log(self) -> EpochLog:
        """Where the stages write what an epoch leaves behind."""
        return EpochLog(self.run_dir, self.progress, tensorboard=self.config.tensorboard)

    def search(self) -> Genotype:
        """Search, and return the genotype derived at the last epoch or the one that the config names."""
        path, world = self.run_dir / GENOTYPE, self.world
        if world.first_does(path.exists):
            self.progress.line("search: finished before; its genotype is kept")
            return self._genotype()
        self.run_stage(self.search_stage())  # which nothing holds on to: what follows may need its memory
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        genotype = self._fitted() if self.config.budget.width == "fit" else self._derived()

        def keep() -> None:
            write_atomic(path, genotype.to_json())
            for folder in (self.run_dir / CANDIDATES).glob("*/checkpoints"):
                shutil.rmtree(folder, ignore_errors=True)

        world.first_does(keep)
        return genotype

    def _derived(self) -> Genotype:
        """Return what a finished search has found; with a budget of time the first process measures networks for it."""
        clock = None
        if self.config.budget.latency_ms:
            advice = (
                f"the search is kept: see what it has with pvnas derive {self.run_dir} --budget.latency_ms N --out "
                "CELLS, and train that with pvnas train DATA --genotype CELLS"
            )
            clock = clock_of(self.config, len(self._classes), torch.get_num_threads(), advice)
            wanted = f"one is to take at most {clock.most_ms:g} ms for {clock.where}"
            self.progress.line(f"search: measuring networks; {wanted}")

        def derive_here() -> str:
            table = price_table(self.config, len(self._classes))
            epoch, history = final_epoch(self.config), read_history(self.run_dir)
            return genotype_of_epoch(self.config, epoch, *history, table, limits_of(self.config), clock).to_json()

        genotype = Genotype.from_json(self.world.first_does(derive_here))
        if clock is not None:
            timing = genotype.about["budget"]["latency"]
            self.progress.line(f"search: the network takes {timing['median_ms']:.3g} ms for {clock.where}")
        return genotype

    def _fitted(self) -> Genotype:
        """Return the cells of the candidate that short trainings find best; the run has its size from now on."""
        classes, config = len(self._classes), self.config

        def candidates_here() -> list[tuple[int, int, str, Price]]:
            found = candidates(config, classes, final_alphas(config, self.run_dir), limits_of(config))
            return [(each.width, each.repeat, each.genotype.to_json(), each.price) for each in found]

        found = [
            Candidate(width, repeat, Genotype.from_json(text), Price(*price))
            for width, repeat, text, price in self.world.first_does(candidates_here)
        ]
        sizes = ", ".join(f"{each.width} (repeat {each.repeat})" for each in found)
        self.progress.line(f"search: widths within the budget: {sizes}; short trainings decide")
        best, tried = best_of(found, config.train.epochs, self._validated)
        if tried and all(each.top1 == LEFT_OUT for each in tried):
            raise UserError("none of the widths within the budget could be trained: see above why; allow a smaller one")
        shown = ", ".join(f"{each.top1:.1f} % with {each.width} (repeat {each.repeat})" for each in tried)
        self.progress.line(f"search: width {best.width}, repeat {best.repeat}; validation: {shown or 'the only one'}")
        self.config = config = sized(config, best.width, best.repeat)
        self.world.first_does(lambda: write_atomic(self.run_dir / CONFIG_NAME, dump_config(config)))
        genotype = self._derived()
        size = {"width": best.width, "repeat": best.repeat}
        return genotype.with_about(**genotype.about, fitted=size, tried=[each._asdict() for each in tried])

    def _validated(self, candidate: Candidate, epochs: int) -> float:
        """Train a candidate for some epochs, or go on, and return its validation top-1 (percent)."""
        config = tried_for(sized(self.config, candidate.width, candidate.repeat), epochs)
        folder = self.run_dir / CANDIDATES / f"{candidate.name}-epochs-{epochs}"
        log = EpochLog(folder, self.progress, tensorboard=False)
        network = derived_network(config, candidate.genotype, len(self._classes))
        videos = self.videos
        stage = TrainStage(config, network, videos.train, videos.validation, self.device, log, self.world)
        self.progress.line(f"search: {epochs} epochs of width {candidate.width}, repeat {candidate.repeat}")
        try:
            self.run_stage(stage, folder=folder, log=log)
        except (DivergedError, TooLargeError) as error:
            if isinstance(error, TooLargeError) and self.world.size > 1:
                raise  # the others know nothing of it
            self.progress.line(f"search: width {candidate.width}, repeat {candidate.repeat} is left out: {error}")
            return LEFT_OUT
        return float(self.world.first_does(lambda: read_metrics(log.path)[-1]["val_top1"]))

    def search_stage(self) -> SearchStage:
        """Return the search as it begins."""
        videos = self.videos
        return SearchStage(
            self.config, videos.train, videos.validation, self.run_dir, self.device, self.log, self.world
        )

    def _genotype(self) -> Genotype:
        return Genotype.from_json(self.world.first_does(lambda: Genotype.load(self.run_dir / GENOTYPE).to_json()))

    def train(self) -> None:
        """Train the network of the genotype from scratch."""
        if self.world.first_does((self.run_dir / WEIGHTS).exists):
            self.progress.line("train: finished before; its weights are kept")
            return
        network, genotype, classes = self.train_network(self.network_to_train()), self._genotype(), self._classes
        seconds = self.videos.middle_seconds
        self.world.first_does(lambda: save_model(self.run_dir, network, genotype, classes, self.config, seconds))

    def network_to_train(self) -> PVNASNetwork:
        """Return the network of the run's genotype as its training begins."""
        network = derived_network(self.config, self._genotype(), len(self._classes))
        origin = load_origin(self.run_dir)
        return network if origin is None else with_body(network, origin)

    @property
    def _classes(self) -> tuple[str, ...]:
        return self.videos.train.catalog.classes

    def train_network(self, network: nn.Module) -> nn.Module:
        """Train a network, of a genotype or not, from its last checkpoint or the start; return the one to keep."""
        stage = self.train_stage(network)
        self.world.first_does(lambda: self._show_augmentation(stage.videos))
        self.run_stage(stage)
        return stage.trained

    def train_stage(self, network: nn.Module) -> TrainStage:
        """Return the training of a network as it begins."""
        train, validation = self.videos.of_training(self.config.train)
        if also := len(self.videos.validation) - len(validation):
            self.progress.line(
                f"train: on {len(train)} videos, {also} of validation among them; none is left to validate on"
            )
        return TrainStage(self.config, network, train, validation, self.device, self.log, self.world)

    def _show_augmentation(self, videos: VideoDataset) -> None:
        """Draw some training clips as augmentation makes them, once: the page shows them."""
        path = self.run_dir / AUGMENTED
        if not path.exists():
            with ends_waits():
                write_sheet(path, videos, self.config, self.config.train)

    def run_stage(
        self,
        stage: SearchStage | TrainStage,
        until: tuple[int, int] | None = None,
        folder: Path | None = None,
        log: EpochLog | None = None,
    ) -> None:
        """Run a stage from its last checkpoint, or from the start, to its end or ``until`` an epoch and step.

        In ``folder``, by the ``log`` of it, where it is not the run's own.
        """
        folder, log = (folder or self.run_dir) / "checkpoints" / stage.name, log or self.log
        minutes = self.config.checkpoint_minutes
        checkpoint = shared_checkpoint(folder, self.world)
        rewound_to = checkpoint.state["epoch"] if checkpoint else 0
        self.world.first_does(lambda: log.rewind(stage.name, rewound_to))
        if checkpoint:
            epoch, step = checkpoint.state["epoch"], checkpoint.state["step"]
            self.progress.line(f"{stage.name}: resumes after epoch {epoch}, step {step}")
        run_epochs(stage, folder, checkpoint, self.stop, self.progress, checkpoint_minutes=minutes, until=until)

    def test(self, *, again: bool = False) -> dict[str, Any]:
        """Test the trained network over many views of each test video, and return what results.json holds."""
        if self.world.first_does((self.run_dir / RESULTS).exists) and not again:
            return self.results_before()
        model = self.world.together(lambda: load_model(self.model_dir), patient=True)
        network = for_inference(model.network.to(self.device))  # says what is missing before reading
        about = self.world.first_does(lambda: describe_run(self.model_dir, self.config, model.genotype, model.classes))
        return self.test_network(network, about)

    def results_before(self) -> dict[str, Any]:
        """Return the results that are there."""
        self.progress.line("test: finished before; its results are kept")
        return self.world.first_does(lambda: _read_results(self.run_dir / RESULTS))

    def test_network(self, network: nn.Module, about: dict[str, Any]) -> dict[str, Any]:
        """Test a network, of a genotype or not; write and return its results, and ``about`` among them."""
        videos = self.videos
        started = time.monotonic()
        scores_VK = score_views(network, videos.test, self.config, self.device, self.progress, self.world)
        test_seconds = {"test": round(time.monotonic() - started, 1)}
        seconds = self.world.first_does(lambda: stage_seconds(self.model_dir)) | test_seconds
        about = about | {"n_failed": videos.test_excluded, "seconds": seconds}
        if self.model_dir == self.run_dir:
            train, validation = videos.of_training(self.config.train)
            about |= {"n_trained_on": len(train), "n_validation": len(validation)}
            about["n_validation_trained_on"] = len(videos.validation) - len(validation)
        results = self.world.first_does(
            lambda: write_results(self.run_dir, videos.test, scores_VK, self.config, about, network)
        )
        self.progress.line(f"test: {summary(results)}")
        return results


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        results = None
    if not isinstance(results, dict):
        raise UserError(f"{path} holds no results; write it again with: pvnas test {path.parent}")
    return results


def describe_run(run_dir: Path, config: RunConfig, genotype: Genotype, classes: Sequence[str]) -> dict[str, Any]:
    """Return cost, geometry and digests of a run, as results.json holds them."""
    test, network = config.test, config.network
    cost = network_cost(genotype, network, clip=config.view, classes=len(classes))
    views = cost.over_views(views_of_a_video(test, classes))
    return {name: views[name] for name in ("params", "activations", "macs_per_view", "macs_per_video", "clip")} | {
        "digest": run_digest(run_dir) if (run_dir / "checkpoints").is_dir() else None,
        "genotype_digest": digest({}, genotype.with_about().to_json()),
        **({"origin": origin.name, "origin_digest": origin.digest} if (origin := load_origin(run_dir)) else {}),
        **{name: getattr(network, name) for name in ("width", "repeat", "layout", "stem")},
        **about_the_test(config),
    }


def about_the_test(config: RunConfig) -> dict[str, str]:
    clip, rule = config.clip, config.test.rule
    return {"input": clip.input, "sampling": clip.sampling, "rule": rule, "short_videos": clip.short_videos}


def stage_seconds(run_dir: Path) -> dict[str, float]:
    """Return the seconds that each stage has trained, from metrics.jsonl."""
    seconds: dict[str, float] = {}
    for line in read_metrics(run_dir / "metrics.jsonl"):
        seconds[line["stage"]] = round(seconds.get(line["stage"], 0.0) + line["seconds"], 1)
    return seconds


def run_digest(run_dir: Path) -> str:
    """Return the SHA-256 over weights, alphas, optimisers, BN statistics, genotype; UserError where none is saved."""
    tensors: dict[str, torch.Tensor] = {}
    for stage in ("search", "train"):
        checkpoint = load_checkpoint(run_dir / "checkpoints" / stage)
        if checkpoint is not None:
            tensors |= {f"{stage}/{k}": v for k, v in checkpoint.tensors.items() if not k.startswith(SUMS)}
    if not tensors:
        raise UserError(f"{run_dir}: not a run directory, or nothing is saved in it yet")
    if origin := load_origin(run_dir):
        tensors |= {f"origin/{name}": tensor for name, tensor in origin.body.items()}
    path = run_dir / GENOTYPE
    return digest(tensors, Genotype.load(path).with_about().to_json() if path.exists() else None)
