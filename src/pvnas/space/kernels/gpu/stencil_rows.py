"""Depthwise 3x3 convolutions at stride 1, row by row: a row of a picture is read once, not for each tap that sees it.

A program takes some columns of the frames and goes down their rows. A row that it reads is the lower row of one output,
the middle of another and the upper of a third; of these two sums, not all nine taps, are held. At dilation 2 the even
and the odd rows are two such series.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ["columns", "each", "h", "w", "edges"]


@triton.jit
def seen(x, mean, inverse, inside, NORMED: tl.constexpr):
    """ReLU(x) or ReLU(BN(x)), zero outside the picture."""
    if NORMED:
        x = tl.where(inside, (x - mean[None, :]) * inverse[None, :], 0.0)
    return tl.maximum(x, 0.0)


@triton.jit
def _within(h, q, i):
    """Whether a picture has this row, as a mask; i is a Python number in Triton's interpreter."""
    row = q[:, None] * 0 + i
    return (row >= 0) & (row < h)


@triton.jit
def _weight(kernel, channel, valid, tap: tl.constexpr, SUM: tl.constexpr):
    return tl.load(kernel + channel * 9 + tap, mask=valid, other=0.0).to(SUM)[None, :]


@triton.jit(do_not_specialize=SIZES)
def depthwise_rows(
    x, row, kernel, mean, inverse, y, columns, h, w, c_in, c_out,
    DILATION: tl.constexpr, NORMED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The convolution of ReLU(x) or ReLU(BN(x))."""
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(0) // blocks % DILATION
    q = tl.program_id(0) // (blocks * DILATION) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    in_c, j = c < c_out, q % w
    valid = (q < columns)[:, None] & in_c[None, :]
    left, right = valid & (j >= DILATION)[:, None], valid & (j < w - DILATION)[:, None]
    first = (q // w * (h * w) + j).to(tl.int64)[:, None]
    source, target = x + first * row + (c % c_in)[None, :], y + first * c_out + c[None, :]
    m, v = tl.zeros([BLOCK_C], SUM), tl.zeros([BLOCK_C], SUM)
    if NORMED:
        m = tl.load(mean + c, mask=in_c, other=0.0).to(SUM)
        v = tl.load(inverse + c, mask=in_c, other=0.0).to(SUM)
    k00, k01, k02 = (
        _weight(kernel, c, in_c, 0, SUM),
        _weight(kernel, c, in_c, 1, SUM),
        _weight(kernel, c, in_c, 2, SUM),
    )
    k10, k11, k12 = (
        _weight(kernel, c, in_c, 3, SUM),
        _weight(kernel, c, in_c, 4, SUM),
        _weight(kernel, c, in_c, 5, SUM),
    )
    k20, k21, k22 = (
        _weight(kernel, c, in_c, 6, SUM),
        _weight(kernel, c, in_c, 7, SUM),
        _weight(kernel, c, in_c, 8, SUM),
    )
    above, here = tl.zeros([BLOCK_Q, BLOCK_C], SUM), tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    for i in range(start, h + DILATION, DILATION):
        there, at = _within(h, q, i), source + i * w * row
        l0, l1, l2 = left & there, valid & there, right & there
        x0 = seen(tl.load(at - DILATION * row, mask=l0, other=0.0).to(SUM), m, v, l0, NORMED)
        x1 = seen(tl.load(at, mask=l1, other=0.0).to(SUM), m, v, l1, NORMED)
        x2 = seen(tl.load(at + DILATION * row, mask=l2, other=0.0).to(SUM), m, v, l2, NORMED)
        above += x0 * k20 + x1 * k21 + x2 * k22
        done = i - DILATION
        tl.store(target + done * w * c_out, above.to(y.dtype.element_ty), mask=valid & _within(h, q, done))
        above = here + x0 * k10 + x1 * k11 + x2 * k12
        here = x0 * k00 + x1 * k01 + x2 * k02


@triton.jit(do_not_specialize=SIZES)
def input_gradient_rows(
    g, row, kernel, x, x_row, mean, inverse, dx, sums, columns, h, w, c_out, edges,
    DILATION: tl.constexpr, NORMED: tl.constexpr, ADDED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """The gradient for what edges have convolved: as ``depthwise_rows`` with the kernels turned, summed over edges.

    ``NORMED``: that was ReLU(BN(x)). Then the gradient is that for BN(x), and ``sums`` (programs, 2, C) are, over the
    columns of a program, the sums of it and of it times BN(x).
    """
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(0) // blocks % DILATION
    q = tl.program_id(0) // (blocks * DILATION) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    in_c, j = c < c_out, q % w
    valid = (q < columns)[:, None] & in_c[None, :]
    left, right = valid & (j >= DILATION)[:, None], valid & (j < w - DILATION)[:, None]
    first = (q // w * (h * w) + j).to(tl.int64)[:, None]
    source, target, own = g + first * row + c[None, :], dx + first * c_out + c[None, :], x + first * x_row + c[None, :]
    m, v = tl.zeros([BLOCK_C], SUM), tl.zeros([BLOCK_C], SUM)
    if NORMED:
        m = tl.load(mean + c, mask=in_c, other=0.0).to(SUM)
        v = tl.load(inverse + c, mask=in_c, other=0.0).to(SUM)
    above, here = tl.zeros([BLOCK_Q, BLOCK_C], SUM), tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    total, along = above, above
    for i in range(start, h + DILATION, DILATION):
        below = tl.zeros([BLOCK_Q, BLOCK_C], SUM)
        there = _within(h, q, i)
        for edge in range(edges):
            at, k = source + i * w * row + edge * c_out, edge * c_out + c
            g0 = tl.load(at - DILATION * row, mask=left & there, other=0.0).to(SUM)
            g1 = tl.load(at, mask=valid & there, other=0.0).to(SUM)
            g2 = tl.load(at + DILATION * row, mask=right & there, other=0.0).to(SUM)
            above += g0 * _weight(kernel, k, in_c, 2, SUM)
            above += g1 * _weight(kernel, k, in_c, 1, SUM)
            above += g2 * _weight(kernel, k, in_c, 0, SUM)
            here += g0 * _weight(kernel, k, in_c, 5, SUM)
            here += g1 * _weight(kernel, k, in_c, 4, SUM)
            here += g2 * _weight(kernel, k, in_c, 3, SUM)
            below += g0 * _weight(kernel, k, in_c, 8, SUM)
            below += g1 * _weight(kernel, k, in_c, 7, SUM)
            below += g2 * _weight(kernel, k, in_c, 6, SUM)
        done = i - DILATION
        stored = valid & _within(h, q, done)
        if NORMED:
            z = tl.load(own + done * w * x_row, mask=stored, other=0.0).to(SUM)
            z = seen(z, m, v, stored, NORMED)
            above = tl.where(z > 0, above, 0.0).to(dx.dtype.element_ty).to(SUM)
            total += above
            along += above * z
        if ADDED:
            above += tl.load(target + done * w * c_out, mask=stored, other=0.0).to(SUM)
        tl.store(target + done * w * c_out, above.to(dx.dtype.element_ty), mask=stored)
        above, here = here, below
    if NORMED:
        place = sums + tl.program_id(0) // blocks * 2 * c_out + c
        tl.store(place, tl.sum(total, 0), mask=in_c)
        tl.store(place + c_out, tl.sum(along, 0), mask=in_c)


@triton.jit(do_not_specialize=SIZES)
def kernel_gradient_rows(
    g, row, x, x_row, mean, inverse, sums, columns, each, h, w, c_in, c_out,
    DILATION: tl.constexpr, NORMED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The gradient for the kernels, of a part of the columns: (parts, kC, 9)."""
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    part, in_c = tl.program_id(0) // blocks, c < c_out
    m, v = tl.zeros([BLOCK_C], SUM), tl.zeros([BLOCK_C], SUM)
    if NORMED:
        m = tl.load(mean + c, mask=in_c, other=0.0).to(SUM)
        v = tl.load(inverse + c, mask=in_c, other=0.0).to(SUM)
    zero = tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    s00, s01, s02, s10, s11, s12, s20, s21, s22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    end = tl.minimum(part * each + each, columns)
    for block in range(part * each, end, BLOCK_Q):
        q = block + tl.arange(0, BLOCK_Q)
        j = q % w
        valid = (q < end)[:, None] & in_c[None, :]
        left, right = valid & (j >= DILATION)[:, None], valid & (j < w - DILATION)[:, None]
        first = (q // w * (h * w) + j).to(tl.int64)[:, None]
        source, gradient = x + first * x_row + (c % c_in)[None, :], g + first * row + c[None, :]
        for start in tl.static_range(DILATION):
            above = zero
            here = tl.load(gradient + start * w * row, mask=valid & _within(h, q, start), other=0.0).to(SUM)
            for i in range(start, h, DILATION):
                at, later = source + i * w * x_row, i + DILATION
                x0 = seen(tl.load(at - DILATION * x_row, mask=left, other=0.0).to(SUM), m, v, left, NORMED)
                x1 = seen(tl.load(at, mask=valid, other=0.0).to(SUM), m, v, valid, NORMED)
                x2 = seen(tl.load(at + DILATION * x_row, mask=right, other=0.0).to(SUM), m, v, right, NORMED)
                below = tl.load(gradient + later * w * row, mask=valid & _within(h, q, later), other=0.0).to(SUM)
                s00, s01, s02 = s00 + below * x0, s01 + below * x1, s02 + below * x2
                s10, s11, s12 = s10 + here * x0, s11 + here * x1, s12 + here * x2
                s20, s21, s22 = s20 + above * x0, s21 + above * x1, s22 + above * x2
                above, here = here, below
    target = sums + (part * c_out + c) * 9
    tl.store(target, tl.sum(s00, 0), mask=in_c)
    tl.store(target + 1, tl.sum(s01, 0), mask=in_c)
    tl.store(target + 2, tl.sum(s02, 0), mask=in_c)
    tl.store(target + 3, tl.sum(s10, 0), mask=in_c)
    tl.store(target + 4, tl.sum(s11, 0), mask=in_c)
    tl.store(target + 5, tl.sum(s12, 0), mask=in_c)
    tl.store(target + 6, tl.sum(s20, 0), mask=in_c)
    tl.store(target + 7, tl.sum(s21, 0), mask=in_c)
    tl.store(target + 8, tl.sum(s22, 0), mask=in_c)
