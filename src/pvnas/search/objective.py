"""The half-steps of the search: one-level (the paper's) and bi-level, first and second order.

Legend: w weights, a (alpha) architecture parameters, L the loss on a mini-batch.

Every function here sees gradients only through ``GradientOf``, so that the same lines run on the supernet and on the
hand-computed cases of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

FINITE_DIFFERENCE = 0.01  # epsilon = 0.01 / |gradient|, as in DARTS


class GradientOf(Protocol):
    """Gradients of the loss on a batch at the current (w, alpha), and measures of that pass.

    ``update_statistics``: whether this pass may move BN's running statistics; only the weight step may.
    """

    def __call__(
        self, parameters: Sequence[nn.Parameter], batch: Any, *, update_statistics: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]: ...


def alpha_gradient(gradient: GradientOf, alphas: Sequence[nn.Parameter], batch: Any) -> list[Tensor]:
    """Return dL/da at (w_{t-1}, a_{t-1}), with w taken as given.

    On a training batch this is the paper's one-level objective (section 3.2.2, algorithm 1); on a validation batch it
    is the first-order bi-level one (its equation 5 with xi = 0).
    """
    return gradient(alphas, batch, update_statistics=False)[0]


def alpha_gradient_second_order(
    gradient: GradientOf,
    weights: Sequence[nn.Parameter],
    alphas: Sequence[nn.Parameter],
    train_batch: Any,
    validation_batch: Any,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    velocity: Sequence[Tensor | None],
) -> list[Tensor]:
    """Return dL_val(w', a)/da - lr * d2L_train(w, a)/da dw . dL_val(w', a)/dw' (paper, equations 3 to 5).

    w' is w after one SGD step on the training batch; the product is the central finite difference
    (dL_train(w+, a)/da - dL_train(w-, a)/da) / 2 epsilon at w+- = w +- epsilon * dL_val/dw'. The weights end as they
    were.
    """
    saved = [w.detach().clone() for w in weights]
    steps, _ = gradient(weights, train_batch, update_statistics=False)
    with torch.no_grad():
        for w, step, v in zip(weights, steps, velocity, strict=True):
            step = step + weight_decay * w
            w.sub_(lr * (step if v is None else step + momentum * v))
    both, _ = gradient([*alphas, *weights], validation_batch, update_statistics=False)
    direct, direction = both[: len(alphas)], both[len(alphas) :]

    epsilon = FINITE_DIFFERENCE / torch.linalg.vector_norm(torch.stack([d.norm() for d in direction])).clamp_min(1e-12)
    _set(weights, saved, direction, epsilon)
    plus, _ = gradient(alphas, train_batch, update_statistics=False)
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


def weight_gradient(
    gradient: GradientOf, weights: Sequence[nn.Parameter], batch: Any
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return dL/dw at (w_{t-1}, a_t), the second half-step of algorithm 1, and the measures of this pass."""
    return gradient(weights, batch, update_statistics=True)


def joint_gradient(
    gradient: GradientOf, weights: Sequence[nn.Parameter], alphas: Sequence[nn.Parameter], batch: Any
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """Return dL/dw and dL/da at (w_{t-1}, a_{t-1}) from one backward pass: half the cost, not the paper's algorithm."""
    both, measures = gradient([*weights, *alphas], batch, update_statistics=True)
    return both[: len(weights)], both[len(weights) :], measures
