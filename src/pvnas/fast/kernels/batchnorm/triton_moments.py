"""Mean and variance of each channel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pvnas.space.kernels.gpu.blocks import channel_block, parts_of, triton_type
from pvnas.space.kernels.operands import rows_of, sum_type

BLOCK_PIXELS, WARPS, STAGES = 32, 4, 4
SIZES = ["pixels", "each"]


def statistics(x_FCHW: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and 1 / sqrt(variance + eps) of each channel, in the type of sums."""
    x, c, block, dtype = rows_of(x_FCHW), x_FCHW.shape[1], channel_block(x_FCHW.shape[1]), sum_type(x_FCHW)
    blocks = triton.cdiv(c, block)
    parts, each = parts_of(x.pixels, blocks, BLOCK_PIXELS)
    found = x_FCHW.new_empty(parts, 2, c, dtype=dtype)
    _part_moments[(blocks * parts,)](
        x.tensor, x.row, found, x.pixels, each, c,
        BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(dtype), STAGES=STAGES, num_warps=WARPS,
    )  # fmt: skip
    return joined_moments(found, each, x.pixels, eps)


def joined_moments(found: Tensor, each: int, pixels: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``statistics`` does.

    ``found``: (parts, 2, C) means and sums of squared differences from them, of ``each`` pixels, in the end of fewer.
    """
    parts, _, c = found.shape
    mean, variance, inverse = found.new_empty(3, c)
    _moments[(triton.cdiv(c, 16),)](
        found, mean, variance, inverse, pixels, each, c, eps,
        PARTS=triton.next_power_of_2(parts), BLOCK_C=16, SUM=triton_type(found.dtype), num_warps=4,
    )  # fmt: skip
    return mean, variance, inverse


@triton.jit(do_not_specialize=SIZES)
def _part_moments(
    x, row, found, pixels, each, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
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
    target = found + part * 2 * channels + c
    tl.store(target, at + mean, mask=c < channels)
    tl.store(target + channels, tl.sum(squares, 0) - mean * mean * count, mask=c < channels)


@triton.jit(do_not_specialize=SIZES)
def _moments(
    found, mean, variance, inverse, pixels, each, channels, eps,
    PARTS: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Join the moments of all parts (Chan, Golub, LeVeque, 1979)."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.arange(0, PARTS)
    count = tl.maximum(tl.minimum(pixels - part * each, each), 0).to(SUM)[:, None]
    valid = (count > 0) & (c < channels)[None, :]
    source = found + part[:, None] * 2 * channels + c[None, :]
    means = tl.load(source, mask=valid, other=0.0)
    total = tl.sum(means * count, 0) / pixels
    away = means - total[None, :]
    squares = tl.load(source + channels, mask=valid, other=0.0) + away * away * count
    biased = tl.sum(tl.where(valid, squares, 0.0), 0) / pixels
    tl.store(mean + c, total, mask=c < channels)
    tl.store(variance + c, biased, mask=c < channels)
    tl.store(inverse + c, 1.0 / tl.sqrt(biased + eps), mask=c < channels)
