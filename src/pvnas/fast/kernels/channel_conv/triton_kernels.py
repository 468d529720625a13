"""The matrix products of ``channel_conv`` in Triton.

Legend: P pixels of a program, K channels that it reads at once, N that it writes.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ["pixels", "columns", "each", "frame", "frames", "runs", "summed", "edges"]


@triton.jit
def _weights(kernel, c, n_from, k_from, to, n_to, k_to):
    """A kernel's weights from channels ``c`` to channels ``to``."""
    at = kernel + c[:, None] * k_from + to[None, :] * k_to
    return tl.load(at, mask=(c < n_from)[:, None] & (to < n_to)[None, :], other=0.0)


@triton.jit
def _read(at, mask, RELU: tl.constexpr):
    values = tl.load(at, mask=mask, other=0.0)
    if RELU:
        values = tl.maximum(values, 0.0).to(values.dtype)
    return values


@triton.jit
def _multiply_one(at, c, n_from, weight, RELU: tl.constexpr, SUM: tl.constexpr):
    """The product of one pixel, (N,)."""
    values = _read(at + c, c < n_from, RELU).to(SUM)
    return tl.sum(values[:, None] * weight.to(SUM), 0)


@triton.jit
def _store_moments(moments, part, y_channels, to, in_to, at, sums, squares, count, SUM: tl.constexpr):
    """Mean, and sum of squared differences from it, of sums around ``at``: squares far from zero would lose theirs."""
    mean = tl.sum(sums, 0) / count.to(SUM)
    target = moments + part.to(tl.int64) * 2 * y_channels + to
    tl.store(target, at + mean, mask=in_to)
    tl.store(target + y_channels, tl.sum(squares, 0) - mean * mean * count.to(SUM), mask=in_to)


@triton.jit(do_not_specialize=SIZES)
def multiply_once(
    x, x_row, x_edge, kernel, k_edge, k_from, k_to, y, y_row, y_edge, mask, mask_row, moments, y_channels, pixels, each,
    n_from, n_to, runs,
    RELU: tl.constexpr, MASKED: tl.constexpr, MOMENTS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each run: y[p] = sum over from of x[p, from] kernel[from, to], whose kernel a program reads once.

    ``MASKED``: zero where ``mask`` is not above zero. ``MOMENTS``: write ``moments`` of y, (parts, 2, kN).
    """
    blocks = tl.cdiv(n_to, BLOCK_N)
    to = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    run, part = tl.program_id(0) // blocks % runs, tl.program_id(0) // (blocks * runs)
    c, in_to, offset = tl.arange(0, BLOCK_K), to < n_to, tl.arange(0, BLOCK_P)
    begin, end = part * each, tl.minimum(part * each + each, pixels)
    weight = _weights(kernel + run * k_edge, c, n_from, k_from, to, n_to, k_to)
    at, sums, squares = tl.zeros([BLOCK_N], SUM), tl.zeros([1, 1], SUM), tl.zeros([1, 1], SUM)
    if MOMENTS:
        sums, squares = tl.zeros([BLOCK_P, BLOCK_N], SUM), tl.zeros([BLOCK_P, BLOCK_N], SUM)
        at = _multiply_one(x + begin.to(tl.int64) * x_row + run * x_edge, c, n_from, weight, RELU, SUM)
    for first in range(begin, end, BLOCK_P):
        p, inside = tl.full((), first, tl.int64), (first + offset < end)[:, None]
        x_at = x + p * x_row + run * x_edge + offset[:, None] * x_row + c[None, :]
        values = _read(x_at, inside & (c < n_from)[None, :], RELU)
        total = tl.dot(values, weight, input_precision=PRECISION, out_dtype=SUM)
        if MASKED:
            mask_at = mask + p * mask_row + run * y_edge + offset[:, None] * mask_row + to[None, :]
            total = tl.where(tl.load(mask_at, mask=inside & in_to[None, :], other=0.0) > 0, total, 0.0)
        result = total.to(y.dtype.element_ty)
        target = y + p * y_row + run * y_edge + offset[:, None] * y_row + to[None, :]
        tl.store(target, result, mask=inside & in_to[None, :])
        if MOMENTS:
            away = tl.where(inside, result.to(SUM) - at[None, :], 0.0)
            sums += away
            squares += away * away
    if MOMENTS:
        _store_moments(moments + run * y_edge, part, y_channels, to, in_to, at, sums, squares, end - begin, SUM)


@triton.jit(do_not_specialize=SIZES)
def multiply_in_time(
    x, x_row, x_edge, kernel, k_edge, k_from, k_to, k_tap, y, y_row, y_edge, moments, y_channels, columns, each, frame,
    frames, n_from, n_to, runs, SIGN: tl.constexpr, RELU: tl.constexpr, MOMENTS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each run: y[t] = sum over from and three taps of x[t + SIGN * (tap - 1), from] kernel[tap, from, to].

    Frame by frame: a frame is read once, for the three that it reaches. ``columns``: pixels of a frame in all clips.
    """
    blocks = tl.cdiv(n_to, BLOCK_N)
    to = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    run, part = tl.program_id(0) // blocks % runs, tl.program_id(0) // (blocks * runs)
    c, in_to, offset = tl.arange(0, BLOCK_K), to < n_to, tl.arange(0, BLOCK_P)
    begin, end = part * each, tl.minimum(part * each + each, columns)
    taps = kernel + run * k_edge
    to_before = _weights(taps + (1 + SIGN) * k_tap, c, n_from, k_from, to, n_to, k_to)
    to_same = _weights(taps + k_tap, c, n_from, k_from, to, n_to, k_to)
    to_after = _weights(taps + (1 - SIGN) * k_tap, c, n_from, k_from, to, n_to, k_to)
    at, sums, squares = tl.zeros([BLOCK_N], SUM), tl.zeros([1, 1], SUM), tl.zeros([1, 1], SUM)
    if MOMENTS:
        sums, squares = tl.zeros([BLOCK_P, BLOCK_N], SUM), tl.zeros([BLOCK_P, BLOCK_N], SUM)
        one = x + run * x_edge + (begin // frame * (frames * frame) + begin % frame).to(tl.int64) * x_row
        at = _multiply_one(one, c, n_from, to_same, RELU, SUM)
    for first in range(begin, end, BLOCK_P):
        q = first + offset
        inside = (q < end)[:, None]
        pixel = (q // frame * (frames * frame) + q % frame).to(tl.int64)[:, None]
        x_at, target = x + run * x_edge + pixel * x_row + c[None, :], y + run * y_edge + pixel * y_row + to[None, :]
        before, same = tl.zeros([BLOCK_P, BLOCK_N], SUM), tl.zeros([BLOCK_P, BLOCK_N], SUM)
        for t in range(frames + 1):
            there, done = inside & (offset[:, None] * 0 + t < frames), inside & (offset[:, None] * 0 + t > 0)
            values = _read(x_at + t * frame * x_row, there & (c < n_from)[None, :], RELU)
            before = tl.dot(values, to_before, before, input_precision=PRECISION, out_dtype=SUM)
            result = before.to(y.dtype.element_ty)
            tl.store(target + (t - 1) * frame * y_row, result, mask=done & in_to[None, :])
            if MOMENTS:
                away = tl.where(done, result.to(SUM) - at[None, :], 0.0)
                sums += away
                squares += away * away
            before = tl.dot(values, to_same, same, input_precision=PRECISION, out_dtype=SUM)
            same = tl.dot(values, to_after, input_precision=PRECISION, out_dtype=SUM)
    if MOMENTS:
        count = (end - begin) * frames
        _store_moments(moments + run * y_edge, part, y_channels, to, in_to, at, sums, squares, count, SUM)


@triton.jit(do_not_specialize=SIZES)
def multiply_in_steps(
    x, x_row, x_edge, kernel, k_edge, k_from, k_to, k_tap, y, y_row, y_edge, mask, mask_row, pixels, frame, frames,
    n_from, n_to, runs, summed,
    TAPS: tl.constexpr, SIGN: tl.constexpr, RELU: tl.constexpr, MASKED: tl.constexpr, BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each run: y[p] = sum over edges, taps and from of x[p + SIGN * (tap - 1) frames, from] kernel[from, to]."""
    blocks = tl.cdiv(n_to, BLOCK_N)
    run = tl.program_id(0) // blocks % runs
    p = tl.program_id(0) // (blocks * runs) * BLOCK_P + tl.arange(0, BLOCK_P)
    to = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    time = p // frame % frames
    total = tl.zeros([BLOCK_P, BLOCK_N], SUM)
    parts = tl.cdiv(n_from, BLOCK_K)
    for step in range(summed * TAPS * parts):  # one loop, whose loads run ahead of its products
        c = step % parts * BLOCK_K + tl.arange(0, BLOCK_K)
        tap, edge = step // parts % TAPS, step // (parts * TAPS) + run
        shift = SIGN * (tap - TAPS // 2)
        there = (p < pixels) & (time + shift >= 0) & (time + shift < frames)
        rows = x + (p + shift * frame).to(tl.int64)[:, None] * x_row + edge * x_edge
        values = _read(rows + c[None, :], there[:, None] & (c < n_from)[None, :], RELU)
        weight = _weights(kernel + edge * k_edge + tap * k_tap, c, n_from, k_from, to, n_to, k_to)
        total = tl.dot(values, weight, total, input_precision=PRECISION, out_dtype=SUM)
    target, valid = y + p.to(tl.int64)[:, None] * y_row + run * y_edge + to[None, :], (p < pixels)[:, None]
    valid = valid & (to < n_to)[None, :]
    if MASKED:
        mask_at = mask + p.to(tl.int64)[:, None] * mask_row + run * y_edge + to[None, :]
        total = tl.where(tl.load(mask_at, mask=valid, other=0.0) > 0, total, 0.0)
    tl.store(target, total.to(y.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def kernel_grad(
    g, g_row, g_edge, x, x_row, x_edge, sums, pixels, each, frame, frames, n_b, n_a, edges,
    TAPS: tl.constexpr, RELU: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_P: tl.constexpr,
    SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each edge and tap: sums[b, a] = sum over a part of the pixels of g[p, b] x[p + (tap - 1) frames, a]."""
    program = tl.program_id(0)
    blocks_a, blocks_b = tl.cdiv(n_a, BLOCK_A), tl.cdiv(n_b, BLOCK_B)
    a = program % blocks_a * BLOCK_A + tl.arange(0, BLOCK_A)
    program = program // blocks_a
    b = program % blocks_b * BLOCK_B + tl.arange(0, BLOCK_B)
    program = program // blocks_b
    tap, edge, part = program % TAPS, program // TAPS % edges, program // (TAPS * edges)
    shift, offset = tap - TAPS // 2, tl.arange(0, BLOCK_P)
    total = tl.zeros([BLOCK_B, BLOCK_A], SUM)
    end = tl.minimum(part * each + each, pixels)
    for first in range(part * each, end, BLOCK_P):
        p, inside = tl.full((), first, tl.int64), first + offset < end
        there = inside
        if TAPS > 1:
            time = (first + offset) // frame % frames + shift
            there = inside & (time >= 0) & (time < frames)
        gradient = tl.load(
            g + p * g_row + edge * g_edge + offset[None, :] * g_row + b[:, None],
            mask=inside[None, :] & (b < n_b)[:, None], other=0.0,
        )  # fmt: skip
        x_at = x + (p + shift * frame) * x_row + edge * x_edge + offset[:, None] * x_row + a[None, :]
        values = _read(x_at, there[:, None] & (a < n_a)[None, :], RELU)
        total = tl.dot(gradient, values, total, input_precision=PRECISION, out_dtype=SUM)
    target = sums + (part * edges + edge).to(tl.int64) * n_b * n_a * TAPS + (b[:, None] * n_a + a[None, :]) * TAPS + tap
    tl.store(target, total, mask=(b < n_b)[:, None] & (a < n_a)[None, :])
