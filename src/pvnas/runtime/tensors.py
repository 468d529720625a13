"""Small things done to lists and dictionaries of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def apply_gradients(optimizer: Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """Make one step of the optimiser with these gradients and leave no gradient behind."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@contextmanager
def frozen(parameters: Sequence[nn.Parameter], *, frozen: bool = True) -> Iterator[None]:
    """Let these parameters ask for no gradient: autograd then neither keeps nor computes what only they need.

    ``frozen`` False: within, frozen parameters ask for theirs.
    """
    for parameter in parameters:
        parameter.requires_grad_(not frozen)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(frozen)


def clip_gradients(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Scale the gradients in place so that their common norm is at most ``max_norm``; 0 leaves them alone."""
    if max_norm > 0:
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
