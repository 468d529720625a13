"""The machine: where the networks run, how many threads, and what to write down about both."""

import ctypes
import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvnas.errors import UserError
from pvnas.version import __version__

# glibc's names for mallopt (malloc.h). Blocks above the second are mapped and given back one by one in any case.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK = 32 << 20


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of ``auto``, ``cpu`` or ``cuda``. Raises UserError where there is no such device.

    Of several processes on a host each has the GPU of its number, which becomes the current one.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"device {name!r}: there are auto, cpu and cuda; type --device auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: torch sees no GPU here; type --device cpu, or install torch's CUDA build")
    if name == "cuda" and local_rank and torch.cuda.device_count() > 1:  # else it is shown a GPU of its own
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"{torch.cuda.device_count()} GPUs are seen on a host with {local_rank + 1} processes or more; "
                "start one process for each"
            )
        torch.cuda.set_device(local_rank)
    return torch.device(name)


def set_threads(n: int) -> int:
    """Let torch use ``n`` CPU threads (0: one per core that this process may use) and return their number."""
    if n < 0:
        raise UserError(f"threads {n}: must be 0 (one per core) or more")
    threads = n or usable_cores()
    torch.set_num_threads(threads)
    return threads


def keep_freed_memory() -> bool:
    """Let the C library keep what tensors give back for those of the next step; return whether it could be told to.

    Otherwise it hands the end of its heap to the system and asks for it again many times a step, each page of which is
    a fault. The peak of memory stays what it is. Only glibc has this; whoever has set MALLOC_... keeps their setting.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def copied_to(device: torch.device, tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return tensors on a device, themselves where they are there.

    Out of page-locked memory onto a GPU the host does not wait, nor does the GPU: it copies beside its work.
    """
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    work, copies = torch.cuda.current_stream(device), _copies(device)
    with torch.cuda.stream(copies):
        copied = [tensor if tensor.is_cuda else tensor.to(device, non_blocking=True) for tensor in tensors]
    work.wait_stream(copies)
    for tensor in copied:
        tensor.record_stream(work)  # else its memory could be given to a later copy while work still reads it
    return copied


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream that copies to a GPU wait in."""
    return torch.cuda.Stream(device)


def is_want_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the GPU or this machine has no more memory to give."""
    # PyTorch has an exception of its own for the GPU, for a CPU only these words.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Return the processor, cores, threads, GPU and versions as plain JSON data; nothing that names the machine."""
    gpu = torch.cuda.is_available()
    return {
        "cpu": _cpu_model(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "gpu_memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if gpu else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "pvnas": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{name: version(name) for name in ("numpy", "av", "safetensors")},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
