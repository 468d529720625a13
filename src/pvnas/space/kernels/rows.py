"""Tensors as the kernels read them, and how the work on them is parted among programs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 528  # four for each multiprocessor of a large GPU; fixed, so that sums have one order everywhere


class Rows(NamedTuple):
    """Pictures (F, C, H, W) whose channels lie next to each other, as rows of pixels."""

    tensor: Tensor
    pixels: int
    row: int
    """Elements from a pixel to the next."""


def rows_of(x_FCHW: Tensor) -> Rows:
    """Return pictures as rows. Raises ValueError where they do not lie so."""
    f, c, h, w = x_FCHW.shape
    row = x_FCHW.stride(3) if w > 1 else x_FCHW.stride(2) if h > 1 else x_FCHW.stride(0)
    expected = (h * w * row, 1, w * row, row)
    for size, stride, want in zip(x_FCHW.shape, x_FCHW.stride(), expected, strict=True):
        if size > 1 and stride != want:
            raise ValueError(f"pictures of shape {tuple(x_FCHW.shape)} and strides {x_FCHW.stride()} are no rows")
    return Rows(x_FCHW, f * h * w, max(row, c))


def empty_pictures(like: Tensor, f: int, c: int, h: int, w: int) -> Tensor:
    """Return (F, C, H, W) without values, dense in channels-last memory, of another tensor's type and device."""
    return like.new_empty(f, h, w, c).permute(0, 3, 1, 2)


def sum_type(x: Tensor) -> torch.dtype:
    """Return the type in which sums are made."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def triton_type(dtype: torch.dtype) -> tl.dtype:
    """Return Triton's name of ``sum_type``."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def channel_block(channels: int, most: int = 64) -> int:
    """Return how many channels a program takes."""
    return min(most, max(16, triton.next_power_of_2(channels)))


def parts_of(pixels: int, blocks: int, block_pixels: int) -> tuple[int, int]:
    """Return (parts, pixels of a part): of all pixels, where ``blocks`` of all programs work on each part."""
    wanted = max(1, PROGRAMS // blocks)
    each = triton.cdiv(triton.cdiv(pixels, wanted), block_pixels) * block_pixels
    return triton.cdiv(pixels, each), each
