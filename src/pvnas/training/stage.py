"""The training stage: a network from scratch, of a genotype or any other that takes clips and gives scores."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pvnas.config import RunConfig
from pvnas.data.balance import class_weights
from pvnas.data.clips.loader import Batch, Extras, steps_per_epoch, training_batches
from pvnas.data.dataset import VideoDataset
from pvnas.fast.accelerate import accelerate_training
from pvnas.peers import Peer, width_of
from pvnas.peers.networks import PeerNetwork
from pvnas.peers.residual import ResidualNetwork
from pvnas.runtime.distributed import ALONE, World
from pvnas.runtime.gpu import Graphs
from pvnas.runtime.loop import Stage, with_prefix
from pvnas.runtime.optimizers import weight_optimizer
from pvnas.runtime.random import key, seed_all
from pvnas.space.genotype import Genotype
from pvnas.space.network import PVNASNetwork
from pvnas.space.stem import time_stride
from pvnas.training import divergence
from pvnas.training.average import MovingAverage
from pvnas.training.evaluate import validate
from pvnas.training.log import EpochLog
from pvnas.training.step import loss_gradients

AVERAGE = "average/"
HEAD = "classifier."
"""What the names of the parameters behind the body begin with."""


def derived_network(config: RunConfig, genotype: Genotype, classes: int) -> PVNASNetwork:
    """Return the network of a genotype as its training begins: its weights are drawn by the config's seed."""
    with seed_all(key(config.seed, "network")):
        return PVNASNetwork(
            genotype,
            config.network,
            num_classes=classes,
            drop_rate=config.train.dropout,
            drop_path_rate=config.train.drop_path,
        )


def peer_network(config: RunConfig, peer: Peer, classes: int, macs: float | None) -> PeerNetwork | ResidualNetwork:
    """Return a network to compare with as its training begins; its width is the published one, or that of ``macs``."""
    options = {"num_classes": classes, "in_channels": config.clip.channels}
    options |= {"time_stride": time_stride(config.stem)} if peer.strides_time else {}
    width = peer.width if macs is None else width_of(peer, macs, config.view, **options)
    rates = {"drop_rate": config.train.dropout, "drop_path_rate": config.train.drop_path}
    with seed_all(key(config.seed, "network")):
        return peer.build(width, **options, **rates)


def frozen_layers(network: nn.Module, freeze: str) -> list[nn.Module]:
    """Return the layers that keep still, and let their parameters ask for no gradient.

    ``freeze``: none, norms (all batch norms) or body (all but the classifier).
    """
    body = [layer for name, layer in network.named_children() if not HEAD.startswith(name)]
    norms: list[nn.Module] = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm3d)]
    layers = norms if freeze == "norms" else body if freeze == "body" else []
    for layer in layers:
        layer.requires_grad_(False)
    return layers


class TrainStage(Stage):
    """The training as ``runtime.loop`` runs it."""

    name = "train"
    less_memory = "a smaller --train.batch.clips_per_shard, --train.augment.crop or --train.width starts anew"

    def __init__(
        self,
        config: RunConfig,
        network: nn.Module,
        train: VideoDataset,
        validation: VideoDataset,
        device: torch.device,
        log: EpochLog,
        world: World = ALONE,
    ) -> None:
        """``network``: takes what the network sees (N, C, T, H, W), gives scores (N, K)."""
        self.config, self.videos, self.validation, self.log = config, train, validation, log
        weighted = config.train.balance == "weights"
        self.class_weights_K = class_weights(train.catalog).to(device) if weighted else None
        network = (accelerate_training(network) if isinstance(network, PVNASNetwork) else network).to(device)
        self.frozen = frozen_layers(network, config.train.freeze)
        parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        factors = {name: config.train.body_lr for name in parameters if not name.startswith(HEAD)}
        self.optimizer = weight_optimizer(parameters, config.train.weights, config.train.batch, factors)
        self.lower_rate = divergence.advice(self.name, config.train.weights)
        optimizers = {"optimizer": self.optimizer}
        super().__init__(network, optimizers, epochs=config.train.epochs, seed=config.seed, device=device, world=world)
        self.begin_training()  # a new network says that it is in training, frozen layers included
        self.average = MovingAverage(network, config.train.ema) if config.train.ema > 0 else None
        # A shard draws from a random stream of its own, which is begun before a graph and not in it.
        recorded = config.train.graphs and device.type == "cuda" and config.train.batch.shards == 1
        self.graphs = Graphs() if recorded else None

    def begin_training(self) -> None:
        """Set the network's layers to training, but for those that keep still."""
        super().begin_training()
        for layer in self.frozen:
            layer.eval()

    @property
    def trained(self) -> nn.Module:
        """The network that is validated, kept and tested: the moving average where there is one."""
        return self.network if self.average is None else self.average.network

    def update(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Make one step of the optimiser from the gradients of the mean loss over the shards."""
        gradients, measures = self._gradients(batch, seed)
        divergence.require_loss(self.finite, measures)
        self.optimizer.step(gradients)
        if self.average is not None:
            self.average.update()
        return measures

    def _gradients(self, batch: Batch, seed: int) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return what ``loss_gradients`` does; the gradients are good until the next call."""
        extras, train = batch.extras.there(), self.config.train

        def gradients(clips_NCTHW: Tensor, labels_N: Tensor, *more: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
            """Return them for tensors that change from step to step, for a graph to copy."""
            return loss_gradients(
                self.network,
                self.optimizer.parameters,
                clips_NCTHW,
                labels_N,
                self.config.clip,
                extras=Extras(**dict(zip(extras, more, strict=True))),
                shards=train.batch.shards,
                seed=seed if self.graphs is None else None,
                precision=self.config.precision,
                label_smoothing=train.label_smoothing,
                class_weights_K=self.class_weights_K,
                world=self.world,
            )

        tensors = (batch.clips_NCTHW, batch.labels_N, *extras.values())
        if self.graphs is None:
            return gradients(*tensors)
        with seed_all(key(seed, 0)):  # as the first shard has it
            # One for each size of crops, which may grow over the epochs.
            recorded, measures = self.graphs.call(batch.clips_NCTHW.shape, gradients, tensors)
        return recorded, {name: value.clone() for name, value in measures.items()}  # which outlive the next call

    def steps(self) -> int:
        return steps_per_epoch(len(self.videos), self.config.train.batch)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        return training_batches(self.videos, self.config, self.config.train, epoch, first_step, world=self.world)

    def end_epoch(self, epoch: int, sums: dict[str, Tensor], times: dict[str, float]) -> None:
        """Validate where it is due, write the epoch's metrics, and warn of a loss that stays high."""
        train, measures = self.config.train, {}
        if epoch % train.validate_every == 0 or epoch == self.epochs:
            measures = validate(self.trained, self.validation, self.config, train.augment, self.device, self.world)
        divergence.require_validation(measures, epoch)
        measures |= {"lr": self.optimizer.lr}

        def write() -> None:
            self.log.write(self.name, epoch, self.epochs, sums, times, measures)
            if warning := divergence.high_loss_warning(self.name, epoch, sums, self.lower_rate):
                warnings.warn(warning, RuntimeWarning, stacklevel=2)

        self.world.first_does(write)

    def tensors(self) -> dict[str, Tensor]:
        """Return what the next step depends on, and the moving average."""
        tensors = super().tensors()
        if self.average is not None:
            tensors |= {AVERAGE + name: tensor for name, tensor in self.average.network.state_dict().items()}
        return tensors

    def state(self) -> dict[str, Any]:
        """Return the optimiser's settings, and how many steps the moving average has taken in."""
        return super().state() | ({} if self.average is None else {"average_steps": self.average.steps})

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from what tensors() and state() returned."""
        super().restore(tensors, state)
        if self.average is not None:
            self.average.network.load_state_dict(with_prefix(tensors, AVERAGE))
            self.average.steps = state["average_steps"]
