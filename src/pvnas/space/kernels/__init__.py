"""Triton kernels for what is bound by memory in a relaxed cell on a GPU: one pass where PyTorch takes several.

Legend, in all files: F folded frames, H and W pixels, P = F*H*W, C channels of a node, k edges side by side, kC their
channels. A tensor is read as rows of P pixels, its channels next to each other and rows ``row`` elements apart, so that
the channels of a node among those of a cell need no copy. All sums are made in fp32, of float64 in float64, in an order
that depends on the sizes alone: the same clips give the same bits.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def usable(x: Tensor) -> bool:
    """Return whether the kernels take this tensor: on a GPU where Triton is there, not in float64."""
    return x.is_cuda and x.dtype in _TYPES and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None and os.environ.get("PVNAS_TRITON", "1") != "0"
