"""Sums over the logical shards of a batch, in an order that no number of processes changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from pvnas.runtime.distributed import ALONE, World

# PyTorch 2.13 has given it the new name.
all_gather: Any = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


@dataclass(frozen=True)
class _Node:
    """The sums over the shards ``index * 2**level`` to ``(index + 1) * 2**level``, as far as there are any."""

    level: int
    index: int
    tensors: list[Tensor]


class TreeSum:
    """Sums lists of tensors, one of each logical shard, in the order of a binary tree over the shards' numbers.

    No bit of a sum depends on which process adds which shards. Holds log2(n) partial sums.
    """

    def __init__(self, world: World = ALONE, first: int = 0) -> None:
        """``first``: the number of the first shard that this process adds. Where ``world`` is not strict, the sums
        between processes are made in whatever order the backend likes.
        """
        self._world, self._first, self._next = world, first, first
        self._nodes: list[_Node] = []

    def add(self, tensors: list[Tensor]) -> None:
        """Add the list of the next shard."""
        _push(self._nodes, _Node(0, self._next, tensors))
        self._next += 1

    def total(self) -> list[Tensor]:
        """Return the sums over the shards of all processes, in each of which there are as many."""
        if self._world.size == 1:
            return _joined(self._nodes)
        like = self._nodes[0].tensors
        totals: dict[torch.dtype, Iterator[Tensor]] = {}
        for dtype in dict.fromkeys(tensor.dtype for tensor in like):
            total = self._over_processes([_flat(node, dtype) for node in self._nodes])
            shapes = [tensor.shape for tensor in like if tensor.dtype == dtype]
            parts = total.split([shape.numel() for shape in shapes])
            totals[dtype] = iter([part.view(shape) for part, shape in zip(parts, shapes, strict=True)])
        return [next(totals[tensor.dtype]) for tensor in like]

    def _over_processes(self, nodes: list[_Node]) -> Tensor:
        """Return the sum of the flat tensors of all processes' nodes.

        Each process is sent its part of everybody's tensors, sums it, and sends the sum to all: as many bytes as a
        ring's all-reduce takes, in the order of the tree.
        """
        world = self._world
        if not world.strict:
            (total,) = _joined(nodes)
            world.call(dist.all_reduce, total)
            return total
        values = torch.stack([node.tensors[0] for node in nodes])
        length = values.shape[1]
        part = -(-length // world.size)
        values = F.pad(values, (0, part * world.size - length))
        sent = values.view(len(nodes), world.size, part).transpose(0, 1).contiguous()
        shards = self._next - self._first
        places = [place for rank in range(world.size) for place in _places(range(rank * shards, (rank + 1) * shards))]
        counts = [len(_places(range(rank * shards, (rank + 1) * shards))) for rank in range(world.size)]
        received = sent.new_empty(len(places), part)
        total = sent.new_empty(world.size * part)
        sizes = [count * part for count in counts]
        world.call(dist.all_to_all_single, received.view(-1), sent.view(-1), sizes, [len(nodes) * part] * world.size)
        (summed,) = _joined(_pushed(_Node(*place, [row]) for place, row in zip(places, received, strict=True)))
        world.call(all_gather, total, summed.contiguous())
        return total[:length]


def _places(shards: range) -> list[tuple[int, int]]:
    """Return level and index of the nodes that consecutive shards are summed to."""
    return [(node.level, node.index) for node in _pushed(_Node(0, shard, []) for shard in shards)]


def _pushed(nodes: Iterable[_Node]) -> list[_Node]:
    stack: list[_Node] = []
    for node in nodes:
        _push(stack, node)
    return stack


def _push(stack: list[_Node], node: _Node) -> None:
    """Put a node behind those before it, and sum each left half with the right half that completes it."""
    while stack and stack[-1].level == node.level and stack[-1].index % 2 == 0:
        node = _Node(node.level + 1, node.index // 2, _added(stack.pop().tensors, node.tensors))
    stack.append(node)


def _joined(nodes: list[_Node]) -> list[Tensor]:
    """Return the sum of nodes that complete no other; the right side of the tree is joined from its end."""
    total = nodes[-1].tensors
    for node in reversed(nodes[:-1]):
        total = _added(node.tensors, total)
    return total


def _added(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _flat(node: _Node, dtype: torch.dtype) -> _Node:
    """Return the node with its tensors of a type as one, of one side."""
    flat = torch.cat([tensor.reshape(-1) for tensor in node.tensors if tensor.dtype == dtype])
    return _Node(node.level, node.index, [flat])
