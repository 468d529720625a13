"""Mean and variance of each channel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels.tensors import rows_of, sum_type
from pvnas.fast.kernels.triton_blocks import channel_block, parts_of, triton_type

BLOCK_PIXELS, WARPS, STAGES = 32, 4, 4
SIZES = ["pixels", "each"]


def part_moments(x: Tensor) -> tuple[Tensor, int]:
    """Return moments (parts, 2, C) and the pixels of a part, as ``joined_moments`` takes them."""
    rows, c, block, dtype = rows_of(x), x.shape[1], channel_block(x.shape[1]), sum_type(x)
    blocks = triton.cdiv(c, block)
    parts, each = parts_of(rows.pixels, blocks, BLOCK_PIXELS)
    moments = x.new_empty(parts, 2, c, dtype=dtype)
    _part_moments[(blocks * parts,)](
        rows.tensor, rows.stride, moments, rows.pixels, each, c,
        BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(dtype), STAGES=STAGES, num_warps=WARPS,
    )  # fmt: skip
    return moments, each


def joined_moments(moments: Tensor, each: int, pixels: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and 1 / sqrt(variance + eps).

    ``moments``: (parts, 2, C) means and sums of squared differences from them, of ``each`` pixels, in the end of fewer.
    """
    parts, _, c = moments.shape
    mean, variance, inverse = moments.new_empty(3, c)
    _moments[(triton.cdiv(c, 16),)](
        moments, mean, variance, inverse, pixels, each, c, eps,
        PARTS=triton.next_power_of_2(parts), BLOCK_C=16, SUM=triton_type(moments.dtype), num_warps=4,
    )  # fmt: skip
    return mean, variance, inverse


@triton.jit(do_not_specialize=SIZES)
def _part_moments(
    x, row, moments, pixels, each, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Mean, and sum of squared differences from it, of a part of the pixels.

    Around the part's first pixel: squares of numbers far from zero would lose what they differ by.
    """
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.program_id(0) // blocks
    begin, end = part * each, tl.minimum(part * each + each, pixels)
    at = tl.load(x + begin.to(tl.int64) * row + c, mask=c < channels, other=0.0).to(SUM)
    sums = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    squares = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    for first in tl.range(begin, end, BLOCK_P, num_stages=STAGES):
        p = first + tl.arange(0, BLOCK_P)
        valid = (p < end)[:, None] & (c < channels)[None, :]
        values = tl.load(x + p.to(tl.int64)[:, None] * row + c[None, :], mask=valid, other=0.0).to(SUM)
        values = tl.where(valid, values - at[None, :], 0.0)
        sums += values
        squares += values * values
    count = (end - begin).to(SUM)
    mean = tl.sum(sums, 0) / count
    target = moments + part * 2 * channels + c
    tl.store(target, at + mean, mask=c < channels)
    tl.store(target + channels, tl.sum(squares, 0) - mean * mean * count, mask=c < channels)


@triton.jit(do_not_specialize=SIZES)
def _moments(
    moments, mean, variance, inverse, pixels, each, channels, eps,
    PARTS: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Join the moments of all parts (Chan, Golub, LeVeque, 1979)."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.arange(0, PARTS)
    count = tl.maximum(tl.minimum(pixels - part * each, each), 0).to(SUM)[:, None]
    valid = (count > 0) & (c < channels)[None, :]
    moments_at = moments + part[:, None] * 2 * channels + c[None, :]
    means = tl.load(moments_at, mask=valid, other=0.0)
    total = tl.sum(means * count, 0) / pixels
    away = means - total[None, :]
    squares = tl.load(moments_at + channels, mask=valid, other=0.0) + away * away * count
    biased = tl.sum(tl.where(valid, squares, 0.0), 0) / pixels
    tl.store(mean + c, total, mask=c < channels)
    tl.store(variance + c, biased, mask=c < channels)
    tl.store(inverse + c, 1.0 / tl.sqrt(biased + eps), mask=c < channels)
