"""3x3 poolings in C++: both in one pass, and one alone for predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from pvnas.fast.kernels.cpp_library import call
from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of


def pool(x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    (f, c, h, w), rows = x.shape, rows_of(x)
    average, maximum = (empty_output(x, c, stride) for _ in range(2))
    which = torch.empty_like(average, dtype=torch.uint8)
    call(
        "pool", x.dtype, rows.tensor, rows.stride, average, maximum, which, f, h, w, *average.shape[2:], c, stride,
        torch.get_num_threads(),
    )  # fmt: skip
    return average, maximum, which


def pool_single(x: Tensor, stride: int, *, averages: bool, into: Tensor | None = None, added: bool = False) -> Tensor:
    """Return 3x3 averages, of pixels in the picture alone, or maxima (F, C, H', W'); ``into``: write to this tensor.

    ``added``: to what it holds.
    """
    (f, c, h, w), rows = x.shape, rows_of(x)
    y = rows_of(empty_output(x, c, stride) if into is None else into)
    call(
        "pool_single", x.dtype, rows.tensor, rows.stride, y.tensor, y.stride, f, h, w, *y.tensor.shape[2:], c, stride,
        averages, added, torch.get_num_threads(),
    )  # fmt: skip
    return y.tensor


def pool_grad(
    average_grad: Tensor,
    max_grad: Tensor,
    which: Tensor,
    x: Tensor,
    stride: int,
    relu_grad: Tensor | None,
    identity_grad: Tensor | None,
    into: Tensor | None = None,
) -> Tensor:
    (f, c, h, w), rows = x.shape, rows_of(x)
    x_grad = rows_of(empty_pictures(x, f, c, h, w) if into is None else into)
    call(
        "pool_grad", x.dtype, average_grad, max_grad, which, rows.tensor, rows.stride, relu_grad, identity_grad,
        x_grad.tensor, x_grad.stride, into is not None, f, h, w, *average_grad.shape[2:], c, stride,
        torch.get_num_threads(),
    )  # fmt: skip
    return x_grad.tensor
