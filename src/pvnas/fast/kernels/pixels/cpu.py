"""Every other pixel in C++."""

from torch import Tensor

from pvnas.fast.kernels.cpp_library import call
from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of


def pick_pixels(x: Tensor, offset: int) -> Tensor:
    (f, c, h, w), y = x.shape, empty_output(x, x.shape[1], 2)
    call("pick_pixels", rows_of(x), y, f, h, w, *y.shape[2:], c, offset)
    return y


def spread_pixels(even: Tensor, odd: Tensor | None, x: Tensor, into: Tensor | None) -> Tensor:
    f, c, h, w = x.shape
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    call("spread_pixels", even, odd, x_grad, f, h, w, *even.shape[2:], c, into is not None)
    return x_grad
