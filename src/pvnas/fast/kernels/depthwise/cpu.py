"""Depthwise 3x3 convolutions of several edges; ReLU and BN before them are made on the way.

Forward they are made where products over channels read them, row by row, and never lie in memory as a whole.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.space.kernels.cpu.library import call
from pvnas.space.kernels.operands import empty_pictures, rows_of
from pvnas.space.norms import NormState

PARTS = 16  # of what is summed over pictures, at the most


class OwnDepthwise(NamedTuple):
    """The depthwise convolution (F, kC, H', W') of ReLU(x), or of ReLU(BN(x)), which is made where it is read."""

    x_FCHW: Tensor
    """kC channels or C, which every edge then reads."""
    taps: Tensor
    """(9, kC)."""
    stride: int
    dilation: int
    norm: NormState | None

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        f, _, h, w = self.x_FCHW.shape
        return torch.Size((f, self.taps.shape[1], -(-h // self.stride), -(-w // self.stride)))

    def arguments(self) -> list[Tensor | int | None]:
        """Return what the kernels take besides x."""
        (_, c_in, h, w), (_, c, h_out, w_out) = self.x_FCHW.shape, self.shape
        return [self.taps, *_norm_arguments(self.norm), c, c_in, h, w, h_out, w_out, self.stride, self.dilation]


def depthwise(
    x_FCHW: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, norm: NormState | None = None
) -> OwnDepthwise:
    """Return the 3x3 depthwise convolution (F, kC, H', W') of ReLU(x), or of ReLU(BN(x)), with kernels (kC, 1, 3, 3).

    x has kC channels or C, which every edge then reads.
    """
    return OwnDepthwise(rows_of(x_FCHW).tensor, _by_tap(kernel), stride, dilation, norm)


def _by_tap(kernel: Tensor) -> Tensor:
    """Return kernels (kC, 1, 3, 3) as (9, kC), without a copy where they lie ``tap_by_tap``."""
    return kernel.flatten(1).t().contiguous()


def depthwise_input_gradient(
    g_FCHW: Tensor,
    kernel: Tensor,
    like_FCHW: Tensor,
    stride: int = 1,
    dilation: int = 1,
    into: Tensor | None = None,
) -> Tensor:
    """Return the gradient for the ReLU(x) that ``depthwise`` convolves, of x's shape, summed over edges that share it.

    ``like_FCHW``: x; ``into``: add to this.
    """
    dx = empty_pictures(like_FCHW, *like_FCHW.shape) if into is None else into
    _input_gradient(g_FCHW, kernel, dx, stride, dilation, added=into is not None)
    return dx


def depthwise_norm_gradient(g_FCHW: Tensor, kernel: Tensor, z_FCHW: Tensor, norm: NormState) -> tuple[Tensor, Tensor]:
    """Return the gradient for the BN(z) whose ReLU ``depthwise`` convolves, and what its BN's backward pass asks of it.

    That are the sums over pixels (2, 1, kC) of the gradient and of it times BN(z), as ``normed.products`` gives them.
    """
    f, c, h, _ = z_FCHW.shape
    dx, sums = empty_pictures(z_FCHW, *z_FCHW.shape), g_FCHW.new_empty(min(PARTS, f * h), 2, 1, c)
    _input_gradient(g_FCHW, kernel, dx, 1, 1, z_FCHW=z_FCHW, norm=norm, sums=sums)
    return dx, sums.sum(0)


def _input_gradient(
    g_FCHW: Tensor,
    kernel: Tensor,
    dx: Tensor,
    stride: int,
    dilation: int,
    *,
    added: bool = False,
    z_FCHW: Tensor | None = None,
    norm: NormState | None = None,
    sums: Tensor | None = None,
) -> None:
    (f, c, h, w), g = dx.shape, rows_of(g_FCHW)
    z = None if z_FCHW is None else rows_of(z_FCHW)
    call(
        "depthwise_input_gradient", g_FCHW.dtype, g.tensor, g.row, _by_tap(kernel), z and z.tensor, z and z.row,
        *_norm_arguments(norm), dx, sums, 0 if sums is None else len(sums), f, h, w, *g_FCHW.shape[2:], c,
        len(kernel) // c, stride, dilation, added, torch.get_num_threads(),
    )  # fmt: skip


def depthwise_kernel_gradient(
    g_FCHW: Tensor, x_FCHW: Tensor, stride: int = 1, dilation: int = 1, norm: NormState | None = None
) -> Tensor:
    """Return the gradient for the kernels of ``depthwise``, (kC, 1, 3, 3)."""
    (f, c_in, h, w), (_, c_out, h_out, w_out) = x_FCHW.shape, g_FCHW.shape
    g, x, sums = rows_of(g_FCHW), rows_of(x_FCHW), g_FCHW.new_empty(min(PARTS, f * h_out), 9, c_out)
    call(
        "depthwise_kernel_gradient", g_FCHW.dtype, g.tensor, g.row, x.tensor, x.row, *_norm_arguments(norm), sums,
        len(sums), f, h, w, h_out, w_out, c_in, c_out, stride, dilation, torch.get_num_threads(),
    )  # fmt: skip
    return sums.sum(0).t().reshape(c_out, 1, 3, 3)


def _norm_arguments(norm: NormState | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if norm is None else (norm.mean, norm.inverse_std)
