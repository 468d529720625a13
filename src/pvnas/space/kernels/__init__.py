"""Triton kernels for what is bound by memory in a relaxed cell on a GPU: one pass where PyTorch takes several.

Legend, in all files: F folded frames, H and W pixels, P = F*H*W, C channels of a node, k edges side by side, kC their
channels. A tensor is read as rows of P pixels, its channels next to each other and rows ``row`` elements apart, so that
the channels of a node among those of a cell need no copy. All sums are made in fp32, of float64 in float64, in an order
that depends on the sizes alone: the same clips give the same bits.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def usable(x: Tensor) -> bool:
    """Return whether the kernels take this tensor: on a GPU where Triton works, not in float64."""
    return x.is_cuda and x.dtype in _TYPES and _triton_works()


@cache
def _triton_works() -> bool:
    """Whether Triton is there and can compile, for which it asks for a C compiler too; a warning says if it cannot."""
    if find_spec("triton") is None:
        return False
    try:
        from pvnas.space.kernels.pixels import every_other

        every_other(torch.zeros(1, 2, 2, 16, device="cuda").permute(0, 3, 1, 2), 0)
    except Exception as error:  # whatever it is, the search goes on without
        why = (str(error).splitlines() or [type(error).__name__])[0]
        slow = "the search runs with PyTorch's kernels, which is several times slower"
        warnings.warn(f"Triton does not work here ({why}): {slow}; a C compiler may be missing", RuntimeWarning, 2)
        return False
    return True
