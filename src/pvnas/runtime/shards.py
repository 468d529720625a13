"""Logical shards: what the paper does on 32 GPUs, with the same numbers on any number of processes.

Each shard is a micro-batch with its own BN statistics and its own random stream. Gradients, losses and updates of the
running statistics are averaged over the shards in the fixed order of a binary tree, so that the bits of a step do not
depend on who computes which shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pvnas.runtime.random import key, seed_all


class TreeSum:
    """Sums lists of tensors in the order of a binary tree over their index, holding log2(n) partial sums."""

    def __init__(self) -> None:
        self._partial: list[tuple[int, list[Tensor]]] = []  # (level, sums), levels falling

    def add(self, tensors: list[Tensor]) -> None:
        """Add the next list."""
        level = 0
        while self._partial and self._partial[-1][0] == level:
            tensors = _added(self._partial.pop()[1], tensors)
            level += 1
        self._partial.append((level, tensors))

    def total(self) -> list[Tensor]:
        """Return the sums; the incomplete right side of the tree is joined from its end."""
        total = self._partial[-1][1]
        for _, tensors in reversed(self._partial[:-1]):
            total = _added(tensors, total)
        return total


def _added(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(left, right, strict=True)]


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances of all BN layers."""
    return [b for b in network.buffers() if b.is_floating_point()]


def shard_gradients(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    shards: int,
    clips_NCTHW: Tensor,
    labels_N: Tensor,
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]],
    random_key: int,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the gradients of the mean loss over the shards for ``parameters``, and the measures summed over them.

    ``loss_of(clips, labels)`` returns a shard's mean loss and measures to sum. BN's running statistics move once, by
    the mean over the shards of what each would have made of them.
    """
    statistics = running_statistics(network) if shards > 1 else []
    before = [b.clone() for b in statistics]
    tree = TreeSum()
    names: list[str] = []
    for shard, (clips, labels) in enumerate(zip(clips_NCTHW.chunk(shards), labels_N.chunk(shards), strict=True)):
        _restore(statistics, before)
        with seed_all(key(random_key, shard)):
            loss, measures = loss_of(clips, labels)
        # As their parameters lie: norms and sums of a tensor take its elements in the order of its memory, so that the
        # bits of what follows would hang on the layer that happened to make it.
        gradients = [gradient.contiguous() for gradient in torch.autograd.grad(loss, list(parameters))]
        names = list(measures)
        tree.add([*gradients, *(b.clone() for b in statistics), *measures.values()])
    total = tree.total()
    n = len(parameters)
    _restore(statistics, [b / shards for b in total[n : n + len(statistics)]])
    gradients = [g / shards for g in total[:n]] if shards > 1 else total[:n]
    return gradients, dict(zip(names, total[n + len(statistics) :], strict=True))


def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
