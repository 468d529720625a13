"""The training stage: a derived network from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.config import RunConfig
from pvnas.data.clips.augment import normalise
from pvnas.data.clips.loader import Batch, training_batches
from pvnas.data.clips.order import steps_per_epoch
from pvnas.data.dataset import VideoDataset
from pvnas.runtime.finite import FiniteCheck
from pvnas.runtime.loop import place_of
from pvnas.runtime.optimizers import SGD, optimizer_tensors, restore_optimizer
from pvnas.runtime.random import key, seed_all
from pvnas.runtime.schedule import scaled_lr, schedule_factor
from pvnas.runtime.shards import shard_gradients
from pvnas.runtime.tensors import apply_gradients, clip_gradients, with_prefix
from pvnas.space.genotype import Genotype
from pvnas.space.network import PVNASNetwork
from pvnas.training.evaluate import validate
from pvnas.training.log import EpochLog, autocast, class_sums


class TrainStage:
    """The training as ``runtime.loop`` runs it."""

    name = "train"
    less_memory = "a smaller --train.batch.clips_per_shard, --train.augment.crop or --train.width starts anew"

    def __init__(
        self,
        config: RunConfig,
        genotype: Genotype,
        train: VideoDataset,
        validation: VideoDataset,
        device: torch.device,
        log: EpochLog,
    ) -> None:
        self.config, self.device, self.log = config, device, log
        self.finite = FiniteCheck(device)
        self.epochs, self.videos, self.validation = config.train.epochs, train, validation
        with seed_all(key(config.seed, "network")):
            self.network = PVNASNetwork(
                genotype,
                config.network,
                num_classes=len(train.catalog.classes),
                drop_rate=config.train.dropout,
                drop_path_rate=config.train.drop_path,
            ).to(device)
        self.parameters = dict(self.network.named_parameters())
        weights = config.train.weights
        self.optimizer = SGD(
            self.parameters.values(),
            lr=scaled_lr(weights, config.train.batch),
            momentum=weights.momentum,
            weight_decay=weights.weight_decay,
            nesterov=weights.nesterov,
        )

    def step(self, epoch: int, step: int, batch: Batch) -> dict[str, Tensor]:
        """Forward, loss and backward shard by shard, then one step of the optimiser."""
        train = self.config.train
        factor = schedule_factor(train.weights.schedule, epoch + step / self.steps(), self.epochs)
        self.optimizer.param_groups[0]["lr"] = scaled_lr(train.weights, train.batch) * factor
        self.network.train()
        there = batch.to(self.device)
        gradients, measures = shard_gradients(
            self.network,
            list(self.parameters.values()),
            train.batch.shards,
            there.clips_NCTHW,
            there.labels_N,
            self._loss,
            key(self.config.seed, "train", epoch, step),
        )
        self.finite.settle()
        where = place_of(epoch, step, self.paths(batch))
        self.finite.require(f"the loss is not a number in {where}", [measures["loss"]])
        clip_gradients(gradients, train.weights.clip_gradient)
        apply_gradients(self.optimizer, list(self.parameters.values()), gradients)
        return measures

    def _loss(self, clips_NCTHW: Tensor, labels_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(self.config.precision, self.device):
            scores_NK = self.network(normalise(clips_NCTHW))
        smoothing = self.config.train.label_smoothing
        losses_N = F.cross_entropy(scores_NK.float(), labels_N, reduction="none", label_smoothing=smoothing)
        return losses_N.mean(), class_sums(scores_NK, losses_N, labels_N)

    def steps(self) -> int:
        """Return the steps of an epoch."""
        return steps_per_epoch(len(self.videos.catalog.videos), self.config.train.batch)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on."""
        config = self.config
        return training_batches(
            self.videos,
            config.clip,
            config.train.augment,
            config.train.batch,
            seed=config.seed,
            epoch=epoch,
            first_step=first_step,
            workers=config.data.workers,
            stream="train",
        )

    def paths(self, batch: Batch) -> tuple[str, ...]:
        """Return the videos of a step."""
        return batch.paths

    def end_epoch(self, epoch: int, sums: dict[str, Tensor], times: dict[str, float]) -> None:
        """Validate and write the epoch's metrics."""
        measures = validate(self.network, self.validation, self.config, self.config.train.augment, self.device)
        self.log.write(self.name, epoch, sums, times, measures | {"lr": self.optimizer.param_groups[0]["lr"]})

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, BN statistics and the optimiser's state."""
        state, _ = optimizer_tensors(self.optimizer, list(self.parameters))
        return {f"network/{k}": v for k, v in self.network.state_dict().items()} | {
            f"optimizer/{k}": v for k, v in state.items()
        }

    def state(self) -> dict[str, Any]:
        """Return the optimiser's settings."""
        return {"optimizer": optimizer_tensors(self.optimizer, list(self.parameters))[1]}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.network.load_state_dict(with_prefix(tensors, "network/"))
        restore_optimizer(self.optimizer, list(self.parameters), with_prefix(tensors, "optimizer/"), state["optimizer"])
