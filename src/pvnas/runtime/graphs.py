"""CUDA graphs: a step's kernels, recorded once and replayed, so that the GPU does not wait for the host's next call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


class _Recorded(NamedTuple):
    """What a function does at one size of its inputs."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class Graphs:
    """Functions of tensors on a GPU, each called once as it is, recorded at its second call and replayed from then on.

    A function must do the same on every call: no draw of random numbers, no look at a number, and whatever else it
    reads or changes, parameters above all, stays where it lies. Other sizes than those recorded are called as they are.
    """

    def __init__(self) -> None:
        self._called: set[Hashable] = set()
        self._recorded: dict[Hashable, _Recorded] = {}
        self._pool: Any = None

    def call(self, name: Hashable, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        """Return ``function(*tensors)``: tensors in lists, tuples and dictionaries, good until the next call."""
        sizes = tuple(tensor.shape for tensor in tensors)
        recorded = self._recorded.get(name)
        if recorded is None and (name, sizes) in self._called:
            recorded = self._recorded[name] = self._record(function, tensors)
        if recorded is None or tuple(tensor.shape for tensor in recorded.inputs) != sizes:
            self._called.add((name, sizes))
            return function(*tensors)
        for recorded_input, tensor in zip(recorded.inputs, tensors, strict=True):
            recorded_input.copy_(tensor, non_blocking=True)
        recorded.graph.replay()
        return recorded.outputs

    def _record(self, function: Callable[..., Any], tensors: Sequence[Tensor]) -> _Recorded:
        if self._pool is None:
            # One for all graphs: what one needs no more the next one may take. They are replayed in the order in which
            # they were recorded, or it is not needed in between.
            self._pool = torch.cuda.graph_pool_handle()
        inputs = [tensor.clone() for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        # The threads of a loader may go on asking for page-locked memory.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = function(*inputs)
        return _Recorded(graph, inputs, tree_map(_detached, outputs))


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
