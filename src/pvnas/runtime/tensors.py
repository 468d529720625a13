"""Small things done to lists and dictionaries of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


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


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
