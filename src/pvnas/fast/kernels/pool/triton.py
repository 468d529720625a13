"""Both 3x3 poolings of a node in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of, sum_type
from pvnas.fast.kernels.triton_blocks import channel_block, triton_type

# Columns of a program at stride 1, its warps and stages, the fastest on an H200.
FORWARD, BACKWARD = (8, 4, 2), (8, 2, 3)
BLOCK_PIXELS, WARPS = 32, 4
SIZES = ["pixels", "columns", "h", "w", "h_out", "w_out"]


def pool(x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    f, c, h, w = x.shape
    average, maximum = (empty_output(x, c, stride) for _ in range(2))
    which = torch.empty_like(average, dtype=torch.uint8)
    rows, pixels, block = rows_of(x), average.numel() // c, channel_block(c)
    if stride == 1:
        columns, warps, stages = FORWARD
        _pool_rows[(triton.cdiv(f * w, columns) * triton.cdiv(c, block),)](
            rows.tensor, rows.stride, average, maximum, which, f * w, h, w, c,
            BLOCK_Q=columns, BLOCK_C=block, SUM=triton_type(sum_type(x)), STAGES=stages, num_warps=warps,
        )  # fmt: skip
    else:
        _pool[(triton.cdiv(pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
            rows.tensor, rows.stride, average, maximum, which, pixels, h, w, *average.shape[2:], c,
            STRIDE=stride, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(x)), num_warps=WARPS,
        )  # fmt: skip
    return average, maximum, which


def pool_grad(
    average_grad: Tensor,
    max_grad: Tensor,
    which: Tensor,
    x: Tensor,
    stride: int,
    relu_grad: Tensor | None,
    identity_grad: Tensor | None,
    into: Tensor | None = None,
) -> Tensor:
    f, c, h, w = x.shape
    x_grad = rows_of(empty_pictures(x, f, c, h, w) if into is None else into)
    rows, block = rows_of(x), channel_block(c)
    given = (
        average_grad, max_grad, which, rows.tensor, rows.stride, rows.tensor if relu_grad is None else relu_grad,
        rows.tensor if identity_grad is None else identity_grad, x_grad.tensor, x_grad.stride,
    )  # fmt: skip
    settings = {"RELU": relu_grad is not None, "IDENTITY": identity_grad is not None, "BLOCK_C": block}
    settings |= {"ADD": into is not None, "SUM": triton_type(sum_type(x))}
    if stride == 1:
        columns, warps, stages = BACKWARD
        grid = (triton.cdiv(f * w, columns) * triton.cdiv(c, block),)
        _pool_grad_rows[grid](*given, f * w, h, w, c, BLOCK_Q=columns, STAGES=stages, num_warps=warps, **settings)
    else:
        grid = (triton.cdiv(rows.pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)
        sizes = (rows.pixels, h, w, *average_grad.shape[2:], c)
        _pool_grad[grid](*given, *sizes, BLOCK_P=BLOCK_PIXELS, num_warps=WARPS, **settings)
    return x_grad.tensor


@triton.jit(do_not_specialize=SIZES)
def _pool_rows(
    x, row, average, maximum, which, columns, h, w, channels,
    BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """At stride 1, row by row as the stencils: of the two rows before, sums and the first of their maxima are held."""
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.program_id(0) // blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)
    j = q % w
    valid = (q < columns)[:, None] & (c < channels)[None, :]
    left, right = valid & (j >= 1)[:, None], valid & (j < w - 1)[:, None]
    first = (q // w * (h * w) + j).to(tl.int64)[:, None]
    x_at, target = x + first * row + c[None, :], first * channels + c[None, :]
    wide = tl.minimum(j + 2, w) - tl.maximum(j - 1, 0)
    none = tl.full([BLOCK_Q, BLOCK_C], float("-inf"), SUM)
    sum0, sum1 = tl.zeros([BLOCK_Q, BLOCK_C], SUM), tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    best0, best1 = none, none
    at0, at1 = tl.zeros([BLOCK_Q, BLOCK_C], tl.int32), tl.zeros([BLOCK_Q, BLOCK_C], tl.int32)
    for i in tl.range(0, h + 1, num_stages=STAGES):
        there, done = (q[:, None] * 0 + i) < h, valid & ((q[:, None] * 0 + i) >= 1)
        here = x_at + i * w * row
        x0 = tl.load(here - row, mask=left & there, other=0.0).to(SUM)
        x1 = tl.load(here, mask=valid & there, other=0.0).to(SUM)
        x2 = tl.load(here + row, mask=right & there, other=0.0).to(SUM)
        sum2 = x0 + x1 + x2
        best2, at2 = tl.where(left & there, x0, float("-inf")), tl.zeros([BLOCK_Q, BLOCK_C], tl.int32)
        best2, at2 = _larger(best2, at2, x1, 1, valid & there)
        best2, at2 = _larger(best2, at2, x2, 2, right & there)
        best, index = best0, at0
        best, index = _larger(best, index, best1, at1 + 3, valid)
        best, index = _larger(best, index, best2, at2 + 6, valid)
        high = tl.minimum(q * 0 + i + 1, h) - tl.maximum(q * 0 + i - 2, 0)
        mean = (sum0 + sum1 + sum2) / (high * wide).to(SUM)[:, None]
        pixel = target + (i - 1) * w * channels
        tl.store(average + pixel, mean.to(average.dtype.element_ty), mask=done)
        tl.store(maximum + pixel, best.to(maximum.dtype.element_ty), mask=done)
        tl.store(which + pixel, index.to(tl.uint8), mask=done)
        sum0, best0, at0 = sum1, best1, at1
        sum1, best1, at1 = sum2, best2, at2


@triton.jit
def _larger(best, index, values, number, there):
    """The larger of two and which it is: the first of equal ones, as PyTorch's."""
    larger = there & (values > best)
    return tl.where(larger, values, best), tl.where(larger, number, index)


@triton.jit(do_not_specialize=SIZES)
def _pool(
    x, row, average, maximum, which, pixels, h, w, h_out, w_out, channels,
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
    tl.store(maximum + target, best.to(maximum.dtype.element_ty), mask=valid)
    tl.store(which + target, index.to(tl.uint8), mask=valid)


@triton.jit
def _shares(average, maximum, which, pixel, valid, rows, columns, KX: tl.constexpr, SUM: tl.constexpr):
    """What a row of outputs gives to the pixels of a column: by the averages, and by maxima in three rows of theirs."""
    mean = tl.load(average + pixel, mask=valid, other=0.0).to(SUM) / (rows * columns).to(SUM)[:, None]
    most = tl.load(maximum + pixel, mask=valid, other=0.0).to(SUM)
    index = tl.load(which + pixel, mask=valid, other=9)
    return (
        mean, tl.where(index == KX, most, 0.0), tl.where(index == 3 + KX, most, 0.0),
        tl.where(index == 6 + KX, most, 0.0),
    )  # fmt: skip


@triton.jit(do_not_specialize=SIZES)
def _pool_grad_rows(
    average, maximum, which, x, row, relu_grad, identity_grad, dx, dx_row, pixels, h, w, channels,
    RELU: tl.constexpr, IDENTITY: tl.constexpr, ADD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
    SUM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """At stride 1, row by row as the stencils: ``pixels`` are the columns of all frames."""
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.program_id(0) // blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)
    j = q % w
    valid = (q < pixels)[:, None] & (c < channels)[None, :]
    left, right = valid & (j >= 1)[:, None], valid & (j < w - 1)[:, None]
    first = (q // w * (h * w) + j).to(tl.int64)[:, None]
    at, x_at, target = first * channels + c[None, :], first * row + c[None, :], dx + first * dx_row + c[None, :]
    # columns of the picture in the windows of the outputs around a pixel
    n0, n1, n2 = tl.minimum(j + 1, 3), tl.minimum(j + 2, w) - tl.maximum(j - 1, 0), tl.minimum(w - j, 3)
    n0, n2 = tl.minimum(n0, w), tl.minimum(n2, w)
    above, here = tl.zeros([BLOCK_Q, BLOCK_C], SUM), tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    for i in tl.range(0, h + 1, num_stages=STAGES):
        there = (q[:, None] * 0 + i) < h
        done = valid & ((q[:, None] * 0 + i) >= 1)
        rows = tl.minimum(q * 0 + i + 2, h) - tl.maximum(q * 0 + i - 1, 0)
        pixel = at + i * w * channels
        a2, l2, m2, u2 = _shares(average, maximum, which, pixel - channels, left & there, rows, n0, 2, SUM)
        a1, l1, m1, u1 = _shares(average, maximum, which, pixel, valid & there, rows, n1, 1, SUM)
        a0, l0, m0, u0 = _shares(average, maximum, which, pixel + channels, right & there, rows, n2, 0, SUM)
        mean = a0 + a1 + a2
        above += mean + l0 + l1 + l2
        before = (i - 1) * w
        if RELU:
            value = tl.load(x + x_at + before * row, mask=done, other=0.0).to(SUM)
            past = tl.load(relu_grad + at + before * channels, mask=done, other=0.0).to(SUM)
            above += tl.where(value > 0, past, 0.0)
        if IDENTITY:
            above += tl.load(identity_grad + at + before * channels, mask=done, other=0.0).to(SUM)
        if ADD:
            above += tl.load(target + before * dx_row, mask=done, other=0.0).to(SUM)
        tl.store(target + before * dx_row, above.to(dx.dtype.element_ty), mask=done)
        above = here + mean + m0 + m1 + m2
        here = mean + u0 + u1 + u2


@triton.jit(do_not_specialize=SIZES)
def _pool_grad(
    average, maximum, which, x, row, relu_grad, identity_grad, dx, dx_row, pixels, h, w, h_out, w_out, channels,
    RELU: tl.constexpr, IDENTITY: tl.constexpr, ADD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """At stride 2."""
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    valid = (p < pixels)[:, None] & (c < channels)[None, :]
    frame, i, j = p // (h * w), p // w % h, p % w
    at = p.to(tl.int64)[:, None] * channels + c[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    if RELU:
        value = tl.load(x + p.to(tl.int64)[:, None] * row + c[None, :], mask=valid, other=0.0).to(SUM)
        past = tl.load(relu_grad + at, mask=valid, other=0.0).to(SUM)
        total += tl.where(value > 0, past, 0.0)
    if IDENTITY:
        total += tl.load(identity_grad + at, mask=valid, other=0.0).to(SUM)
    for ky in tl.static_range(3):
        for kx in tl.static_range(3):
            a, b = i - ky + 1, j - kx + 1
            inside = (a >= 0) & (b >= 0) & (a % 2 == 0) & (b % 2 == 0)
            a, b = a // 2, b // 2
            inside = inside & (a < h_out) & (b < w_out)
            there = inside[:, None] & valid
            pixel = ((frame * h_out + a) * w_out + b).to(tl.int64)[:, None] * channels + c[None, :]
            # pixels of the input that the window of this output has
            rows = tl.minimum(a * 2 + 2, h) - tl.maximum(a * 2 - 1, 0)
            columns = tl.minimum(b * 2 + 2, w) - tl.maximum(b * 2 - 1, 0)
            count = tl.where(inside, rows * columns, 1).to(SUM)
            total += tl.load(average + pixel, mask=there, other=0.0).to(SUM) / count[:, None]
            chosen = there & (tl.load(which + pixel, mask=there, other=9) == ky * 3 + kx)
            total += tl.load(maximum + pixel, mask=chosen, other=0.0).to(SUM)
    target = dx + p.to(tl.int64)[:, None] * dx_row + c[None, :]
    if ADD:
        total += tl.load(target, mask=valid, other=0.0).to(SUM)
    tl.store(target, total.to(dx.dtype.element_ty), mask=valid)
