"""What a machine can do at the most, and what a piece of work asks of it: matrix rate, bandwidth, MACs and bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pvnas.fast.kernels.cpp_library import watched

MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
COPIED_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
ROUNDS = 5


@dataclass(frozen=True)
class Work:
    """What a piece of work asks of the machine."""

    macs: int
    """Multiply-accumulates of matrix products and convolutions, forward and backward."""
    bytes: int
    """Bytes that its kernels read and write, each as if nothing stayed in a cache."""


@dataclass(frozen=True)
class Machine:
    """The two limits of a roofline (Williams, Waterman, Patterson, 2009), measured."""

    macs_per_s: float
    bytes_per_s: float

    def seconds_of(self, work: Work) -> float:
        """Return the least time that the work could take: the longer of computing and moving."""
        return max(work.macs / self.macs_per_s, work.bytes / self.bytes_per_s)


def measure_machine(device: torch.device, dtype: torch.dtype = torch.float32) -> Machine:
    """Return the rate of a large matrix product in ``dtype`` and of a large copy, each the median of some rounds."""
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(COPIED_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    matrix = median(timed(lambda: a @ b, device) for _ in range(ROUNDS))
    copy = median(timed(lambda: target.copy_(source), device) for _ in range(ROUNDS))
    return Machine(side**3 / matrix, 2 * source.nbytes / copy)


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of one call, the GPU's included."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_macs(forward: Callable[[], Any]) -> int:
    """Run a forward pass once and return its multiply-accumulates.

    Forward passes alone: PyTorch's counter takes the weight gradient of a grouped convolution for that of a dense one.
    """
    # Here, since it brings along Triton where that is there, and with it 86 MB which would count as the search's.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        forward()
    return int(flops.get_total_flops()) // 2


def count_bytes(step: Callable[[], Any]) -> int:
    """Run a step once and return the bytes that its kernels read and wrote."""
    with _ByteCounter() as moved, _triton_launches(moved.add_each_once), watched(moved.add):
        step()
    return moved.bytes


_RESERVING = {
    getattr(torch.ops.aten, name) for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
}
"""Operations that reserve memory and move nothing."""


class _ByteCounter(TorchDispatchMode):
    """Adds up the bytes of all tensors that kernels take and give; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket not in _RESERVING:
            self.add((args, kwargs, found))
        return found

    def add(self, tensors: Any) -> None:
        """Add the bytes of all tensors in here, as often as each is."""
        self.bytes += sum(x.nbytes for x in tree_leaves(tensors) if isinstance(x, Tensor))

    def add_each_once(self, tensors: Any) -> None:
        """Add the bytes of what a kernel of our own takes: some arguments stand in for what it does not read."""
        found = {(x.data_ptr(), x.shape): x for x in tree_leaves(tensors) if isinstance(x, Tensor)}
        self.add(list(found.values()))


@contextmanager
def _triton_launches(seen: Callable[[Any], None]) -> Iterator[None]:
    """Show the arguments of each Triton kernel, which PyTorch's dispatcher does not see."""
    if find_spec("triton") is None:
        yield
        return
    from triton.runtime.jit import JITFunction

    run = JITFunction.run

    def shown(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen(args)
        return run(self, *args, **kwargs)

    JITFunction.run = shown
    try:
        yield
    finally:
        JITFunction.run = run
