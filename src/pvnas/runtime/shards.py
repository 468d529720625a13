"""Sums over the logical shards of a batch, in an order that does not hang on who computes which shard.

A shard ("ghost batch") is a part of the global batch with its own batch-norm statistics and its own random stream: what
the paper has on each of its 32 GPUs, with the same numbers on any number of processes.
"""

from __future__ import annotations

from torch import Tensor


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
