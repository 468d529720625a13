"""Convolutions 1x1x1 and 3x1x1 of several edges as matrix products over channels, forward and backward.

Legend: A channels that enter an edge, B that leave it, t taps over time (1 or 3), T frames of a clip.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pvnas.space.kernels.gpu.blocks import channel_block, parts_of, triton_type
from pvnas.space.kernels.operands import empty_pictures, rows_of, sum_type

# Pixels and channels of a program and its warps, where an edge has up to 64 channels and where it has more.
NARROW, WIDE = (128, 64, 4), (128, 128, 8)
NARROW_GRADIENT, WIDE_GRADIENT = (64, 64, 4), (64, 64, 4)
SIZES = ["pixels", "each", "frame", "frames", "runs", "summed", "edges"]


def mix_channels(
    x_FCHW: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    rectified: bool = False,
    into: Tensor | None = None,
    apart: int = 0,
) -> Tensor:
    """Return the convolutions of x (F, kA, H, W), or of one x (F, A, H, W) for all edges, with kernels (kB, A, t, 1).

    ``frames``: T; ``rectified``: of ReLU(x); ``into``: pictures to write to, from their first channel on, the channels
    of an edge ``apart`` from those of the next.
    """
    f, _, h, w = x_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    x_edge = 0 if x_FCHW.shape[1] == a else a
    y = empty_pictures(x_FCHW, f, edges * b, h, w) if into is None else into
    weights = kernel.reshape(edges, b, a, taps).permute(3, 0, 2, 1)
    _launch(x_FCHW, y, weights, (x_edge, apart or b), 1, 1, frames, rectified)
    return y


def mix_channels_input_gradient(
    g_FCHW: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    shared: bool = False,
    first: int = 0,
    apart: int = 0,
) -> Tensor:
    """Return the gradient for what ``mix_channels`` reads: (F, kA, H, W), or summed (F, A, H, W) where it is shared.

    ``first``, ``apart``: where the edges' channels begin in g, and how far from one to the next.
    """
    g_FCHW = g_FCHW[:, first:]
    f, _, h, w = g_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    dx = empty_pictures(g_FCHW, f, a if shared else edges * a, h, w)
    _launch(
        g_FCHW,
        dx,
        kernel.reshape(edges, b, a, taps).permute(3, 0, 1, 2),
        (apart or b, a),
        edges if shared else 1,
        -1,
        frames,
    )
    return dx


def mix_channels_kernel_gradient(
    g_FCHW: Tensor,
    x_FCHW: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    rectified: bool = False,
    first: int = 0,
    apart: int = 0,
) -> Tensor:
    """Return the gradient for the kernels of ``mix_channels``, (kB, A, t, 1), in the type of sums.

    ``first``, ``apart``: where the edges' channels begin in g, and how far from one to the next.
    """
    g_FCHW = g_FCHW[:, first:]
    h, w = g_FCHW.shape[2:]
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    block_pixels, most, warps = NARROW_GRADIENT if max(a, b) <= 64 else WIDE_GRADIENT
    g, x, block_b, block_a = rows_of(g_FCHW), rows_of(x_FCHW), channel_block(b, most), channel_block(a, most)
    blocks = triton.cdiv(b, block_b) * triton.cdiv(a, block_a) * edges * taps
    parts, each = parts_of(g.pixels, blocks, block_pixels)
    sums = g_FCHW.new_empty(parts, edges * b, a, taps, 1, dtype=sum_type(g_FCHW))
    _kernel_gradient[(blocks * parts,)](
        g.tensor, g.row, apart or b, x.tensor, x.row, 0 if x_FCHW.shape[1] == a else a, sums, g.pixels, each, h * w,
        frames, b, a, edges,
        TAPS=taps, RECTIFIED=rectified, BLOCK_B=block_b, BLOCK_A=block_a, BLOCK_P=block_pixels,
        SUM=triton_type(sums.dtype), PRECISION=_precision(g_FCHW), num_warps=warps,
    )  # fmt: skip
    return sums.sum(0) if parts > 1 else sums[0]


def _launch(
    x_FCHW: Tensor,
    y_FCHW: Tensor,
    weights: Tensor,
    offsets: tuple[int, int],
    summed: int,
    sign: int,
    frames: int,
    rectified: bool = False,
) -> None:
    """Multiply by ``weights`` (t, k, from, to); ``offsets``: of an edge's channels in x and y; sum ``summed`` edges."""
    taps, edges, n_from, n_to = weights.shape
    if weights.stride(3) != 1 and weights.stride(2) != 1:  # neighbours in memory are read together
        weights = weights.contiguous()
    x, y, runs = rows_of(x_FCHW), rows_of(y_FCHW), edges // summed
    pixels, most, warps = NARROW if n_to <= 64 else WIDE
    block_from, block_to = channel_block(n_from), channel_block(n_to, most)
    grid = (triton.cdiv(y.pixels, pixels) * triton.cdiv(n_to, block_to) * runs,)
    tap, edge, stride_from, stride_to = weights.stride()
    _mix[grid](
        x.tensor, x.row, offsets[0], weights, edge, stride_from, stride_to, tap, y.tensor, y.row, offsets[1], y.pixels,
        x_FCHW.shape[2] * x_FCHW.shape[3], frames, n_from, n_to, runs, summed,
        TAPS=taps, SIGN=sign, RECTIFIED=rectified, BLOCK_P=pixels, BLOCK_K=block_from, BLOCK_N=block_to,
        SUM=triton_type(sum_type(y_FCHW)), PRECISION=_precision(y_FCHW), num_warps=warps,
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
    g, g_row, g_edge, x, x_row, x_edge, sums, pixels, each, frame, frames, n_b, n_a, edges,
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
            g + p.to(tl.int64)[None, :] * g_row + edge * g_edge + b[:, None],
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
