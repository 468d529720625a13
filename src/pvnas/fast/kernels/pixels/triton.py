"""Every other pixel of a picture, taken and put back: what convolutions at stride 2 with a tap on it read."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pvnas.space.kernels.gpu.blocks import channel_block
from pvnas.space.kernels.operands import empty_pictures, rows_of

BLOCK_PIXELS, WARPS = 64, 4
SIZES = ["pixels", "h", "w", "h_out", "w_out"]


def every_other(x_FCHW: Tensor, offset: int) -> Tensor:
    """Return ReLU(x) at every other row and column from ``offset`` (0 or 1) on, zero past the picture."""
    f, c, h, w = x_FCHW.shape
    y, x, block = empty_pictures(x_FCHW, f, c, -(-h // 2), -(-w // 2)), rows_of(x_FCHW), channel_block(c)
    pixels = y.numel() // c
    _every_other[(triton.cdiv(pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        x.tensor, x.row, y, pixels, h, w, *y.shape[2:], c,
        OFFSET=offset, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, num_warps=WARPS,
    )  # fmt: skip
    return y


def spread(even_FCHW: Tensor, odd_FCHW: Tensor | None, like_FCHW: Tensor, into: Tensor | None) -> Tensor:
    """Return zeros of ``like``'s shape with pixels at the even and the odd places, added to ``into`` if not None."""
    f, c, h, w = like_FCHW.shape
    dx, block = empty_pictures(like_FCHW, f, c, h, w) if into is None else into, channel_block(c)
    pixels, odd = f * h * w, even_FCHW if odd_FCHW is None else odd_FCHW
    _spread[(triton.cdiv(pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        even_FCHW, odd, dx, pixels, h, w, *even_FCHW.shape[2:], c,
        ODD=odd_FCHW is not None, ADDED=into is not None, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, num_warps=WARPS,
    )  # fmt: skip
    return dx


@triton.jit(do_not_specialize=SIZES)
def _every_other(
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
def _spread(
    even, odd, dx, pixels, h, w, h_out, w_out, channels,
    ODD: tl.constexpr, ADDED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
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
    if ADDED:
        values += tl.load(target, mask=valid, other=0.0)
    tl.store(target, values, mask=valid)
