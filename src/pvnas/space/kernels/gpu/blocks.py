"""How work is parted among Triton's programs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

PROGRAMS = 528  # four for each multiprocessor of a large GPU; fixed, so that sums have one order everywhere


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
