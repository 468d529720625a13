"""Every other pixel in C++."""

from __future__ import annotations

import torch
from torch import Tensor

from pvnas.fast.kernels.cpp_library import call
from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of


def pick_pixels(x: Tensor, offset: int) -> Tensor:
    (f, c, h, w), rows, y = x.shape, rows_of(x), empty_output(x, x.shape[1], 2)
    call("pick_pixels", x.dtype, rows.tensor, rows.stride, y, f, h, w, *y.shape[2:], c, offset, torch.get_num_threads())
    return y


def spread_pixels(even: Tensor, odd: Tensor | None, x: Tensor, into: Tensor | None) -> Tensor:
    f, c, h, w = x.shape
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    call(
        "spread_pixels", x.dtype, even, odd, x_grad, f, h, w, *even.shape[2:], c, into is not None,
        torch.get_num_threads(),
    )  # fmt: skip
    return x_grad
