"""Every other pixel in Triton."""

import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels import triton_blocks as tb
from pvnas.fast.kernels.tensors import empty_output, empty_pictures

BLOCK = tb.Setting(64)
SIZES = ["pixels", "h", "w", "h_out", "w_out"]


def pick_pixels(x: Tensor, offset: int) -> Tensor:
    _, c, h, w = x.shape
    y = empty_output(x, c, 2)
    tb.launch(_pick_pixels, BLOCK, y.numel() // c, c, tb.strided(x), y, h, w, *y.shape[2:], OFFSET=offset)
    return y


def spread_pixels(even: Tensor, odd: Tensor | None, x: Tensor, into: Tensor | None) -> Tensor:
    f, c, h, w = x.shape
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    tb.launch(_spread_pixels, BLOCK, f * h * w, c, even, odd, x_grad, h, w, *even.shape[2:], ADD=into is not None)
    return x_grad


@triton.jit(do_not_specialize=SIZES)
def _pick_pixels(
    pixels, channels, x, y, h, w, h_out, w_out, OFFSET: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    p, c, _, _, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C)
    i, j = p // w_out % h_out * 2 + OFFSET, p % w_out * 2 + OFFSET
    inside = valid & ((i < h) & (j < w))[:, None]
    values = tl.load(tb.at(x, (p // (h_out * w_out) * h + i) * w + j, c), mask=inside, other=0.0)
    tb.store(tb.at((y, channels), p, c), tl.maximum(values, 0.0), valid)


@triton.jit(do_not_specialize=SIZES)
def _spread_pixels(
    pixels, channels, even, odd, dx, h, w, h_out, w_out,
    ADD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, _, _, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C)
    i, j = p // w % h, p % w
    pixel = (p // (h * w) * h_out + i // 2) * w_out + j // 2
    at_even = valid & ((i % 2 == 0) & (j % 2 == 0))[:, None]
    values = tl.load(tb.at((even, channels), pixel, c), mask=at_even, other=0.0)
    if odd is not None:
        at_odd = valid & ((i % 2 == 1) & (j % 2 == 1))[:, None]
        values += tl.load(tb.at((odd, channels), pixel, c), mask=at_odd, other=0.0)
    target = tb.at((dx, channels), p, c)
    if ADD:
        values += tl.load(target, mask=valid, other=0.0)
    tl.store(target, values, mask=valid)
