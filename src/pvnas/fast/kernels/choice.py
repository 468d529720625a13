"""Which set of kernels a tensor is computed by: C++ on a CPU and Triton on a GPU where they work, else PyTorch's.

A set works where it can be compiled and its self-test has passed, for this machine, library and type; both what passed
and what failed is kept on disk (``cpp_library.cache_folder``). With PVNAS_KERNELS=0 in the environment all is computed
by PyTorch's operations.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvnas.fast.kernels import cpp, cpp_library, pytorch, selftest
from pvnas.fast.kernels.interface import Kernels

TYPES = {"cuda": (torch.float32, torch.bfloat16, torch.float16), "cpu": (torch.float32, torch.float64)}
_by_pytorch = os.environ.get("PVNAS_KERNELS") == "0"


@contextmanager
def by_pytorch() -> Iterator[None]:
    """Compute by PyTorch's operations within."""
    global _by_pytorch
    before, _by_pytorch = _by_pytorch, True
    try:
        yield
    finally:
        _by_pytorch = before


def kernels_for(x: Tensor) -> Kernels:
    """Return the set that computes with such a tensor. The first time it may compile and test one, for some seconds."""
    return _choice(x.device.type, x.dtype)[0]


def kernel_facts(device: torch.device, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Return what ``environment.json`` says: ``kernels`` (triton, c++ or pytorch) and ``kernels_selftest``."""
    kernels, said = _choice(device.type, dtype)
    return {"kernels": kernels.NAME, "kernels_selftest": said}


def _choice(device_type: str, dtype: torch.dtype) -> tuple[Kernels, str]:
    asked = not _by_pytorch and dtype in TYPES.get(device_type, ())
    return _chosen(device_type, dtype) if asked else (pytorch, "not asked")


@cache
def _chosen(device_type: str, dtype: torch.dtype) -> tuple[Kernels, str]:
    """Return a set and what its self-test has said; in one warning, what is wrong with the one that would be faster."""
    try:
        kernels = _triton() if device_type == "cuda" else _compiled_cpp(dtype)
    except Exception as error:  # whatever a compiler says, all goes on without
        why = (str(error).splitlines() or [type(error).__name__])[0]
        _warn(f"{'Triton does not' if device_type == 'cuda' else 'C++ kernels do not'} work here ({why})")
        return pytorch, f"could not be compiled: {why}"
    if kernels is None:
        return pytorch, "not asked"
    wrong = _remembered(device_type, dtype, kernels)
    if wrong is None:
        return kernels, "passed"
    _warn(f"the {kernels.NAME} kernels are wrong on this machine ({wrong})")
    return pytorch, f"failed: {wrong}"


def _warn(what: str) -> None:
    message = f"{what}: PyTorch's operations are used instead, which are slower"
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _compiled_cpp(dtype: torch.dtype) -> Kernels | None:
    """Those in C++, compiled when first asked for; None off Linux. Raises CannotCompileError, OSError."""
    if not cpp_library.supported():
        return None
    cpp_library.library(dtype)
    return cpp


def _triton() -> Kernels | None:
    """Those in Triton, where it is there; it asks for a C compiler. Raises what it raises where it does not work."""
    if find_spec("triton") is None:
        return None
    from pvnas.fast.kernels import triton_set  # triton may be missing

    triton_set.pick_pixels(torch.zeros(1, 2, 2, 16, device="cuda").permute(0, 3, 1, 2), 0)
    return triton_set


def _remembered(device_type: str, dtype: torch.dtype, kernels: Kernels) -> str | None:
    """Return what the self-test finds wrong, None: nothing. Asked once for a machine, a library and a type."""
    path = _record_path(device_type, dtype)
    with suppress(OSError, ValueError, KeyError):
        wrong: str | None = json.loads(path.read_text(encoding="utf-8"))["wrong"]
        return wrong
    wrong = selftest.first_wrong(kernels, torch.device(device_type), dtype)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"kernels": kernels.NAME, "wrong": wrong}) + "\n", encoding="utf-8")
        temporary.replace(path)
    return wrong


def _record_path(device_type: str, dtype: torch.dtype) -> Path:
    """Return the file that remembers: its name changes with the library, the machine and the type."""
    tests = Path(selftest.__file__).read_bytes()
    if device_type == "cpu":
        name = cpp_library.library_path(dtype).stem
    else:
        sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("triton*.py")))
        import triton

        name = f"triton-{triton.__version__}-{torch.cuda.get_device_name()}-{dtype}-{torch.__version__}"
        name = hashlib.sha256(name.encode() + sources).hexdigest()[:16]
    return cpp_library.cache_folder() / f"{name}-{hashlib.sha256(tests).hexdigest()[:8]}.selftest.json"
