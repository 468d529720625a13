"""Tensors as the kernels read them, and what kernels there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Pictures (F, C, H, W) whose channels lie next to each other, as rows of pixels."""

    tensor: Tensor
    pixels: int
    row: int
    """Elements from a pixel to the next."""


def rows_of(x_FCHW: Tensor) -> Rows:
    """Return pictures as rows. Raises ValueError where they do not lie so."""
    f, c, h, w = x_FCHW.shape
    if x_FCHW.is_contiguous(memory_format=torch.channels_last):
        return Rows(x_FCHW, f * h * w, c)
    row = x_FCHW.stride(3) if w > 1 else x_FCHW.stride(2) if h > 1 else x_FCHW.stride(0)
    expected = (h * w * row, 1, w * row, row)
    for size, stride, want in zip(x_FCHW.shape, x_FCHW.stride(), expected, strict=True):
        if size > 1 and stride != want:
            raise ValueError(f"pictures of shape {tuple(x_FCHW.shape)} and strides {x_FCHW.stride()} are no rows")
    return Rows(x_FCHW, f * h * w, max(row, c))


def empty_pictures(like: Tensor, f: int, c: int, h: int, w: int) -> Tensor:
    """Return (F, C, H, W) without values, dense in channels-last memory, of another tensor's type and device."""
    return like.new_empty(f, h, w, c).permute(0, 3, 1, 2)


def tap_by_tap(kernel: Tensor) -> Tensor:
    """Return depthwise kernels (kC, 1, 3, 3) with the channels of a tap next to each other, as they are read."""
    return kernel.flatten(1).t().contiguous().t().view(kernel.shape)


def sum_type(x: Tensor) -> torch.dtype:
    """Return the type in which sums are made."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class Normed(NamedTuple):
    """What a BN has seen and found; identity, which has none, as mean 0 and standard deviation 1."""

    z_FCHW: Tensor
    mean: Tensor
    inverse_std: Tensor


def unnormed(x_FCHW: Tensor) -> Normed:
    """Return a tensor as it is."""
    c, dtype = x_FCHW.shape[1], sum_type(x_FCHW)
    return Normed(x_FCHW, x_FCHW.new_zeros(c, dtype=dtype), x_FCHW.new_ones(c, dtype=dtype))


class KernelSet(NamedTuple):
    """The kernels of one kind; what they do is told where they are."""

    add_normed: Callable[..., None]
    depthwise: Callable[..., Any]
    """A tensor, or what the products over channels read as such."""
    depthwise_input_gradient: Callable[..., Tensor]
    depthwise_kernel_gradient: Callable[..., Tensor]
    depthwise_norm_gradient: Callable[..., tuple[Tensor, Tensor]]
    every_other: Callable[..., Tensor]
    mix_channels: Callable[..., Tensor]
    mix_channels_input_gradient: Callable[..., Tensor]
    mix_channels_kernel_gradient: Callable[..., Tensor]
    mix_channels_with_statistics: Callable[..., tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]
    normalised: Callable[..., Tensor]
    own_gradients: Callable[..., list[Any]]
    """Tensors, or what the products over channels read as such."""
    pool: Callable[..., tuple[Tensor, Tensor, Tensor]]
    pool_backward: Callable[..., Tensor]
    products: Callable[..., Tensor]
    shared_gradients: Callable[..., list[Tensor]]
    spread: Callable[..., Tensor]
    statistics: Callable[..., tuple[Tensor, Tensor, Tensor]]
