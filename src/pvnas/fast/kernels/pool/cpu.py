"""3x3 poolings in C++: both in one pass, and one alone for predictions."""

import torch
from torch import Tensor

from pvnas.fast.kernels.cpp_library import call
from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of


def pool(x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    f, c, h, w = x.shape
    average, maximum = (empty_output(x, c, stride) for _ in range(2))
    which = torch.empty_like(average, dtype=torch.uint8)
    call("pool", rows_of(x), average, maximum, which, f, h, w, *average.shape[2:], c, stride)
    return average, maximum, which


def pool_single(x: Tensor, stride: int, *, averages: bool, into: Tensor | None = None, added: bool = False) -> Tensor:
    """Return 3x3 averages, of pixels in the picture alone, or maxima (F, C, H', W'); ``into``: write to this tensor.

    ``added``: to what it holds.
    """
    (f, c, h, w), y = x.shape, empty_output(x, x.shape[1], stride) if into is None else into
    call("pool_single", rows_of(x), rows_of(y), f, h, w, *y.shape[2:], c, stride, averages, added)
    return y


def pool_grad(
    average_grad: Tensor | None,
    max_grad: Tensor | None,
    which: Tensor | None,
    x: Tensor,
    stride: int,
    relu_grad: Tensor | None,
    identity_grad: Tensor | None,
    into: Tensor | None = None,
) -> Tensor:
    (f, c, h, w), x_grad = x.shape, empty_pictures(x, *x.shape) if into is None else into
    call(
        "pool_grad", average_grad, max_grad, which, rows_of(x), relu_grad, identity_grad, rows_of(x_grad),
        into is not None, f, h, w, -(-h // stride), -(-w // stride), c, stride,
    )  # fmt: skip
    return x_grad
