"""One step of the search: algorithm 1 of the paper, and its variants.

Legend: w the supernet's weights, alpha (a) its architecture parameters, L the loss on a mini-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pvnas.config import ClipConfig, SearchConfig
from pvnas.data.clips.loader import Batch, Extras
from pvnas.fast.accelerate import shared_passes
from pvnas.runtime.distributed import ALONE, World
from pvnas.runtime.gpu import FiniteCheck, Graphs
from pvnas.runtime.optimizers import ScheduledOptimizer
from pvnas.search.pressure import Pressure
from pvnas.search.relaxation import relaxation_at, temperature_at
from pvnas.space.supernet import Relaxation, Supernet, frozen, frozen_statistics, relaxed
from pvnas.training.divergence import require_loss
from pvnas.training.step import loss_gradients

GradientOf = Callable[..., tuple[list[Tensor], dict[str, Tensor]]]  # as SupernetGradient
FINITE_DIFFERENCE = 0.01  # epsilon = 0.01 / |gradient|, as in DARTS


def second_order_gradient(
    gradient: GradientOf, alphas: Sequence[nn.Parameter], sgd: Optimizer, validation_batch: Any, train_batch: Any
) -> list[Tensor]:
    """Return dL_val(w', a)/da - lr * d2L_train(w, a)/da dw . dL_val(w', a)/dw' (paper, equations 3 to 5).

    w' is w after one step of ``sgd``, with its momentum so far, on the training batch; the product is the central
    finite difference (dL_train(w+, a)/da - dL_train(w-, a)/da) / 2 epsilon at w+- = w +- epsilon * dL_val/dw'. The
    weights and the optimiser end as they were.
    """
    weights = [w for group in sgd.param_groups for w in group["params"]]
    decays = [group["weight_decay"] for group in sgd.param_groups for _ in group["params"]]
    lr, momentum = sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"]
    saved = [w.detach().clone() for w in weights]
    steps, _ = gradient(weights, train_batch, update_statistics=False)
    with torch.no_grad():
        for w, decay, step in zip(weights, decays, steps, strict=True):
            step = step + decay * w
            velocity = sgd.state.get(w, {}).get("momentum_buffer")
            w.sub_(lr * (step if velocity is None else step + momentum * velocity))
    both, _ = gradient([*alphas, *weights], validation_batch, update_statistics=False)
    direct, direction = both[: len(alphas)], both[len(alphas) :]

    epsilon = FINITE_DIFFERENCE / torch.linalg.vector_norm(torch.stack([d.norm() for d in direction])).clamp_min(1e-12)
    _set(weights, saved, direction, epsilon)
    plus = [g.clone() for g in gradient(alphas, train_batch, update_statistics=False)[0]]
    _set(weights, saved, direction, -epsilon)
    minus, _ = gradient(alphas, train_batch, update_statistics=False)
    with torch.no_grad():
        for w, value in zip(weights, saved, strict=True):
            w.copy_(value)
    return [d - lr * (p - m) / (2 * epsilon) for d, p, m in zip(direct, plus, minus, strict=True)]


@torch.no_grad()
def _set(weights: Sequence[nn.Parameter], saved: list[Tensor], direction: list[Tensor], step: Tensor) -> None:
    """Set w to saved + step * direction."""
    for w, value, d in zip(weights, saved, direction, strict=True):
        w.copy_(value + step * d)


class StepBatches(NamedTuple):
    """The mini-batches of one search step; the same one where the half-steps share it."""

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
    clip: ClipConfig,
    *,
    epoch: float = 0.0,
    precision: str = "fp32",
    seed: int = 0,
    graphs: Graphs | None = None,
    finite: FiniteCheck | None = None,
    class_weights_K: Tensor | None = None,
    world: World = ALONE,
    pressure: Pressure | None = None,
) -> dict[str, Tensor]:
    """Move alpha, then w, by one step each; return sums over the clips of w's pass (training.step.class_sums).

    ``epoch``: how many there were so far (a fraction within an epoch); ``seed``: of whatever is drawn; ``graphs``: what
    records the passes on a GPU; ``class_weights_K``, ``world``: see training.step.loss_gradients; ``pressure``: of a
    budget, on alpha (not the paper's). Raises FloatingPointError before a step of a diverged search (on a GPU later,
    see ``FiniteCheck``).
    """
    w, alpha = weights.parameters, alphas.parameters
    moves_alpha = epoch >= config.alphas.start_epoch  # before it w alone is trained: not the paper's algorithm
    joint, second_order = moves_alpha and config.half_steps == "joint", config.objective == "bilevel-second"
    same_clips = batches.alpha is batches.weight and config.batch.shards == 1
    shares = same_clips and moves_alpha and not joint and not second_order
    gradient = SupernetGradient(
        network, (*w, *alpha), clip, config.batch.shards, precision, seed, graphs, class_weights_K,
        relaxation=relaxation_at(network, config, epoch), shares=shares, world=world,
    )  # fmt: skip
    # Dropped operations teach w to do without any one of them; alpha, which is to compare them, sees them all.
    with_drops = replace(gradient, relaxation=relaxation_at(network, config, epoch, drop_seed=seed))
    finite = finite or FiniteCheck(w[0].device)
    with shared_passes(network) if shares else nullcontext():
        # (1) alpha_t from dL/dalpha at (w_{t-1}, alpha_{t-1}): L is the training loss in the paper's one-level search
        # (equation 6) and the validation loss in a bi-level one of first order (equation 5 with xi = 0)
        if moves_alpha:
            if joint:  # dL/dw there, too, from one backward pass: half the cost, not the paper's algorithm
                both, measures = with_drops([*w, *alpha], batches.weight, update_statistics=True)
                weight_gradients, alpha_gradients = both[: len(w)], both[len(w) :]
            elif second_order:
                alpha_gradients = second_order_gradient(gradient, alpha, weights.optimizer, *batches)
            else:
                alpha_gradients, _ = gradient(alpha, batches.alpha, update_statistics=False)
            if pressure is not None:
                temperature = temperature_at(config.alphas, epoch, config.epochs)
                alpha_gradients = pressure.added_to(alpha_gradients, network.architecture_parameters(), temperature)
            finite.require("the gradient of alpha", alpha_gradients)
            alphas.step(alpha_gradients)
        # (2) w_t from dL/dw at (w_{t-1}, alpha_t)
        if not joint:
            weight_gradients, measures = with_drops(w, batches.weight, update_statistics=True)
    require_loss(finite, measures)
    weights.step(weight_gradients)
    return measures


@dataclass(frozen=True)
class SupernetGradient:
    """Gradients of the loss on a batch at the current (w, alpha), and measures of that pass.

    ``update_statistics``: whether this pass may move BN's running statistics; only the weight step may. The gradients
    are good until the next call for the same parameters. ``shares``: whether the passes share work, so that what is
    recorded of one fits no pass that stands alone.
    """

    network: Supernet
    all_parameters: Sequence[nn.Parameter]
    clip: ClipConfig
    shards: int
    precision: str
    seed: int
    graphs: Graphs | None
    class_weights_K: Tensor | None = None
    relaxation: Relaxation | None = None
    shares: bool = False
    world: World = ALONE

    def __call__(
        self, parameters: Sequence[nn.Parameter], batch: Batch, *, update_statistics: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        wanted = {id(parameter) for parameter in parameters}
        others = [parameter for parameter in self.all_parameters if id(parameter) not in wanted]
        seed = self.seed if self.graphs is None else None  # a graph draws nothing

        extras = batch.extras.there()

        def gradients(clips_NCTHW: Tensor, labels_N: Tensor, *more: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
            """Return what the call does; all that changes from step to step is an argument, for a graph to copy."""
            extra, mixing = more[: len(extras)], more[len(extras) :]
            relaxation = Relaxation(mixing[0], mixing[1:]) if mixing else None
            statistics = nullcontext() if update_statistics else frozen_statistics(self.network)
            with frozen(others), statistics, relaxed(self.network, relaxation):
                return loss_gradients(
                    self.network,
                    parameters,
                    clips_NCTHW,
                    labels_N,
                    self.clip,
                    extras=Extras(**dict(zip(extras, extra, strict=True))),
                    shards=self.shards,
                    seed=seed,
                    precision=self.precision,
                    class_weights_K=self.class_weights_K,
                    world=self.world,
                )

        mixing = () if self.relaxation is None else (self.relaxation.temperature, *self.relaxation.factors)
        tensors = (batch.clips_NCTHW, batch.labels_N, *extras.values(), *mixing)
        if self.graphs is None:
            return gradients(*tensors)
        name = (len(parameters), id(parameters[0]), update_statistics, self.shares)
        recorded, measures = self.graphs.call(name, gradients, tensors)
        return recorded, {key: value.clone() for key, value in measures.items()}  # which outlive the next call
