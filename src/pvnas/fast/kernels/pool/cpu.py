"""Both 3x3 poolings of a node in one pass, forward and backward, and every other pixel of a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from pvnas.space.kernels.cpu.library import call
from pvnas.space.kernels.operands import empty_pictures, rows_of


def pool(x_FCHW: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return averages without padding, maxima and which of the nine pixels they are, (F, C, H', W')."""
    (f, c, h, w), x = x_FCHW.shape, rows_of(x_FCHW)
    average, largest = (empty_pictures(x_FCHW, f, c, -(-h // stride), -(-w // stride)) for _ in range(2))
    which = torch.empty_like(average, dtype=torch.uint8)
    call(
        "pool", x_FCHW.dtype, x.tensor, x.row, average, largest, which, f, h, w, *average.shape[2:], c, stride,
        torch.get_num_threads(),
    )  # fmt: skip
    return average, largest, which


def pool_one(x_FCHW: Tensor, stride: int, *, averages: bool, into: Tensor | None = None, added: bool = False) -> Tensor:
    """Return 3x3 averages, of pixels in the picture alone, or maxima (F, C, H', W'); ``into``: pictures to write to.

    ``added``: to what these pictures hold.
    """
    (f, c, h, w), x = x_FCHW.shape, rows_of(x_FCHW)
    y_FCHW = empty_pictures(x_FCHW, f, c, -(-h // stride), -(-w // stride)) if into is None else into
    y = rows_of(y_FCHW)
    call(
        "pool_one", x_FCHW.dtype, x.tensor, x.row, y.tensor, y.row, f, h, w, *y_FCHW.shape[2:], c, stride, averages,
        added, torch.get_num_threads(),
    )  # fmt: skip
    return y_FCHW


def pool_backward(
    average_FCHW: Tensor,
    largest_FCHW: Tensor,
    which: Tensor,
    x_FCHW: Tensor,
    stride: int,
    rectified: Tensor | None,
    direct: Tensor | None,
    into: Tensor | None = None,
) -> Tensor:
    """Return the gradient for a node (F, C, H, W) from those of its averages and maxima and, where there are such,
    of ``rectified`` = ReLU(x) and of what reads the node ``direct``\\ ly. ``into``: add to this.
    """
    (f, c, h, w), x = x_FCHW.shape, rows_of(x_FCHW)
    dx = rows_of(empty_pictures(x_FCHW, f, c, h, w) if into is None else into)
    call(
        "pool_backward", x_FCHW.dtype, average_FCHW, largest_FCHW, which, x.tensor, x.row, rectified, direct, dx.tensor,
        dx.row, into is not None, f, h, w, *average_FCHW.shape[2:], c, stride, torch.get_num_threads(),
    )  # fmt: skip
    return dx.tensor


def every_other(x_FCHW: Tensor, offset: int) -> Tensor:
    """Return ReLU(x) at every other row and column from ``offset`` (0 or 1) on, zero past the picture."""
    (f, c, h, w), x = x_FCHW.shape, rows_of(x_FCHW)
    y = empty_pictures(x_FCHW, f, c, -(-h // 2), -(-w // 2))
    call("every_other", x_FCHW.dtype, x.tensor, x.row, y, f, h, w, *y.shape[2:], c, offset, torch.get_num_threads())
    return y


def spread(even_FCHW: Tensor, odd_FCHW: Tensor | None, like_FCHW: Tensor, into: Tensor | None) -> Tensor:
    """Return zeros of ``like``'s shape with pixels at the even and the odd places, added to ``into`` if not None."""
    f, c, h, w = like_FCHW.shape
    dx = empty_pictures(like_FCHW, f, c, h, w) if into is None else into
    call(
        "spread", dx.dtype, even_FCHW, odd_FCHW, dx, f, h, w, *even_FCHW.shape[2:], c, into is not None,
        torch.get_num_threads(),
    )  # fmt: skip
    return dx
