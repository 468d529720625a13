"""Depthwise 3x3 convolutions at stride 1, row by row: a row of a picture is read once, not for each tap that sees it.

A program takes some columns of the frames and goes down their rows. A row that it reads is the lower row of one output,
the middle of another and the upper of a third; of these two sums, not all nine taps, are held. At dilation 2 the even
and the odd rows are two such series. ``STAGES``: rows are asked for so many steps before they are used.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ["columns", "each", "h", "w"]


@triton.jit
def prologue(x, mean, inverse, inside, NORMED: tl.constexpr):
    """What a convolution makes of x before it multiplies: ReLU(x) or ReLU(BN(x)), zero outside the picture."""
    if NORMED:
        x = tl.where(inside, (x - mean[None, :]) * inverse[None, :], 0.0)
    return tl.maximum(x, 0.0)


@triton.jit
def load_norm(mean, inverse, c, in_c, NORMED: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr):
    """The mean and 1 / standard deviation of some channels, where there is a batch norm."""
    m, v = tl.zeros([BLOCK_C], SUM), tl.zeros([BLOCK_C], SUM)
    if NORMED:
        m = tl.load(mean + c, mask=in_c, other=0.0).to(SUM)
        v = tl.load(inverse + c, mask=in_c, other=0.0).to(SUM)
    return m, v


@triton.jit
def taps_of(kernel, channel, valid, k_channel, k_tap, SUM: tl.constexpr):
    """The nine taps of each channel's kernel. Neighbours in memory where ``k_channel`` is 1, and so read together."""
    at = kernel + channel * k_channel
    return (
        tl.load(at, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + k_tap, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + 2 * k_tap, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + 3 * k_tap, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + 4 * k_tap, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + 5 * k_tap, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + 6 * k_tap, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + 7 * k_tap, mask=valid, other=0.0).to(SUM)[None, :],
        tl.load(at + 8 * k_tap, mask=valid, other=0.0).to(SUM)[None, :],
    )


@triton.jit
def _within(h, q, i):
    """Whether a picture has this row, as a mask; i is a Python number in Triton's interpreter."""
    row = q[:, None] * 0 + i
    return (row >= 0) & (row < h)


@triton.jit
def _columns(q, end, in_c, h, w, DILATION: tl.constexpr):
    """Of some columns of the frames: the number of the first pixel of each, masks of them and of their neighbours."""
    j = q % w
    valid = (q < end)[:, None] & in_c[None, :]
    left, right = valid & (j >= DILATION)[:, None], valid & (j < w - DILATION)[:, None]
    return (q // w * (h * w) + j).to(tl.int64)[:, None], valid, left, right


@triton.jit
def _three(at, step, left, middle, right, there):
    """A row's pixels and their neighbours on both sides, as they lie in memory."""
    return (
        tl.load(at - step, mask=left & there, other=0.0),
        tl.load(at, mask=middle & there, other=0.0),
        tl.load(at + step, mask=right & there, other=0.0),
    )


@triton.jit
def _prologue_three(x0, x1, x2, mean, inverse, left, middle, right, there, NORMED: tl.constexpr, SUM: tl.constexpr):
    return (
        prologue(x0.to(SUM), mean, inverse, left & there, NORMED),
        prologue(x1.to(SUM), mean, inverse, middle & there, NORMED),
        prologue(x2.to(SUM), mean, inverse, right & there, NORMED),
    )


@triton.jit(do_not_specialize=SIZES)
def depthwise_rows(
    x, row, kernel, k_channel, k_tap, mean, inverse, y, columns, h, w, c_in, c_out,
    DILATION: tl.constexpr, NORMED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """The convolution of ReLU(x) or ReLU(BN(x))."""
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(0) // blocks % DILATION
    q = tl.program_id(0) // (blocks * DILATION) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    in_c = c < c_out
    first, valid, left, right = _columns(q, columns, in_c, h, w, DILATION)
    from_x, target = x + first * row + (c % c_in)[None, :], y + first * c_out + c[None, :]
    m, v = load_norm(mean, inverse, c, in_c, NORMED, BLOCK_C, SUM)
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = taps_of(kernel, c, in_c, k_channel, k_tap, SUM)
    above, here = tl.zeros([BLOCK_Q, BLOCK_C], SUM), tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    step = DILATION * row
    for i in tl.range(start, h + DILATION, DILATION, num_stages=STAGES):
        there, done = _within(h, q, i), i - DILATION
        x0, x1, x2 = _three(from_x + i * w * row, step, left, valid, right, there)
        x0, x1, x2 = _prologue_three(x0, x1, x2, m, v, left, valid, right, there, NORMED, SUM)
        above = above + x0 * k6 + x1 * k7 + x2 * k8  # each a fused multiplication and addition
        tl.store(target + done * w * c_out, above.to(y.dtype.element_ty), mask=valid & _within(h, q, done))
        above = here + x0 * k3 + x1 * k4 + x2 * k5
        here = x0 * k0 + x1 * k1 + x2 * k2


@triton.jit(do_not_specialize=SIZES)
def input_grad_rows(
    g, row, kernel, k_channel, k_tap, x, x_row, mean, inverse, dx, sums, columns, h, w, c_out,
    EDGES: tl.constexpr, DILATION: tl.constexpr, NORMED: tl.constexpr, ADD: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_C: tl.constexpr, SUM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The gradient for what edges convolve: as ``depthwise_rows`` with the kernels turned, summed over edges.

    ``NORMED``: that was ReLU(BN(x)). Then the gradient is that for BN(x), and ``sums`` (programs, 2, C) are, over the
    columns of a program, the sums of it and of it times BN(x).
    """
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(0) // blocks % DILATION
    q = tl.program_id(0) // (blocks * DILATION) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    in_c = c < c_out
    first, valid, left, right = _columns(q, columns, in_c, h, w, DILATION)
    from_g, target, z_at = g + first * row + c[None, :], dx + first * c_out + c[None, :], x + first * x_row + c[None, :]
    m, v = load_norm(mean, inverse, c, in_c, NORMED, BLOCK_C, SUM)
    step = DILATION * row
    above, here = tl.zeros([BLOCK_Q, BLOCK_C], SUM), tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    total, product = above, above
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = taps_of(kernel, c, in_c, k_channel, k_tap, SUM)
    for i in tl.range(start, h + DILATION, DILATION, num_stages=STAGES):
        below = tl.zeros([BLOCK_Q, BLOCK_C], SUM)
        there = _within(h, q, i)
        for edge in tl.static_range(EDGES):
            g0, g1, g2 = _three(from_g + i * w * row + edge * c_out, step, left, valid, right, there)
            g0, g1, g2 = g0.to(SUM), g1.to(SUM), g2.to(SUM)
            if EDGES > 1:
                k0, k1, k2, k3, k4, k5, k6, k7, k8 = taps_of(kernel, edge * c_out + c, in_c, k_channel, k_tap, SUM)
            above = above + g0 * k2 + g1 * k1 + g2 * k0
            here = here + g0 * k5 + g1 * k4 + g2 * k3
            below = below + g0 * k8 + g1 * k7 + g2 * k6
        done = i - DILATION
        stored = valid & _within(h, q, done)
        if NORMED:
            z = tl.load(z_at + done * w * x_row, mask=stored, other=0.0).to(SUM)
            z = prologue(z, m, v, stored, NORMED)
            above = tl.where(z > 0, above, 0.0).to(dx.dtype.element_ty).to(SUM)
            total += above
            product += above * z
        if ADD:
            above += tl.load(target + done * w * c_out, mask=stored, other=0.0).to(SUM)
        tl.store(target + done * w * c_out, above.to(dx.dtype.element_ty), mask=stored)
        above, here = here, below
    if NORMED:
        sums_at = sums + tl.program_id(0) // blocks * 2 * c_out + c
        tl.store(sums_at, tl.sum(total, 0), mask=in_c)
        tl.store(sums_at + c_out, tl.sum(product, 0), mask=in_c)


@triton.jit(do_not_specialize=SIZES)
def kernel_grad_rows(
    g, row, x, x_row, mean, inverse, sums, columns, each, h, w, c_in, c_out,
    DILATION: tl.constexpr, NORMED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """The gradient for the kernels, of a part of the columns: (parts, kC, 9)."""
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    part, in_c = tl.program_id(0) // blocks, c < c_out
    m, v = load_norm(mean, inverse, c, in_c, NORMED, BLOCK_C, SUM)
    zero = tl.zeros([BLOCK_Q, BLOCK_C], SUM)
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    step = DILATION * x_row
    end = tl.minimum(part * each + each, columns)
    for block in range(part * each, end, BLOCK_Q):
        q = block + tl.arange(0, BLOCK_Q)
        first, valid, left, right = _columns(q, end, in_c, h, w, DILATION)
        from_x, gradient = x + first * x_row + (c % c_in)[None, :], g + first * row + c[None, :]
        for start in tl.static_range(DILATION):
            for i in tl.range(start, h, DILATION, num_stages=STAGES):
                there = _within(h, q, i)
                x0, x1, x2 = _three(from_x + i * w * x_row, step, left, valid, right, there)
                x0, x1, x2 = _prologue_three(x0, x1, x2, m, v, left, valid, right, there, NORMED, SUM)
                at, before, later = gradient + i * w * row, i - DILATION, i + DILATION
                above = tl.load(at - DILATION * w * row, mask=valid & _within(h, q, before), other=0.0).to(SUM)
                here = tl.load(at, mask=valid & there, other=0.0).to(SUM)
                below = tl.load(at + DILATION * w * row, mask=valid & _within(h, q, later), other=0.0).to(SUM)
                s0, s1, s2 = s0 + below * x0, s1 + below * x1, s2 + below * x2
                s3, s4, s5 = s3 + here * x0, s4 + here * x1, s5 + here * x2
                s6, s7, s8 = s6 + above * x0, s7 + above * x1, s8 + above * x2
    store_taps(sums + (part * c_out + c) * 9, in_c, s0, s1, s2, s3, s4, s5, s6, s7, s8)


@triton.jit
def store_taps(target, valid, s0, s1, s2, s3, s4, s5, s6, s7, s8):
    """Write the sums of nine taps next to each other."""
    tl.store(target, tl.sum(s0, 0), mask=valid)
    tl.store(target + 1, tl.sum(s1, 0), mask=valid)
    tl.store(target + 2, tl.sum(s2, 0), mask=valid)
    tl.store(target + 3, tl.sum(s3, 0), mask=valid)
    tl.store(target + 4, tl.sum(s4, 0), mask=valid)
    tl.store(target + 5, tl.sum(s5, 0), mask=valid)
    tl.store(target + 6, tl.sum(s6, 0), mask=valid)
    tl.store(target + 7, tl.sum(s7, 0), mask=valid)
    tl.store(target + 8, tl.sum(s8, 0), mask=valid)
