"""The search stage: the epochs of the search, and what each writes: alphas, genotype, metrics."""

import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvnas.config import RunConfig
from pvnas.data.balance import class_weights
from pvnas.data.clips.loader import Batch, steps_per_epoch, training_batches
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.fast.accelerate import accelerate
from pvnas.runtime.checkpoint import load_tensors, save_tensors
from pvnas.runtime.distributed import ALONE, World
from pvnas.runtime.files import write_atomic
from pvnas.runtime.gpu import Graphs
from pvnas.runtime.loop import Stage
from pvnas.runtime.optimizers import alpha_optimizer, weight_optimizer
from pvnas.runtime.random import generator, key, seed_all
from pvnas.search.derive import collapse_warning
from pvnas.search.history import HISTORY, alpha_name, genotype_of_epoch, limits_of, price_table
from pvnas.search.pressure import Pressure
from pvnas.search.relaxation import relaxation_at, temperature_at
from pvnas.search.step import StepBatches, search_step
from pvnas.space.cost_table import CostTable
from pvnas.space.genotype import Genotype
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.supernet import Supernet, relaxed
from pvnas.training import divergence
from pvnas.training.evaluate import validate
from pvnas.training.log import EpochLog

MULTIPLIERS = "pressure/multipliers"


class SearchStage(Stage):
    """The search as ``runtime.loop`` runs it."""

    name = "search"
    less_memory = (
        "--search.checkpointing true goes on from the last checkpoint in much less, a smaller "
        "--search.batch.clips_per_shard or --search.augment.crop starts anew"
    )
    network: Supernet

    def __init__(
        self,
        config: RunConfig,
        train: VideoDataset,
        validation: VideoDataset,
        run_dir: Path,
        device: torch.device,
        log: EpochLog,
        world: World = ALONE,
        *,
        plain: bool = False,
    ) -> None:
        """``world``: the processes that share the search.

        ``plain``: with the supernet that is the tests' oracle and the benchmarks' baseline.
        """
        search = config.search
        self.config, self.validation, self.run_dir, self.log = config, validation, run_dir, log
        self.weight_videos, self.alpha_videos = split_for_objective(config, train)
        self.class_weights_K = class_weights(train.catalog).to(device) if search.balance == "weights" else None
        # A shard draws from a random stream of its own, which a graph cannot; one shard has none to draw.
        graphs = search.graphs and device.type == "cuda" and search.batch.shards == 1 and not plain
        self.graphs = Graphs() if graphs else None
        with seed_all(key(config.seed, "supernet")):
            network = Supernet(
                len(train.catalog.classes),
                width=search.width,
                layout=search.layout,
                stem=config.stem,
                in_channels=config.network.in_channels,
                initial_std=search.alphas.initial_std,
                layers=PLAIN if plain else FOLDED,
            )
        network = (network if plain else accelerate(network, checkpointing=search.checkpointing)).to(device)
        self.weights = weight_optimizer(network.weight_parameters(), search.weights, search.batch)
        self.alphas = alpha_optimizer(network.architecture_parameters(), search.alphas)
        self.lower_rate = divergence.advice(self.name, search.weights)
        optimizers = {"weight_optimizer": self.weights, "alpha_optimizer": self.alphas}
        super().__init__(network, optimizers, epochs=search.epochs, seed=config.seed, device=device, world=world)
        self.pressure = self._pressure() if config.budget.pressure else None
        self.time = 0.0
        """Epochs before the step that is made, a fraction within an epoch."""

    def step(self, epoch: int, step: int, batch: StepBatches) -> dict[str, Tensor]:
        """Make one step, see ``Stage``."""
        self.time = epoch + step / self.steps()
        return super().step(epoch, step, batch)

    def update(self, batch: StepBatches, seed: int) -> dict[str, Tensor]:
        """Make the two half-steps of algorithm 1 on these batches."""
        return search_step(
            self.network,
            self.weights,
            self.alphas,
            batch,
            self.config.search,
            self.config.clip,
            epoch=self.time,
            precision=self.config.precision,
            seed=seed,
            graphs=self.graphs,
            finite=self.finite,
            class_weights_K=self.class_weights_K,
            world=self.world,
            pressure=self.pressure,
        )

    def _pressure(self) -> Pressure:
        table = price_table(self.config, len(self.weight_videos.catalog.classes))
        return Pressure(table, limits_of(self.config), self._categories, self.steps(), self.device)

    def tensors(self) -> dict[str, Tensor]:
        """Return what the next step depends on, and a budget's multipliers."""
        multipliers = {} if self.pressure is None else {MULTIPLIERS: self.pressure.multipliers}
        return super().tensors() | multipliers

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from what tensors() and state() returned."""
        super().restore(tensors, state)
        if self.pressure is not None:
            self.pressure.multipliers = tensors[MULTIPLIERS].clone()

    def steps(self) -> int:
        """Return the steps of an epoch; a fresh batch for each half-step makes half as many."""
        steps = steps_per_epoch(len(self.weight_videos), self.config.search.batch)
        return max(1, steps // 2) if self._fresh_batches() else steps

    def _fresh_batches(self) -> bool:
        return self.config.search.half_steps == "next" and self.alpha_videos is None

    def batches(self, epoch: int, first_step: int) -> Iterator[StepBatches]:
        """Yield the batches of each step from ``first_step`` on; where alpha does not move it has none of its own."""
        fresh, of_alphas = self._fresh_batches(), None
        stream = self._stream(self.weight_videos, epoch, first_step * (2 if fresh else 1), "train")
        for step, batch in enumerate(stream, start=first_step):
            weight_batch = next(stream, batch) if fresh else batch
            moves_alpha = epoch + step / self.steps() >= self.config.search.alphas.start_epoch
            if self.alpha_videos is not None and moves_alpha:
                of_alphas = of_alphas or self._cycle(self.alpha_videos, epoch, step)
                yield StepBatches(next(of_alphas), weight_batch)
            else:
                yield StepBatches(batch if moves_alpha else weight_batch, weight_batch)

    def _stream(self, videos: VideoDataset, epoch: int, first_step: int, stream: str) -> Iterator[Batch]:
        name = f"search-{stream}"
        return training_batches(videos, self.config, self.config.search, epoch, first_step, name, self.world)

    def _cycle(self, videos: VideoDataset, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield the alphas' batches without end; each pass over their videos has an order of its own."""
        turn, first = divmod(first_step, steps_per_epoch(len(videos), self.config.search.batch))
        while True:
            yield from self._stream(videos, epoch, first, f"alpha-{turn}")
            turn, first = turn + 1, 0

    def end_epoch(self, epoch: int, sums: dict[str, Tensor], times: dict[str, float]) -> None:
        """Write the epoch's alphas, genotype and metrics, and warn of a collapse."""
        search, measures = self.config.search, dict[str, float]()
        record = self.world.first_does(lambda: self._derive_and_write(epoch))
        if search.validate:
            with relaxed(self.network, relaxation_at(self.network, search, epoch)):
                measures = validate(self.network, self.validation, self.config, search.augment, self.device, self.world)
            divergence.require_validation(measures, epoch)
        line = measures | {"lr": self.weights.lr, "alpha_lr": self.alphas.lr} | record
        if self.pressure is not None:
            temperature = temperature_at(search.alphas, epoch, self.epochs)
            line |= self.pressure.measures(self.network.architecture_parameters(), temperature)

        def write() -> None:
            self.log.write(self.name, epoch, self.epochs, sums, times, line)
            high_loss = divergence.high_loss_warning(self.name, epoch, sums, self.lower_rate)
            if warning := high_loss or collapse_warning(record, epoch):  # of a network that learns nothing, the first
                warnings.warn(warning, RuntimeWarning, stacklevel=2)

        self.world.first_does(write)

    def _derive_and_write(self, epoch: int) -> dict[str, Any]:
        """Write alphas and genotype of an epoch, and return what of the cells is without parameters."""
        genotype = self._derived(epoch, self._write_alphas(epoch))
        write_atomic(self._genotype_path(epoch), genotype.to_json())
        return dict(genotype.about["collapse"])

    def _derived(self, epoch: int, history: dict[str, Tensor]) -> Genotype:
        """Return the genotype of this epoch."""
        return genotype_of_epoch(self.config, epoch, history, self._categories, self.prices, limits_of(self.config))

    @cached_property
    def prices(self) -> CostTable | None:
        """What the edges of the derived network cost, where there is a budget and the network's size is known."""
        priced = limits_of(self.config).any and self.config.budget.width == "given"
        return price_table(self.config, len(self.weight_videos.catalog.classes)) if priced else None

    def _genotype_path(self, epoch: int) -> Path:
        return self.run_dir / "genotypes" / f"epoch_{epoch:03d}.json"

    def _write_alphas(self, epoch: int) -> dict[str, Tensor]:
        """Add this epoch's alphas to the history, in place of whatever an interrupted run left beyond it; return it."""
        path = self.run_dir / HISTORY
        history = load_tensors(path) if path.exists() and epoch > 0 else {}
        earlier = {name: alpha for name, alpha in history.items() if name < alpha_name(epoch)}
        alphas = self.network.architecture_parameters()
        history = earlier | {alpha_name(epoch, category): alpha for category, alpha in alphas.items()}
        save_tensors(path, history)
        return history

    def start(self) -> None:
        """Write the initial alphas of a new search."""
        self._write_alphas(0)

    @property
    def _categories(self) -> tuple[str, ...]:
        return tuple(self.network.architecture_parameters())


def split_for_objective(config: RunConfig, train: VideoDataset) -> tuple[VideoDataset, VideoDataset | None]:
    """Return (videos that train w, videos that train alpha); None where the alphas use the same (one-level)."""
    if config.search.objective == "one-level":
        return train, None
    n = len(train.catalog.videos)
    n_alpha = round(n * config.search.bilevel_share)
    if not 0 < n_alpha < n:
        raise UserError(
            f"search.bilevel_share {config.search.bilevel_share} leaves no videos for one of the two levels"
        )
    order = torch.randperm(n, generator=generator(config.seed, "bilevel")).tolist()
    return train.select(sorted(order[n_alpha:])), train.select(sorted(order[:n_alpha]))
