"""Convolutions 1x1x1 and 3x1x1 of several edges as matrix products over channels, forward and backward.

Legend: A channels that enter an edge, B that leave it, t taps over time (1 or 3), T frames of a clip.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pvnas.space.kernels.rows import channel_block, empty_pictures, parts_of, rows_of, sum_type, triton_type

BLOCK_PIXELS, BLOCK_PIXELS_OF_GRADIENT = 128, 64
WARPS = 4
SIZES = ["pixels", "each", "frame", "frames", "runs", "summed", "edges"]


def mix_channels(x_FCHW: Tensor, kernel: Tensor, edges: int, frames: int = 1, rectified: bool = False) -> Tensor:
    """Return the convolutions of x (F, kA, H, W), or of one x (F, A, H, W) for all edges, with kernels (kB, A, t, 1).

    ``frames``: T; ``rectified``: of ReLU(x).
    """
    f, _, h, w = x_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    y, x = empty_pictures(x_FCHW, f, edges * b, h, w), rows_of(x_FCHW)
    shared = x_FCHW.shape[1] == a
    # kernel[edge, to, from, tap] by strides: (edge, from, to, tap)
    _launch(x, y, kernel.contiguous(), (b * a * taps, taps, a * taps, 1), (0 if shared else a, b), (a, b, edges), 1, taps,
            1, h * w, frames, rectified)  # fmt: skip
    return y


def mix_channels_input_gradient(
    g_FCHW: Tensor, kernel: Tensor, edges: int, frames: int = 1, shared: bool = False
) -> Tensor:
    """Return the gradient for what ``mix_channels`` reads: (F, kA, H, W), or summed (F, A, H, W) where it is shared."""
    f, _, h, w = g_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    dx, g = empty_pictures(g_FCHW, f, a if shared else edges * a, h, w), rows_of(g_FCHW)
    strides = (b * a * taps, a * taps, taps, 1)
    runs, summed = (1, edges) if shared else (edges, 1)
    _launch(g, dx, kernel.contiguous(), strides, (b, a), (b, a, runs), summed, taps, -1, h * w, frames, False)
    return dx


def mix_channels_kernel_gradient(
    g_FCHW: Tensor, x_FCHW: Tensor, kernel: Tensor, edges: int, frames: int = 1, rectified: bool = False
) -> Tensor:
    """Return the gradient for the kernels of ``mix_channels``, (kB, A, t, 1), in the type of sums."""
    h, w = g_FCHW.shape[2:]
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    g, x, block_b, block_a = rows_of(g_FCHW), rows_of(x_FCHW), channel_block(b), channel_block(a)
    blocks = triton.cdiv(b, block_b) * triton.cdiv(a, block_a) * edges * taps
    parts, each = parts_of(g.pixels, blocks, BLOCK_PIXELS_OF_GRADIENT)
    sums = g_FCHW.new_empty(parts, edges * b, a, taps, 1, dtype=sum_type(g_FCHW))
    _kernel_gradient[(blocks * parts,)](
        g.tensor, g.row, x.tensor, x.row, 0 if x_FCHW.shape[1] == a else a, sums, g.pixels, each, h * w, frames, b, a,
        edges,
        TAPS=taps, RECTIFIED=rectified, BLOCK_B=block_b, BLOCK_A=block_a, BLOCK_P=BLOCK_PIXELS_OF_GRADIENT,
        SUM=triton_type(sums.dtype), PRECISION=_precision(g_FCHW), num_warps=WARPS,
    )  # fmt: skip
    return sums.sum(0) if parts > 1 else sums[0]


def _launch(x, y, kernel, strides, offsets, sizes, summed, taps, sign, frame, frames, rectified):  # type: ignore
    (from_channels, to_channels, runs), rows = sizes, rows_of(y)
    block_from, block_to = channel_block(from_channels), channel_block(to_channels, 128)
    grid = (triton.cdiv(rows.pixels, BLOCK_PIXELS) * triton.cdiv(to_channels, block_to) * runs,)
    _mix[grid](
        x.tensor, x.row, offsets[0], kernel, *strides, y, rows.row, offsets[1], rows.pixels, frame, frames,
        from_channels, to_channels, runs, summed,
        TAPS=taps, SIGN=sign, RECTIFIED=rectified, BLOCK_P=BLOCK_PIXELS, BLOCK_K=block_from,
        BLOCK_N=block_to, SUM=triton_type(sum_type(y)), PRECISION=_precision(y), num_warps=WARPS if block_to <= 64 else 2 * WARPS,
    )  # fmt: skip


def _precision(x: Tensor) -> str:
    """As PyTorch's own products: fp32 as it is, unless TF32 is allowed."""
    return "tf32" if x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


@triton.jit(do_not_specialize=SIZES)
def _mix(
    x, x_row, x_edge, kernel, k_edge, k_from, k_to, k_tap, y, y_row, y_edge, pixels, frame, frames, n_from, n_to, runs,
    summed, TAPS: tl.constexpr, SIGN: tl.constexpr, RECTIFIED: tl.constexpr, BLOCK_P: tl.constexpr,
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
        weights = kernel + edge * k_edge + tap * k_tap
        values = tl.load(rows + c[None, :], mask=there[:, None] & (c < n_from)[None, :], other=0.0)
        if RECTIFIED:
            values = tl.maximum(values, 0.0).to(x.dtype.element_ty)
        weight = tl.load(
            weights + c[:, None] * k_from + to[None, :] * k_to,
            mask=(c < n_from)[:, None] & (to < n_to)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(values, weight, total, input_precision=PRECISION, out_dtype=SUM)
    target = y + p.to(tl.int64)[:, None] * y_row + run * y_edge + to[None, :]
    tl.store(target, total.to(y.dtype.element_ty), mask=(p < pixels)[:, None] & (to < n_to)[None, :])


@triton.jit(do_not_specialize=SIZES)
def _kernel_gradient(
    g, g_row, x, x_row, x_edge, sums, pixels, each, frame, frames, n_b, n_a, edges,
    TAPS: tl.constexpr, RECTIFIED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_P: tl.constexpr,
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
    shift = tap - TAPS // 2
    total = tl.zeros([BLOCK_B, BLOCK_A], SUM)
    end = tl.minimum(part * each + each, pixels)
    for first in range(part * each, end, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        time = p // frame % frames + shift
        there = (p < end) & (time >= 0) & (time < frames)
        gradient = tl.load(
            g + p.to(tl.int64)[None, :] * g_row + edge * n_b + b[:, None],
            mask=(p < end)[None, :] & (b < n_b)[:, None], other=0.0,
        )  # fmt: skip
        values = tl.load(
            x + (p + shift * frame).to(tl.int64)[:, None] * x_row + edge * x_edge + a[None, :],
            mask=there[:, None] & (a < n_a)[None, :], other=0.0,
        )  # fmt: skip
        if RECTIFIED:
            values = tl.maximum(values, 0.0).to(x.dtype.element_ty)
        total = tl.dot(gradient, values, total, input_precision=PRECISION, out_dtype=SUM)
    kernel = (part * edges + edge).to(tl.int64) * n_b * n_a * TAPS
    target = sums + kernel + (b[:, None] * n_a + a[None, :]) * TAPS + tap
    tl.store(target, total, mask=(b < n_b)[:, None] & (a < n_a)[None, :])
