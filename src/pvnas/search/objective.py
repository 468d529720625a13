"""What stands in the place of the first half-step of algorithm 1: both at once, and the bi-level search's second order.

Legend: w weights, a (alpha) architecture parameters, L the loss on a mini-batch.

Every function here sees gradients only through ``GradientOf``, so that the same lines run on the supernet and on the
hand-computed cases of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

FINITE_DIFFERENCE = 0.01  # epsilon = 0.01 / |gradient|, as in DARTS


class GradientOf(Protocol):
    """Gradients of the loss on a batch at the current (w, a), and measures of that pass.

    ``update_statistics``: whether this pass may move BN's running statistics; only the weight step may. The gradients
    are good until the next call for the same parameters.
    """

    def __call__(
        self, parameters: Sequence[nn.Parameter], batch: Any, *, update_statistics: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]: ...


def joint_gradient(
    gradient: GradientOf, alphas: Sequence[nn.Parameter], weights: Sequence[nn.Parameter], batch: Any
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """Return dL/da and dL/dw at (w_{t-1}, a_{t-1}) from one backward pass: half the cost, not the paper's algorithm."""
    both, measures = gradient([*weights, *alphas], batch, update_statistics=True)
    return both[len(weights) :], both[: len(weights)], measures


def second_order_gradient(
    gradient: GradientOf, alphas: Sequence[nn.Parameter], sgd: Optimizer, validation_batch: Any, train_batch: Any
) -> list[Tensor]:
    """Return dL_val(w', a)/da - lr * d2L_train(w, a)/da dw . dL_val(w', a)/dw' (paper, equations 3 to 5).

    w' is w after one step of ``sgd``, with its momentum so far, on the training batch; the product is the central
    finite difference (dL_train(w+, a)/da - dL_train(w-, a)/da) / 2 epsilon at w+- = w +- epsilon * dL_val/dw'. The
    weights and the optimiser end as they were.
    """
    group = sgd.param_groups[0]
    weights, lr = group["params"], group["lr"]
    saved = [w.detach().clone() for w in weights]
    steps, _ = gradient(weights, train_batch, update_statistics=False)
    with torch.no_grad():
        for w, step in zip(weights, steps, strict=True):
            step = step + group["weight_decay"] * w
            velocity = sgd.state.get(w, {}).get("momentum_buffer")
            w.sub_(lr * (step if velocity is None else step + group["momentum"] * velocity))
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
