"""One step of the search: algorithm 1 of the paper, and its variants.

Legend: w the supernet's weights, alpha its architecture parameters, L the loss on a mini-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pvnas.config import SearchConfig
from pvnas.data.clips.loader import Batch
from pvnas.fast.accelerate import shared_passes
from pvnas.runtime.finite import FiniteCheck
from pvnas.runtime.graphs import Graphs
from pvnas.runtime.optimizers import ScheduledOptimizer
from pvnas.runtime.tensors import frozen
from pvnas.search.objective import joint_gradient, second_order_gradient
from pvnas.space.supernet import Supernet, frozen_statistics
from pvnas.training.step import loss_gradients


class StepBatches(NamedTuple):
    """The mini-batches of one search step; the same one where the half-steps share it (D2)."""

    alpha: Batch
    weight: Batch

    @property
    def paths(self) -> tuple[str, ...]:
        """The videos of the weight step."""
        return self.weight.paths

    def to(self, device: torch.device) -> StepBatches:
        """Return the batches on a device, brought there once where they are the same."""
        alpha = self.alpha.to(device)
        return StepBatches(alpha, alpha if self.weight is self.alpha else self.weight.to(device))


def search_step(
    network: Supernet,
    weights: ScheduledOptimizer,
    alphas: ScheduledOptimizer,
    batches: StepBatches,
    config: SearchConfig,
    *,
    precision: str = "fp32",
    seed: int = 0,
    graphs: Graphs | None = None,
    finite: FiniteCheck | None = None,
) -> dict[str, Tensor]:
    """Move alpha, then w, by one step each; return sums over the clips of w's pass (training.metrics.class_sums).

    ``seed``: of what the network draws, if anything; ``graphs``: what records the passes on a GPU. Raises
    FloatingPointError before a step that would not be made of finite numbers (on a GPU later, see ``FiniteCheck``).
    """
    w, alpha = weights.parameters, alphas.parameters
    gradient = SupernetGradient(network, (*w, *alpha), config.batch.shards, precision, seed, graphs)
    finite = finite or FiniteCheck(w[0].device)
    joint, second_order = config.half_steps == "joint", config.objective == "bilevel-second"
    same_clips = batches.alpha is batches.weight and config.batch.shards == 1
    with shared_passes(network) if same_clips and not joint and not second_order else nullcontext():
        # (1) alpha_t from dL/dalpha at (w_{t-1}, alpha_{t-1}): L is the training loss in the paper's one-level search
        # (equation 6) and the validation loss in a bi-level one of first order (equation 5 with xi = 0)
        if joint:
            alpha_gradients, weight_gradients, measures = joint_gradient(gradient, alpha, w, batches.weight)
        elif second_order:
            alpha_gradients = second_order_gradient(gradient, alpha, weights.optimizer, *batches)
        else:
            alpha_gradients, _ = gradient(alpha, batches.alpha, update_statistics=False)
        finite.require("the gradient of alpha", alpha_gradients)
        alphas.step(alpha_gradients)
        # (2) w_t from dL/dw at (w_{t-1}, alpha_t)
        if not joint:
            weight_gradients, measures = gradient(w, batches.weight, update_statistics=True)
    finite.require("the loss", [measures["loss"]])
    weights.step(weight_gradients)
    return measures


@dataclass(frozen=True)
class SupernetGradient:
    """The gradients of the loss on a supernet, as search.objective.GradientOf says."""

    network: Supernet
    all_parameters: Sequence[nn.Parameter]
    shards: int
    precision: str
    seed: int
    graphs: Graphs | None

    def __call__(
        self, parameters: Sequence[nn.Parameter], batch: Batch, *, update_statistics: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        wanted = {id(parameter) for parameter in parameters}
        others = [parameter for parameter in self.all_parameters if id(parameter) not in wanted]
        seed = self.seed if self.graphs is None else None  # a graph draws nothing

        def gradients(clips_NCTHW: Tensor, labels_N: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
            with frozen(others), nullcontext() if update_statistics else frozen_statistics(self.network):
                return loss_gradients(
                    self.network,
                    parameters,
                    clips_NCTHW,
                    labels_N,
                    shards=self.shards,
                    seed=seed,
                    precision=self.precision,
                )

        if self.graphs is None:
            return gradients(batch.clips_NCTHW, batch.labels_N)
        name = (len(parameters), id(parameters[0]), update_statistics)
        recorded, measures = self.graphs.call(name, gradients, (batch.clips_NCTHW, batch.labels_N))
        return recorded, {key: value.clone() for key, value in measures.items()}  # which outlive the next call
