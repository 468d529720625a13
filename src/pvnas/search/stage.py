"""The search stage: alternates the half-steps over the epochs and writes the genotype of each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.config import RunConfig
from pvnas.data.clips.augment import normalise
from pvnas.data.clips.loader import Batch, training_batches
from pvnas.data.clips.order import steps_per_epoch
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.fast.accelerate import accelerate, shared_passes
from pvnas.runtime.checkpoint import load_tensors, save_tensors
from pvnas.runtime.files import write_atomic
from pvnas.runtime.finite import FiniteCheck
from pvnas.runtime.graphs import Graphs
from pvnas.runtime.loop import place_of
from pvnas.runtime.optimizers import SGD, Adam, optimizer_tensors, restore_optimizer
from pvnas.runtime.random import generator, key, seed_all
from pvnas.runtime.schedule import scaled_lr, schedule_factor
from pvnas.runtime.shards import shard_gradients
from pvnas.runtime.tensors import apply_gradients, clip_gradients, frozen, with_prefix
from pvnas.search.collapse import collapse_record, collapse_warning
from pvnas.search.derive import derive
from pvnas.search.objective import (
    alpha_gradient,
    alpha_gradient_second_order,
    joint_gradient,
    weight_gradient,
)
from pvnas.space.genotype import Genotype
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.supernet import Supernet, frozen_statistics
from pvnas.training.evaluate import validate
from pvnas.training.log import EpochLog, autocast, class_sums


class StepBatches(NamedTuple):
    """The mini-batches of one search step; the same one where the half-steps share it (D2)."""

    alpha: Batch
    weight: Batch


class SearchStage:
    """The search as ``runtime.loop`` runs it: state, one step, and what an epoch writes to the run directory."""

    name = "search"
    less_memory = (
        "--search.checkpointing true goes on from the last checkpoint in much less, a smaller "
        "--search.batch.clips_per_shard or --search.augment.crop starts anew"
    )

    def __init__(
        self,
        config: RunConfig,
        train: VideoDataset,
        validation: VideoDataset,
        run_dir: Path,
        device: torch.device,
        log: EpochLog,
        *,
        plain: bool = False,
    ) -> None:
        """``plain``: with the supernet that is the tests' oracle and the benchmarks' baseline."""
        search = config.search
        self.config, self.run_dir, self.device, self.log = config, run_dir, device, log
        self.finite = FiniteCheck(device)
        # A shard draws from a random stream of its own, which a graph cannot; one shard has none to draw.
        graphs = search.graphs and device.type == "cuda" and search.batch.shards == 1 and not plain
        self.graphs = Graphs() if graphs else None
        self.epochs, self.validation = search.epochs, validation
        self.weight_videos, self.alpha_videos = split_for_objective(config, train)
        with seed_all(key(config.seed, "supernet")):
            network = Supernet(
                len(train.catalog.classes),
                width=search.width,
                layout=search.layout,
                stem=config.stem,
                initial_std=search.alphas.initial_std,
                layers=PLAIN if plain else FOLDED,
            )
        self.network = (network if plain else accelerate(network, checkpointing=search.checkpointing)).to(device)
        self.weights, self.alphas = self.network.weight_parameters(), self.network.architecture_parameters()
        weights, alphas = search.weights, search.alphas
        self.weight_optimizer = SGD(
            self.weights.values(),
            lr=scaled_lr(weights, search.batch),
            momentum=weights.momentum,
            weight_decay=weights.weight_decay,
            nesterov=weights.nesterov,
        )
        self.alpha_optimizer = Adam(
            self.alphas.values(), lr=alphas.lr, betas=(alphas.beta1, alphas.beta2), weight_decay=alphas.weight_decay
        )

    # ---- the step, read from top to bottom

    def step(self, epoch: int, step: int, batch: StepBatches) -> dict[str, Tensor]:
        """Make the two half-steps of algorithm 1 on these batches and return the weight pass's measures."""
        self._set_learning_rates(epoch + step / self.steps())
        if not self.network.training:  # asked, since setting it walks over hundreds of layers
            self.network.train()
        self.finite.settle()
        place = place_of(epoch, step, self.paths(batch))
        gradient = _GradientOf(self, key(self.config.seed, "search", epoch, step))
        weights, alphas = list(self.weights.values()), list(self.alphas.values())
        if self.config.search.half_steps == "joint":
            weight_grads, alpha_grads, measures = joint_gradient(gradient, weights, alphas, batch.weight)
            self.finite.require(f"the gradient of alpha is not a number in {place}", alpha_grads)
            apply_gradients(self.alpha_optimizer, alphas, alpha_grads)
        else:
            with shared_passes(self.network) if self._passes_share(batch) else nullcontext():
                # (1) alpha_t from the gradient at (w_{t-1}, alpha_{t-1})
                alpha_grads = self._alpha_gradient(gradient, batch)
                self.finite.require(f"the gradient of alpha is not a number in {place}", alpha_grads)
                apply_gradients(self.alpha_optimizer, alphas, alpha_grads)
                # (2) w_t from the gradient at (w_{t-1}, alpha_t)
                weight_grads, measures = weight_gradient(gradient, weights, batch.weight)
        self.finite.require(f"the loss is not a number in {place}", [measures["loss"]])
        clip_gradients(weight_grads, self.config.search.weights.clip_gradient)
        apply_gradients(self.weight_optimizer, weights, weight_grads)
        return measures

    def _passes_share(self, batch: StepBatches) -> bool:
        """Whether both half-steps make one pass each, of the same clips."""
        search = self.config.search
        return batch.alpha is batch.weight and search.batch.shards == 1 and search.objective != "bilevel-second"

    def _alpha_gradient(self, gradient: _GradientOf, batch: StepBatches) -> list[Tensor]:
        """Equation 6's gradient (one-level), or equation 5's with xi = 0, or equations 3 to 5."""
        weights, alphas = list(self.weights.values()), list(self.alphas.values())
        if self.config.search.objective != "bilevel-second":
            return alpha_gradient(gradient, alphas, batch.alpha)
        group = self.weight_optimizer.param_groups[0]
        return alpha_gradient_second_order(
            gradient,
            weights,
            alphas,
            batch.weight,
            batch.alpha,
            lr=group["lr"],
            momentum=group["momentum"],
            weight_decay=group["weight_decay"],
            velocity=[self.weight_optimizer.state[w].get("momentum_buffer") for w in weights],
        )

    def _set_learning_rates(self, epoch: float) -> None:
        search = self.config.search
        peak = scaled_lr(search.weights, search.batch)
        factor = schedule_factor(search.weights.schedule, epoch, self.epochs)
        self.weight_optimizer.param_groups[0]["lr"] = peak * factor
        factor = schedule_factor(search.alphas.schedule, epoch, self.epochs)
        self.alpha_optimizer.param_groups[0]["lr"] = search.alphas.lr * factor

    # ---- what the loop asks for

    def steps(self) -> int:
        """Return the steps of an epoch; a fresh batch for each half-step makes half as many."""
        batch = self.config.search.batch
        steps = steps_per_epoch(len(self.weight_videos.catalog.videos), batch)
        return max(1, steps // 2) if self._fresh_batches() else steps

    def _fresh_batches(self) -> bool:
        return self.config.search.half_steps == "next" and self.alpha_videos is None

    def batches(self, epoch: int, first_step: int) -> Iterator[StepBatches]:
        """Yield the batches of each step from ``first_step`` on."""
        if self._fresh_batches():
            stream = self._stream(self.weight_videos, epoch, 2 * first_step, "train")
            for alpha in stream:
                yield StepBatches(alpha, next(stream, alpha))
        elif self.alpha_videos is not None:
            train = self._stream(self.weight_videos, epoch, first_step, "train")
            alphas = self._cycle(self.alpha_videos, epoch, first_step)
            yield from map(StepBatches, alphas, train)
        else:
            for batch in self._stream(self.weight_videos, epoch, first_step, "train"):
                yield StepBatches(batch, batch)

    def _stream(self, source: VideoDataset, epoch: int, first_step: int, stream: str) -> Iterator[Batch]:
        config = self.config
        return training_batches(
            source,
            config.clip,
            config.search.augment,
            config.search.batch,
            seed=config.seed,
            epoch=epoch,
            first_step=first_step,
            workers=config.data.workers,
            stream=f"search-{stream}",
        )

    def _cycle(self, source: VideoDataset, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield the alphas' batches without end; each pass over their videos has an order of its own."""
        steps = steps_per_epoch(len(source.catalog.videos), self.config.search.batch)
        turn, first = divmod(first_step, steps)
        while True:
            yield from self._stream(source, epoch, first, f"alpha-{turn}")
            turn, first = turn + 1, 0

    def paths(self, batch: StepBatches) -> tuple[str, ...]:
        """Return the videos of a step."""
        return batch.weight.paths

    def end_epoch(self, epoch: int, sums: dict[str, Tensor], times: dict[str, float]) -> None:
        """Write the epoch's alphas, genotype and metrics, and warn of a collapse."""
        genotype = derive(self.alphas)
        record = collapse_record(self.alphas, genotype)
        self._write_alphas(epoch)
        noted = genotype.with_about(epoch=epoch, seed=self.config.seed, preset=self.config.preset, collapse=record)
        write_atomic(self.run_dir / "genotypes" / f"epoch_{epoch:03d}.json", noted.to_json())
        measures = {}
        if self.config.search.validate:
            measures = validate(self.network, self.validation, self.config, self.config.search.augment, self.device)
        rates = {
            "lr": self.weight_optimizer.param_groups[0]["lr"],
            "alpha_lr": self.alpha_optimizer.param_groups[0]["lr"],
        }
        self.log.write(self.name, epoch, sums, times, measures | rates | record)
        warning = collapse_warning(record, epoch)
        if warning:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)

    def _write_alphas(self, epoch: int) -> None:
        """Add this epoch's alphas to the history, in place of whatever an interrupted run left beyond it."""
        path = self.run_dir / "alphas.safetensors"
        history = load_tensors(path) if path.exists() and epoch > 0 else {}
        kept = {name: alpha for name, alpha in history.items() if name < f"epoch_{epoch:03d}"}
        now = {f"epoch_{epoch:03d}/{c}": alpha.detach().cpu() for c, alpha in self.alphas.items()}
        save_tensors(path, kept | now)

    def start(self) -> None:
        """Write the initial alphas of a new search."""
        self._write_alphas(0)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, alphas, BN statistics and both optimisers' state."""
        weight_state, _ = optimizer_tensors(self.weight_optimizer, list(self.weights))
        alpha_state, _ = optimizer_tensors(self.alpha_optimizer, list(self.alphas))
        return (
            {f"network/{k}": v for k, v in self.network.state_dict().items()}
            | {f"weight_optimizer/{k}": v for k, v in weight_state.items()}
            | {f"alpha_optimizer/{k}": v for k, v in alpha_state.items()}
        )

    def state(self) -> dict[str, Any]:
        """Return the optimisers' settings."""
        return {
            "weight_optimizer": optimizer_tensors(self.weight_optimizer, list(self.weights))[1],
            "alpha_optimizer": optimizer_tensors(self.alpha_optimizer, list(self.alphas))[1],
        }

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.network.load_state_dict(with_prefix(tensors, "network/"))
        for name, optimizer, parameters in (
            ("weight_optimizer", self.weight_optimizer, self.weights),
            ("alpha_optimizer", self.alpha_optimizer, self.alphas),
        ):
            restore_optimizer(optimizer, list(parameters), with_prefix(tensors, name + "/"), state[name])

    def genotype(self) -> Genotype:
        """Return the genotype of the epoch that the config asks for (the last one by default)."""
        epoch = self.config.search.stop_epoch or self.epochs
        path = self.run_dir / "genotypes" / f"epoch_{epoch:03d}.json"
        if not path.exists():
            raise UserError(f"search.stop_epoch is {epoch}, but the search has epochs 1 to {self.epochs}")
        return Genotype.load(path)


class _GradientOf:
    """Gradients on the supernet, shard by shard (see search.objective.GradientOf)."""

    def __init__(self, stage: SearchStage, random_key: int) -> None:
        self.stage, self.random_key = stage, random_key
        self._host: Batch | None = None
        self._there: Batch | None = None

    def __call__(
        self, parameters: Sequence[nn.Parameter], batch: Batch, *, update_statistics: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        stage, wanted = self.stage, {id(parameter) for parameter in parameters}
        others = [p for p in (*stage.weights.values(), *stage.alphas.values()) if id(p) not in wanted]

        def gradients(clips_NCTHW: Tensor, labels_N: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
            statistics = nullcontext() if update_statistics else frozen_statistics(stage.network)
            with frozen(others), statistics:
                return self._gradients(parameters, clips_NCTHW, labels_N)

        there = self._on_device(batch)
        if stage.graphs is None:
            return gradients(there.clips_NCTHW, there.labels_N)
        name = (len(parameters), id(parameters[0]), update_statistics)
        found, measures = stage.graphs.call(name, gradients, (there.clips_NCTHW, there.labels_N))
        if stage.config.search.objective == "bilevel-second":  # which compares gradients of the same kind
            found = [gradient.clone() for gradient in found]
        return found, {key: value.clone() for key, value in measures.items()}

    def _gradients(
        self, parameters: Sequence[nn.Parameter], clips_NCTHW: Tensor, labels_N: Tensor
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        stage = self.stage
        if stage.graphs is not None:
            loss, measures = self._loss(clips_NCTHW, labels_N)
            gradients = torch.autograd.grad(loss, list(parameters))
            # As their parameters lie, as ``shard_gradients`` gives them.
            return [gradient.contiguous() for gradient in gradients], measures
        shards = stage.config.search.batch.shards
        arguments = (stage.network, parameters, shards, clips_NCTHW, labels_N, self._loss)
        return shard_gradients(*arguments, self.random_key)

    def _on_device(self, batch: Batch) -> Batch:
        """Return the batch on the device, brought there once where half-steps share it."""
        if self._there is None or self._host is not batch:
            self._host, self._there = batch, batch.to(self.stage.device)
        return self._there

    def _loss(self, clips_NCTHW: Tensor, labels_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(self.stage.config.precision, self.stage.device):
            scores_NK = self.stage.network(normalise(clips_NCTHW))
        losses_N = F.cross_entropy(scores_NK.float(), labels_N, reduction="none")
        return losses_N.mean(), class_sums(scores_NK, losses_N, labels_N)


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
