"""Picking pixels, joining channels and averages, with gradients that are right and dense in channels-last memory.

Autograd's own backward passes of slices give zeros in another memory format, and those of joined tensors strided views;
what follows them, batch norm above all, is several times slower on either.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def even_pixels(x_FCHW: Tensor) -> Tensor:
    """Return the even rows and columns, (F, C, ceil(H/2), ceil(W/2))."""
    (even,) = _applied(_Picked, x_FCHW, 0)
    return even


def even_and_odd_pixels(x_FCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the even rows and columns, and the odd ones: of odd sizes zeros up to as many as the even ones."""
    even, odd = _applied(_Picked, x_FCHW, 0, 1)
    return even, odd


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors (N, C, ...) joined along their channels."""
    return _applied(_SideBySide, *parts)


def average_3x3(x_FCHW: Tensor, stride: int) -> Tensor:
    """Return averages over 3x3 pixels, of those in the picture alone, (F, C, ceil(H/stride), ceil(W/stride)).

    On a GPU PyTorch's own backward pass (seen in 2.11) is wrong for padded averages in channels-last memory.
    """
    return _applied(_Average, x_FCHW, stride)


def average_3x3_backward(gradient_FCHW: Tensor, shape: Sequence[int], stride: int) -> Tensor:
    """Return the gradient for what ``average_3x3`` has read, of this shape."""
    ones = gradient_FCHW.new_ones(1, 1, *shape[2:])
    shares = gradient_FCHW / F.avg_pool2d(ones, 3, stride, 1, divisor_override=1)
    if stride == 2:
        spread = _zeros(shape, shares)
        spread[:, :, ::2, ::2] = shares
        shares = spread
    # A pixel is in the windows of its neighbours: their sum, once more a pooling.
    return F.avg_pool2d(shares, 3, 1, 1, divisor_override=1)


def _applied(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply a function; where no gradient is asked for, its forward pass alone: exports of networks know no others."""
    if torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in arguments):
        return function.apply(*arguments)
    return function.forward(_NoBackward(), *arguments)


class _NoBackward:
    """Takes the notes for a backward pass that will not come; a class that torch.export can follow."""


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=torch.channels_last).zero_()


def _every_other(x_FCHW: Tensor, offset: int) -> Tensor:
    picked = x_FCHW[:, :, offset::2, offset::2].contiguous(memory_format=torch.channels_last)
    h, w = (size % 2 * offset for size in x_FCHW.shape[2:])
    return F.pad(picked, (0, w, 0, h)) if h or w else picked


class _Picked(torch.autograd.Function):
    """(F, C, H, W) to the pixels from some offsets on."""

    @staticmethod
    def forward(ctx: Any, x_FCHW: Tensor, *offsets: int) -> tuple[Tensor, ...]:
        ctx.shape, ctx.offsets = x_FCHW.shape, offsets
        return tuple(_every_other(x_FCHW, offset) for offset in offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dx_FCHW = _zeros(ctx.shape, gradients[0])
        for gradient, offset in zip(gradients, ctx.offsets, strict=True):
            pixels = dx_FCHW[:, :, offset::2, offset::2]
            pixels.copy_(gradient[:, :, : pixels.shape[2], : pixels.shape[3]])  # the rest is padding
        return dx_FCHW, *[None] * len(gradients)


class _Average(torch.autograd.Function):
    """(F, C, H, W) to averages over 3x3 pixels."""

    @staticmethod
    def forward(ctx: Any, x_FCHW: Tensor, stride: int) -> Tensor:
        ctx.shape, ctx.stride = x_FCHW.shape, stride
        return F.avg_pool2d(x_FCHW, 3, stride, 1, count_include_pad=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return average_3x3_backward(gradient, ctx.shape, ctx.stride), None


class _SideBySide(torch.autograd.Function):
    """Tensors (N, C, ...) to their channels one behind the other."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.sizes = [part.shape[1] for part in parts]
        return torch.cat(parts, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        memory = torch.channels_last if gradient.dim() == 4 else torch.channels_last_3d
        return tuple(part.contiguous(memory_format=memory) for part in gradient.split(ctx.sizes, 1))
