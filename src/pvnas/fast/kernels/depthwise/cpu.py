"""Depthwise 3x3 convolutions in C++.

Forward they are computed where ``channel_conv`` reads them, row by row, and never lie in memory as a whole.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.fast.kernels.cpp_library import call
from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import empty_pictures, rows_of

PARTS = 16  # of what is summed over pictures, at the most


class DeferredDepthwise(NamedTuple):
    """What ``depthwise`` returns, (F, kC, H', W'), computed where it is read."""

    x: Tensor
    taps: Tensor
    """(9, kC)."""
    stride: int
    dilation: int
    norm: Normed | None

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        f, _, h, w = self.x.shape
        return torch.Size((f, self.taps.shape[1], -(-h // self.stride), -(-w // self.stride)))

    def arguments(self) -> tuple[Tensor | int | None, ...]:
        """Return what the kernels take besides x."""
        (_, c_in, h, w), (_, c, h_out, w_out) = self.x.shape, self.shape
        return self.taps, *_norm(self.norm), c, c_in, h, w, h_out, w_out, self.stride, self.dilation


def depthwise(
    x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None
) -> DeferredDepthwise:
    return DeferredDepthwise(rows_of(x).tensor, _taps(kernel), stride, dilation, norm)


def depthwise_input_grad(
    grad: Tensor, kernel: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, into: Tensor | None = None
) -> Tensor:
    (f, c, h, w), x_grad = x.shape, empty_pictures(x, *x.shape) if into is None else into
    call(
        "depthwise_input_grad", rows_of(grad), _taps(kernel), *[None] * 6, x_grad, None, 0, f, h, w, *grad.shape[2:], c,
        len(kernel) // c, stride, dilation, into is not None,
    )  # fmt: skip
    return x_grad


def depthwise_norm_grad(grad: Tensor, kernel: Tensor, norm: Normed) -> tuple[Tensor, Tensor]:
    f, c, h, w = norm.z.shape
    n_grad, sums = empty_pictures(norm.z, f, c, h, w), grad.new_empty(min(PARTS, f * h), 2, 1, c)
    call(
        "depthwise_input_grad", rows_of(grad), _taps(kernel), rows_of(norm.z), _norm(norm), n_grad, sums,
        len(sums), f, h, w, h, w, c, 1, 1, 1, False,
    )  # fmt: skip
    return n_grad, sums.sum(0)


def depthwise_kernel_grad(
    grad: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None
) -> Tensor:
    (f, c_in, h, w), (_, c_out, h_out, w_out) = x.shape, grad.shape
    sums = grad.new_empty(min(PARTS, f * h_out), 9, c_out)
    call(
        "depthwise_kernel_grad", rows_of(grad), rows_of(x), _norm(norm), sums, len(sums), f, h, w, h_out, w_out,
        c_in, c_out, stride, dilation,
    )  # fmt: skip
    return sums.sum(0).t().reshape(c_out, 1, 3, 3)


def _taps(kernel: Tensor) -> Tensor:
    """Return kernels (kC, 1, 3, 3) as (9, kC), without a copy where they lie ``tap_by_tap``."""
    return kernel.flatten(1).t().contiguous()


def _norm(norm: Normed | None) -> tuple[Tensor | None, ...]:
    """Return what the kernels take of a batch norm besides its input."""
    return (None,) * 4 if norm is None else norm[1:]
