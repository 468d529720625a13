"""Both 3x3 poolings of a node in one pass, forward and backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pvnas.space.kernels.rows import channel_block, empty_pictures, rows_of, sum_type, triton_type

BLOCK_PIXELS = 32
WARPS = 4
SIZES = ["pixels", "h", "w", "h_out", "w_out"]


def pool(x_FCHW: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return averages without padding, maxima and which of the nine pixels they are, (F, C, H', W')."""
    f, c, h, w = x_FCHW.shape
    average, largest = (empty_pictures(x_FCHW, f, c, -(-h // stride), -(-w // stride)) for _ in range(2))
    which = torch.empty_like(average, dtype=torch.uint8)
    x, pixels, block = rows_of(x_FCHW), average.numel() // c, channel_block(c)
    _pool[(triton.cdiv(pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        x.tensor, x.row, average, largest, which, pixels, h, w, *average.shape[2:], c,
        STRIDE=stride, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(x_FCHW)), num_warps=WARPS,
    )  # fmt: skip
    return average, largest, which


def pool_backward(
    average_FCHW: Tensor,
    largest_FCHW: Tensor,
    which: Tensor,
    x_FCHW: Tensor,
    stride: int,
    rectified: Tensor | None,
    direct: Tensor | None,
) -> Tensor:
    """Return the gradient for a node (F, C, H, W) from those of its averages and maxima and, where there are such,
    of ``rectified`` = ReLU(x) and of what reads the node ``direct``\\ ly.
    """
    f, c, h, w = x_FCHW.shape
    dx, x, block = empty_pictures(x_FCHW, f, c, h, w), rows_of(x_FCHW), channel_block(c)
    _pool_backward[(triton.cdiv(x.pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        average_FCHW, largest_FCHW, which, x.tensor, x.row, x.tensor if rectified is None else rectified,
        x.tensor if direct is None else direct, dx, x.pixels, h, w, *average_FCHW.shape[2:], c,
        STRIDE=stride, RECTIFIED=rectified is not None, DIRECT=direct is not None, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block,
        SUM=triton_type(sum_type(x_FCHW)), num_warps=WARPS,
    )  # fmt: skip
    return dx


@triton.jit(do_not_specialize=SIZES)
def _pool(
    x, row, average, largest, which, pixels, h, w, h_out, w_out, channels,
    STRIDE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    valid = (p < pixels)[:, None] & (c < channels)[None, :]
    frame, i, j = p // (h_out * w_out), p // w_out % h_out, p % w_out
    total, count = tl.zeros([BLOCK_P, BLOCK_C], SUM), tl.zeros([BLOCK_P], SUM)
    best = tl.full([BLOCK_P, BLOCK_C], float("-inf"), SUM)
    index = tl.zeros([BLOCK_P, BLOCK_C], tl.int32)
    for ky in tl.static_range(3):
        for kx in tl.static_range(3):
            a, b = i * STRIDE + ky - 1, j * STRIDE + kx - 1
            inside = (a >= 0) & (a < h) & (b >= 0) & (b < w)
            pixel = ((frame * h + a) * w + b).to(tl.int64)
            there = inside[:, None] & valid
            values = tl.load(x + pixel[:, None] * row + c[None, :], mask=there, other=0.0).to(SUM)
            total += values
            count += inside.to(SUM)
            larger = there & (values > best)  # the first of equal ones, as PyTorch's
            best = tl.where(larger, values, best)
            index = tl.where(larger, ky * 3 + kx, index)
    target = p.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(average + target, (total / count[:, None]).to(average.dtype.element_ty), mask=valid)
    tl.store(largest + target, best.to(largest.dtype.element_ty), mask=valid)
    tl.store(which + target, index.to(tl.uint8), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _pool_backward(
    average, largest, which, x, row, rectified, direct, dx, pixels, h, w, h_out, w_out, channels,
    STRIDE: tl.constexpr, RECTIFIED: tl.constexpr, DIRECT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    valid = (p < pixels)[:, None] & (c < channels)[None, :]
    frame, i, j = p // (h * w), p // w % h, p % w
    at = p.to(tl.int64)[:, None] * channels + c[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    if RECTIFIED:
        own = tl.load(x + p.to(tl.int64)[:, None] * row + c[None, :], mask=valid, other=0.0).to(SUM)
        past = tl.load(rectified + at, mask=valid, other=0.0).to(SUM)
        total += tl.where(own > 0, past, 0.0)
    if DIRECT:
        total += tl.load(direct + at, mask=valid, other=0.0).to(SUM)
    for ky in tl.static_range(3):
        for kx in tl.static_range(3):
            a, b = i - ky + 1, j - kx + 1
            inside = (a >= 0) & (b >= 0) & (a % STRIDE == 0) & (b % STRIDE == 0)
            a, b = a // STRIDE, b // STRIDE
            inside = inside & (a < h_out) & (b < w_out)
            there = inside[:, None] & valid
            pixel = ((frame * h_out + a) * w_out + b).to(tl.int64)[:, None] * channels + c[None, :]
            # pixels of the input that the window of this output has
            rows = tl.minimum(a * STRIDE + 2, h) - tl.maximum(a * STRIDE - 1, 0)
            columns = tl.minimum(b * STRIDE + 2, w) - tl.maximum(b * STRIDE - 1, 0)
            count = tl.where(inside, rows * columns, 1).to(SUM)
            total += tl.load(average + pixel, mask=there, other=0.0).to(SUM) / count[:, None]
            chosen = there & (tl.load(which + pixel, mask=there, other=9) == ky * 3 + kx)
            total += tl.load(largest + pixel, mask=chosen, other=0.0).to(SUM)
    tl.store(dx + at, total.to(dx.dtype.element_ty), mask=valid)
