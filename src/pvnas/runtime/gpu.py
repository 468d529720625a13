"""What keeps a GPU from waiting for the host: a step's numbers are asked of late, its kernels recorded and replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class FiniteCheck:
    """Raises FloatingPointError where a step's numbers are infinite, none, or a loss beyond all bounds.

    On a CPU at once, before a step is made of them. On a GPU the host would have to wait for all work before it: there
    the answer is copied beside the work and read when the next step asks, and ``settle`` reads what is left before
    anything is written. The step is made then, but no checkpoint of it.
    """

    def __init__(self, device: torch.device) -> None:
        self.step = "this step"
        """Which step asks, as an error will say it."""
        self._late = device.type == "cuda"
        self._asked: list[tuple[str, _Question, Tensor, torch.cuda.Event]] = []

    def require(self, what: str, tensors: Sequence[Tensor]) -> None:
        """Ask of all tensors at once; ``what`` they are is what the error will say."""
        self._require(_Question(what), torch.stack([torch.isfinite(t).all() for t in tensors]).all())

    def require_below(self, what: str, number: Tensor, most: float, expected: str) -> None:
        """Ask of a number, shape (), that it is one and at most ``most``; the error says what is ``expected``."""
        self._require(_Question(what, most, expected), number)

    def _require(self, question: _Question, answer: Tensor) -> None:
        if not self._late:
            question.judge(answer, self.step)
            return
        if any(step != self.step for step, *_ in self._asked):
            self.settle()
        self._ask(question, answer)

    def settle(self) -> None:
        """Raise for what was asked before. Waits for the work before the last question, not for the work after it."""
        asked, self._asked = self._asked, []
        for step, question, answer, arrived in asked:
            arrived.synchronize()
            question.judge(answer, step)

    def _ask(self, question: _Question, answer: Tensor) -> None:
        copied = torch.empty((), dtype=answer.dtype, pin_memory=True)
        copied.copy_(answer, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._asked.append((self.step, question, copied, arrived))


@dataclass(frozen=True)
class _Question:
    """What is asked of a number, or of an answer that is already yes or no."""

    what: str
    most: float = math.inf
    expected: str = ""

    def judge(self, answer: Tensor, step: str) -> None:
        """Raise FloatingPointError for the wrong answer."""
        value = float(answer)
        if not math.isfinite(value) or (answer.dtype == torch.bool and not value):
            raise FloatingPointError(f"{self.what} is not a number in {step}")
        if value > self.most:
            raise FloatingPointError(f"{self.what} is {value:.3g} in {step}, where {self.expected}")


class _Recorded(NamedTuple):
    """What a function does at one size of its inputs."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class Graphs:
    """CUDA graphs of functions of tensors, each called once as it is, recorded at its second call and replayed after.

    A function must do the same on every call: no look at a number, and whatever else it reads or changes, parameters
    above all, stays where it lies. What it draws of the GPU's global generator goes on from where that is at the call,
    but it may not seed it. Other sizes than those recorded are called as they are.
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
        return _Recorded(graph, inputs, tree_map_only(Tensor, Tensor.detach, outputs))
