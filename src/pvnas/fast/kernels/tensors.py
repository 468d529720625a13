"""Tensors as the kernels read them."""

from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.fast.kernels.interface import Normed


class Rows(NamedTuple):
    """Pictures (F, C, H, W) whose channels lie next to each other, as rows of pixels."""

    tensor: Tensor
    stride: int
    """Elements from a pixel to the next."""

    @property
    def pixels(self) -> int:
        """How many there are."""
        f, _, h, w = self.tensor.shape
        return f * h * w


def rows_of(x: Tensor) -> Rows:
    """Return pictures as rows. Raises ValueError where they do not lie so."""
    _, c, h, w = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        return Rows(x, c)
    row = x.stride(3) if w > 1 else x.stride(2) if h > 1 else x.stride(0)
    expected = (h * w * row, 1, w * row, row)
    for size, stride, want in zip(x.shape, x.stride(), expected, strict=True):
        if size > 1 and stride != want:
            raise ValueError(f"pictures of shape {tuple(x.shape)} and strides {x.stride()} are no rows")
    return Rows(x, max(row, c))


def empty_pictures(like: Tensor, f: int, c: int, h: int, w: int) -> Tensor:
    """Return (F, C, H, W) without values, dense in channels-last memory, of another tensor's type and device."""
    return like.new_empty(f, h, w, c).permute(0, 3, 1, 2)


def empty_output(like: Tensor, channels: int, stride: int = 1) -> Tensor:
    """Return ``empty_pictures`` for what a convolution with padding or a pooling makes of a tensor."""
    f, _, h, w = like.shape
    return empty_pictures(like, f, channels, -(-h // stride), -(-w // stride))


def tap_by_tap(kernel: Tensor) -> Tensor:
    """Return depthwise kernels (kC, 1, 3, 3) with the channels of a tap next to each other, as they are read."""
    return kernel.flatten(1).t().contiguous().t().view(kernel.shape)


def sum_type(x: Tensor) -> torch.dtype:
    """Return the type in which sums are made."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def unnormed(x: Tensor) -> Normed:
    """Return a tensor as it is, among those that a batch norm reads: of mean 0 and standard deviation 1."""
    c, dtype = x.shape[1], sum_type(x)
    return Normed(x, x.new_zeros(c, dtype=dtype), x.new_ones(c, dtype=dtype))


def dense(x: Tensor) -> Tensor:
    """Return pictures in dense channels-last memory, without a copy where they are."""
    return x.contiguous(memory_format=torch.channels_last)


def as_parameter(grad: Tensor) -> Tensor:
    """Return a contiguous gradient, in the strides of sizes of one too: optimisers take many at once that lie alike."""
    return grad.flatten().view(grad.shape)


def per_channel(values: Tensor) -> Tensor:
    """Return one number for each channel, (C,), in a shape that meets pictures: (C, 1, 1)."""
    return values[:, None, None]


def channels_of(x: Tensor, edges: int, width: int, first: int, step: int) -> Tensor:
    """Return ``width`` channels of each edge side by side, from ``first`` on, an edge's ``step`` behind the last's."""
    if edges == 1 or step == width:
        return x[:, first : first + edges * width]
    return torch.cat([x[:, first + edge * step :][:, :width] for edge in range(edges)], 1)


def sum_over_edges(x: Tensor, edges: int) -> Tensor:
    """Return the sum (F, C, H, W) over edges of (F, kC, H, W)."""
    first, *others = x.chunk(edges, 1)
    if x.dtype != sum_type(x):
        return dense(x.unflatten(1, (edges, -1)).sum(1))
    total = first
    for number, other in enumerate(others):
        total = total + other if number == 0 else total.add_(other)
    return total
