"""Every other pixel in Triton."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of
from pvnas.fast.kernels.triton_blocks import channel_block

BLOCK_PIXELS, WARPS = 64, 4
SIZES = ["pixels", "h", "w", "h_out", "w_out"]


def pick_pixels(x: Tensor, offset: int) -> Tensor:
    _, c, h, w = x.shape
    y, rows, block = empty_output(x, c, 2), rows_of(x), channel_block(c)
    pixels = y.numel() // c
    _pick_pixels[(triton.cdiv(pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        rows.tensor, rows.stride, y, pixels, h, w, *y.shape[2:], c,
        OFFSET=offset, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, num_warps=WARPS,
    )  # fmt: skip
    return y


def spread_pixels(even: Tensor, odd: Tensor | None, x: Tensor, into: Tensor | None) -> Tensor:
    f, c, h, w = x.shape
    x_grad, block = empty_pictures(x, f, c, h, w) if into is None else into, channel_block(c)
    pixels = f * h * w
    _spread_pixels[(triton.cdiv(pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        even, even if odd is None else odd, x_grad, pixels, h, w, *even.shape[2:], c,
        ODD=odd is not None, ADD=into is not None, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, num_warps=WARPS,
    )  # fmt: skip
    return x_grad


@triton.jit(do_not_specialize=SIZES)
def _pick_pixels(
    x, row, y, pixels, h, w, h_out, w_out, channels,
    OFFSET: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    i, j = p // w_out % h_out * 2 + OFFSET, p % w_out * 2 + OFFSET
    valid = (p < pixels)[:, None] & (c < channels)[None, :]
    pixel = ((p // (h_out * w_out) * h + i) * w + j).to(tl.int64)
    inside = valid & ((i < h) & (j < w))[:, None]
    values = tl.load(x + pixel[:, None] * row + c[None, :], mask=inside, other=0.0)
    values = tl.maximum(values, 0.0).to(y.dtype.element_ty)
    tl.store(y + p.to(tl.int64)[:, None] * channels + c[None, :], values, mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _spread_pixels(
    even, odd, dx, pixels, h, w, h_out, w_out, channels,
    ODD: tl.constexpr, ADD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    i, j = p // w % h, p % w
    valid = (p < pixels)[:, None] & (c < channels)[None, :]
    pixel = ((p // (h * w) * h_out + i // 2) * w_out + j // 2).to(tl.int64)[:, None] * channels + c[None, :]
    at_even = valid & ((i % 2 == 0) & (j % 2 == 0))[:, None]
    values = tl.load(even + pixel, mask=at_even, other=0.0)
    if ODD:
        values += tl.load(odd + pixel, mask=valid & ((i % 2 == 1) & (j % 2 == 1))[:, None], other=0.0)
    target = dx + p.to(tl.int64)[:, None] * channels + c[None, :]
    if ADD:
        values += tl.load(target, mask=valid, other=0.0)
    tl.store(target, values, mask=valid)
