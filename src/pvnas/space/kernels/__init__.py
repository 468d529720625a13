"""Our own kernels for the cells of a search and of a network that predicts, with the same names: on a GPU in Triton
(``gpu``), on a CPU in C++ (``cpu``).

Where neither works, and with PVNAS_KERNELS=0 in the environment, cells compute with PyTorch's operations.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from pvnas.space.kernels.operands import KernelSet

_TYPES = {"cuda": (torch.float32, torch.bfloat16, torch.float16), "cpu": (torch.float32, torch.float64)}
_by_pytorch = os.environ.get("PVNAS_KERNELS") == "0"
_left_out: set[str] = set()
"""Kinds of devices, on which they were wrong."""


@contextmanager
def by_pytorch() -> Iterator[None]:
    """Leave our own kernels out."""
    global _by_pytorch
    before, _by_pytorch = _by_pytorch, True
    try:
        yield
    finally:
        _by_pytorch = before


def leave_out(device_type: str) -> None:
    """Compute without them on a kind of device until the process ends."""
    _left_out.add(device_type)


def kernels_for(x: Tensor) -> KernelSet | None:
    """Return the kernels that take such a tensor."""
    device = x.device.type
    if _by_pytorch or device in _left_out or x.dtype not in _TYPES.get(device, ()):
        return None
    return _on_gpu() if device == "cuda" else _on_cpu(x.dtype)


def kind_on(device: torch.device) -> str:
    """Return by what the cells of a search compute on a device in fp32: triton, c++ or pytorch."""
    if kernels_for(torch.empty(0, device=device)) is None:
        return "pytorch"
    return "triton" if device.type == "cuda" else "c++"


@cache
def _on_gpu() -> KernelSet | None:
    """Triton's, where it is there and can compile, for which it asks for a C compiler too; a warning if it cannot."""
    if find_spec("triton") is None:
        return None
    try:
        from pvnas.space.kernels.gpu import KERNELS

        KERNELS.every_other(torch.zeros(1, 2, 2, 16, device="cuda").permute(0, 3, 1, 2), 0)
    except Exception as error:  # whatever it is, the search goes on without
        why = (str(error).splitlines() or [type(error).__name__])[0]
        slow = "the search runs with PyTorch's kernels, which is several times slower"
        warnings.warn(f"Triton does not work here ({why}): {slow}; a C compiler may be missing", RuntimeWarning, 2)
        return None
    return KERNELS


@cache
def _on_cpu(dtype: torch.dtype) -> KernelSet | None:
    """Those in C++, compiled when first asked for; a warning where they cannot be."""
    from pvnas.space.kernels.cpu import KERNELS
    from pvnas.space.kernels.cpu.library import CannotCompileError, library, supported

    if not supported():
        return None
    try:
        library(dtype)
    except (CannotCompileError, OSError) as error:
        slow = "cells compute by PyTorch's, which takes a search about half as long again"
        warnings.warn(f"kernels of our own cannot be compiled ({error}): {slow}", RuntimeWarning, 2)
        return None
    return KERNELS
