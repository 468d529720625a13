"""Whether the numbers of a step are finite, asked without keeping a GPU waiting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class FiniteCheck:
    """Raises FloatingPointError where a step's numbers are infinite or none.

    On a CPU at once, before a step is made of them. On a GPU the host would have to wait for all work before it: there
    the answer is copied beside the work and read when the next step asks, and ``settle`` reads what is left before
    anything is written. The step is made then, but no checkpoint of it.
    """

    def __init__(self, device: torch.device) -> None:
        self.step = "this step"
        """Which step asks, as an error will say it."""
        self._late = device.type == "cuda"
        self._asked: list[tuple[str, str, Tensor, torch.cuda.Event]] = []

    def require(self, what: str, tensors: Sequence[Tensor]) -> None:
        """Ask of all tensors at once; ``what`` they are is what the error will say."""
        finite = torch.stack([torch.isfinite(t).all() for t in tensors]).all()
        if not self._late:
            _answer(what, self.step, finite)
            return
        if any(step != self.step for step, *_ in self._asked):
            self.settle()
        self._ask(what, finite)

    def settle(self) -> None:
        """Raise for what was asked before. Waits for the work before the last question, not for the work after it."""
        asked, self._asked = self._asked, []
        for step, what, answer, arrived in asked:
            arrived.synchronize()
            _answer(what, step, answer)

    def _ask(self, what: str, finite: Tensor) -> None:
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_(finite, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._asked.append((self.step, what, answer, arrived))


def _answer(what: str, step: str, finite: Tensor) -> None:
    if not bool(finite):
        raise FloatingPointError(f"{what} is not a number in {step}")
