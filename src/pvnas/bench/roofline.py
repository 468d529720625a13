"""Measures a piece of work, in variants that take turns in processes of their own: seconds, memory, MACs and bytes
beside what the machine can do at the most."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pvnas.errors import UserError
from pvnas.fast.kernels.cpp_library import watched

MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
COPIED_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
ROUNDS = 5


class Work(NamedTuple):
    """What a piece of work asks of the machine."""

    macs: int
    """Multiply-accumulates of matrix products and convolutions, forward and backward."""
    bytes: int
    """Bytes that its kernels read and write, each as if nothing stayed in a cache."""


class Machine(NamedTuple):
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
    copied = torch.empty(COPIED_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(copied)
    matrix = median(timed(lambda: a @ b, device) for _ in range(ROUNDS))
    copy = median(timed(lambda: target.copy_(copied), device) for _ in range(ROUNDS))
    return Machine(side**3 / matrix, 2 * copied.nbytes / copy)


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
        results = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket not in _RESERVING:
            self.add((args, kwargs, results))
        return results

    def add(self, tensors: Any) -> None:
        """Add the bytes of all tensors in here, as often as each is."""
        self.bytes += sum(x.nbytes for x in tree_leaves(tensors) if isinstance(x, Tensor))

    def add_each_once(self, tensors: Any) -> None:
        """Add the bytes of what a kernel of our own takes, which may be among its arguments twice."""
        self.add(list({(x.data_ptr(), x.shape): x for x in tree_leaves(tensors) if isinstance(x, Tensor)}.values()))


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

    with patch.object(JITFunction, "run", shown):
        yield


WARM_UP = 2


def measure_variants(
    program: str | Path, variants: Sequence[str], settings: dict[str, Any], *, clips: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return what a program measures for each variant: the medians over the rounds.

    ``program``: a module, or a script's path, that ends in ``answer``. It is run with the settings as its argument, in
    a process of its own, so that the peak of memory is its own. Raises UserError where a variant does not get through.
    """
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for number in range(rounds):
        for variant in variants:
            runs[variant].append(_in_a_process(program, settings | {"variant": variant, "count": number == 0}))
    return {variant: _summary(of_variant, clips) for variant, of_variant in runs.items()}


def compare(fast: dict[str, Any], plain: dict[str, Any]) -> dict[str, float]:
    """Return how many times the clips/s, and what share of the memory."""
    return {
        "speedup": round(fast["clips_per_s"] / plain["clips_per_s"], 3),
        "memory_share": round(fast["peak_bytes"] / plain["peak_bytes"], 3),
    }


def measure_work(
    work: Callable[[], Any], count: Callable[[], Work] | None, device: torch.device, precision: str, *, repeats: int
) -> dict[str, Any]:
    """Measure in this process: seconds, peak memory and, where there is a count, that and the machine's limits."""
    for _ in range(WARM_UP):
        work()
    seconds = median(timed(work, device) for _ in range(repeats))
    measured: dict[str, Any] = {"seconds": seconds, "peak_bytes": _peak_bytes(device)}
    if count is not None:
        machine = measure_machine(device, torch.bfloat16 if precision == "bf16" else torch.float32)
        measured |= {"work": count(), "machine": machine}
    return measured


def answer(measure: Callable[..., dict[str, Any]]) -> None:
    """Print as JSON what ``measure`` returns for the settings on the command line: the end of a measuring program."""
    print(json.dumps(measure(**json.loads(sys.argv[1]))))


def _in_a_process(program: str | Path, settings: dict[str, Any]) -> dict[str, Any]:
    what_to_run = [str(program)] if isinstance(program, Path) else ["-m", program]
    command = [sys.executable, *what_to_run, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        what = f"{settings['variant']} does not get through ({why})"
        raise UserError(f"{what}; try another --clip, --batch or --width")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _summary(runs: list[dict[str, Any]], clips: int) -> dict[str, Any]:
    """Return the medians over the rounds, and what was counted in the first."""
    seconds = median(run["seconds"] for run in runs)
    work, machine = Work(*runs[0]["work"]), Machine(*runs[0]["machine"])
    least = machine.seconds_of(work)
    return {
        "seconds": round(seconds, 5),
        "clips_per_s": round(clips / seconds, 3),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "gmacs_per_clip": round(work.macs / clips / 1e9, 4),
        "bytes_per_clip": work.bytes // clips,
        "roofline": {
            "gmacs_per_s": round(machine.macs_per_s / 1e9, 2),
            "gigabytes_per_s": round(machine.bytes_per_s / 1e9, 2),
            "least_seconds": round(least, 5),
            "share": round(least / seconds, 4),
        },
    }


def _peak_bytes(device: torch.device) -> int:
    """Return the largest memory so far: the GPU's, or this whole process's, interpreter included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
