"""Both 3x3 poolings of a node in Triton. At stride 1 row by row, as ``depthwise``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels import triton_blocks as tb
from pvnas.fast.kernels.tensors import empty_output, empty_pictures

FORWARD, BACKWARD, STRIDE2 = tb.Setting(8, 4, 2), tb.Setting(8, 2, 3), tb.Setting(32)
SIZES = ["pixels", "columns", "h", "w", "h_out", "w_out"]


def pool(x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    f, c, h, w = x.shape
    average, maximum = (empty_output(x, c, stride) for _ in range(2))
    which = torch.empty_like(average, dtype=torch.uint8)
    given = (c, tb.strided(x), average, maximum, which, h, w)
    if stride == 1:
        tb.launch(_pool_rows, FORWARD, f * w, *given, STAGES=FORWARD.stages)
    else:
        tb.launch(_pool_stride2, STRIDE2, average.numel() // c, *given, *average.shape[2:])
    return average, maximum, which


def pool_grad(
    average_grad: Tensor | None,
    max_grad: Tensor | None,
    which: Tensor | None,
    x: Tensor,
    stride: int,
    relu_grad: Tensor | None,
    identity_grad: Tensor | None,
    into: Tensor | None = None,
) -> Tensor:
    f, c, h, w = x.shape
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    # One that is missing is taken for zero: networks seldom keep poolings.
    average_grad = empty_output(x, c, stride).zero_() if average_grad is None else average_grad
    max_grad = torch.zeros_like(average_grad) if max_grad is None else max_grad
    which = torch.zeros_like(max_grad, dtype=torch.uint8) if which is None else which
    given = (c, average_grad, max_grad, which, tb.strided(x), relu_grad, identity_grad, tb.strided(x_grad), h, w)
    if stride == 1:
        tb.launch(_pool_grad_rows, BACKWARD, f * w, *given, ADD=into is not None, STAGES=BACKWARD.stages)
    else:
        tb.launch(_pool_grad_stride2, STRIDE2, f * h * w, *given, *average_grad.shape[2:], ADD=into is not None)
    return x_grad


@triton.jit
def _larger(best, index, values, number, there):
    """The larger of two and which it is: the first of equal ones, as PyTorch's."""
    larger = there & (values > best)
    return tl.where(larger, values, best), tl.where(larger, number, index)


@triton.jit
def _store_pooled(outputs, offset, mean, best, index, mask):
    tb.store(outputs[0] + offset, mean, mask)
    tb.store(outputs[1] + offset, best, mask)
    tb.store(outputs[2] + offset, index, mask)


@triton.jit(do_not_specialize=SIZES)
def _pool_rows(
    columns, channels, x, average, maximum, which, h, w,
    STAGES: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Of the two rows before, sums and the first of their maxima are held."""
    q, c, _, _, first, near = tb.columns_of_program(columns, channels, h, w, 1, BLOCK_P, BLOCK_C)
    left, valid, right = near
    j = q % w
    x_at, target = tb.at(x, first, c), first.to(tl.int64)[:, None] * channels + c[None, :]
    wide = tl.minimum(j + 2, w) - tl.maximum(j - 1, 0)
    # One value for each: Triton takes a variable that begins as another's value and becomes that one for unchanged.
    sum0, sum1 = tb.zeros(average, BLOCK_P, BLOCK_C), tb.zeros(average, BLOCK_P, BLOCK_C)
    best0, best1 = sum0 + float("-inf"), sum1 + float("-inf")
    at0, at1 = tl.zeros([BLOCK_P, BLOCK_C], tl.int32), tl.zeros([BLOCK_P, BLOCK_C], tl.int32)
    for i in tl.range(0, h + 1, num_stages=STAGES):
        there, done = (q[:, None] * 0 + i) < h, valid & ((q[:, None] * 0 + i) >= 1)
        x0, x1, x2 = tb.load_three(x_at + i * w * x[1], x[1], near, there)
        x0, x1, x2 = x0.to(sum0.dtype), x1.to(sum0.dtype), x2.to(sum0.dtype)
        sum2 = x0 + x1 + x2
        best2, at2 = _larger(tl.where(left & there, x0, float("-inf")), 0, x1, 1, valid & there)
        best2, at2 = _larger(best2, at2, x2, 2, right & there)
        best, index = _larger(best0, at0, best1, at1 + 3, valid)
        best, index = _larger(best, index, best2, at2 + 6, valid)
        high = tl.minimum(q * 0 + i + 1, h) - tl.maximum(q * 0 + i - 2, 0)
        mean = (sum0 + sum1 + sum2) / (high * wide).to(sum0.dtype)[:, None]
        _store_pooled((average, maximum, which), target + (i - 1) * w * channels, mean, best, index, done)
        sum0, best0, at0 = sum1, best1, at1
        sum1, best1, at1 = sum2, best2, at2


@triton.jit(do_not_specialize=SIZES)
def _pool_stride2(
    pixels, channels, x, average, maximum, which, h, w, h_out, w_out, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    p, c, _, _, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C)
    frame, i, j = p // (h_out * w_out), p // w_out % h_out, p % w_out
    total = tb.zeros(average, BLOCK_P, BLOCK_C)
    count, best = tl.zeros([BLOCK_P], total.dtype), total + float("-inf")
    index = tl.zeros([BLOCK_P, BLOCK_C], tl.int32)
    for tap in tl.static_range(9):
        a, b = i * 2 + tap // 3 - 1, j * 2 + tap % 3 - 1
        inside = (a >= 0) & (a < h) & (b >= 0) & (b < w)
        values = tb.load(tb.at(x, (frame * h + a) * w + b, c), inside[:, None] & valid)
        total += values
        count += inside.to(total.dtype)
        best, index = _larger(best, index, values, tap, inside[:, None] & valid)
    target = p.to(tl.int64)[:, None] * channels + c[None, :]
    _store_pooled((average, maximum, which), target, total / count[:, None], best, index, valid)


@triton.jit
def _shares(average, maximum, which, pixel, mask, rows, columns, KX: tl.constexpr):
    """What a row of outputs gives to the pixels of a column: by the averages, and by maxima in three rows of theirs."""
    mean, most = tb.load(average + pixel, mask), tb.load(maximum + pixel, mask)
    index = tl.load(which + pixel, mask=mask, other=9)
    return (
        mean / (rows * columns).to(mean.dtype)[:, None],
        tl.where(index == KX, most, 0.0),
        tl.where(index == 3 + KX, most, 0.0),
        tl.where(index == 6 + KX, most, 0.0),
    )


@triton.jit
def _add_grads(total, x_at, relu_grad, identity_grad, offset, shift, mask):
    """Add the gradients for ReLU(x) and for x itself."""
    if relu_grad is not None:
        value, past = tb.load(x_at, mask), tb.load(relu_grad + offset + shift, mask)
        total += tl.where(value > 0, past, 0.0)
    if identity_grad is not None:
        total += tb.load(identity_grad + offset + shift, mask)
    return total


@triton.jit(do_not_specialize=SIZES)
def _pool_grad_rows(
    columns, channels, average, maximum, which, x, relu_grad, identity_grad, dx, h, w,
    ADD: tl.constexpr, STAGES: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    q, c, _, _, first, near = tb.columns_of_program(columns, channels, h, w, 1, BLOCK_P, BLOCK_C)
    left, valid, right = near
    j = q % w
    offset, x_at, target = first.to(tl.int64)[:, None] * channels + c[None, :], tb.at(x, first, c), tb.at(dx, first, c)
    # columns of the picture in the windows of the outputs around a pixel
    n0, n1, n2 = tl.minimum(j + 1, 3), tl.minimum(j + 2, w) - tl.maximum(j - 1, 0), tl.minimum(w - j, 3)
    n0, n2 = tl.minimum(n0, w), tl.minimum(n2, w)
    above = tb.zeros(dx[0], BLOCK_P, BLOCK_C)
    here = above
    for i in tl.range(0, h + 1, num_stages=STAGES):
        there = (q[:, None] * 0 + i) < h
        done = valid & ((q[:, None] * 0 + i) >= 1)
        rows = tl.minimum(q * 0 + i + 2, h) - tl.maximum(q * 0 + i - 1, 0)
        pixel = offset + i * w * channels
        a2, l2, m2, u2 = _shares(average, maximum, which, pixel - channels, left & there, rows, n0, 2)
        a1, l1, m1, u1 = _shares(average, maximum, which, pixel, valid & there, rows, n1, 1)
        a0, l0, m0, u0 = _shares(average, maximum, which, pixel + channels, right & there, rows, n2, 0)
        mean = a0 + a1 + a2
        above += mean + l0 + l1 + l2
        before = (i - 1) * w
        above = _add_grads(above, x_at + before * x[1], relu_grad, identity_grad, offset, before * channels, done)
        if ADD:
            above += tb.load(target + before * dx[1], done)
        tb.store(target + before * dx[1], above, done)
        above = here + mean + m0 + m1 + m2
        here = mean + u0 + u1 + u2


@triton.jit(do_not_specialize=SIZES)
def _pool_grad_stride2(
    pixels, channels, average, maximum, which, x, relu_grad, identity_grad, dx, h, w, h_out, w_out,
    ADD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, _, _, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C)
    frame, i, j = p // (h * w), p // w % h, p % w
    offset = p.to(tl.int64)[:, None] * channels + c[None, :]
    total = _add_grads(tb.zeros(dx[0], BLOCK_P, BLOCK_C), tb.at(x, p, c), relu_grad, identity_grad, offset, 0, valid)
    for tap in tl.static_range(9):
        a, b = i - tap // 3 + 1, j - tap % 3 + 1
        inside = (a >= 0) & (b >= 0) & (a % 2 == 0) & (b % 2 == 0)
        a, b = a // 2, b // 2
        inside = inside & (a < h_out) & (b < w_out)
        there = inside[:, None] & valid
        pixel = ((frame * h_out + a) * w_out + b).to(tl.int64)[:, None] * channels + c[None, :]
        # pixels of the input that the window of this output has
        rows = tl.minimum(a * 2 + 2, h) - tl.maximum(a * 2 - 1, 0)
        columns = tl.minimum(b * 2 + 2, w) - tl.maximum(b * 2 - 1, 0)
        count = tl.where(inside, rows * columns, 1).to(total.dtype)
        total += tb.load(average + pixel, there) / count[:, None]
        total += tb.load(maximum + pixel, there & (tl.load(which + pixel, mask=there, other=9) == tap))
    target = tb.at(dx, p, c)
    if ADD:
        total += tb.load(target, valid)
    tb.store(target, total, valid)
