"""Depthwise 3x3 convolutions in Triton; ReLU and batch norm before them are computed as they read."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels.depthwise.triton_rows import (
    depthwise_rows,
    input_grad_rows,
    kernel_grad_rows,
    load_norm,
    prologue,
    store_taps,
)
from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of, sum_type
from pvnas.fast.kernels.triton_blocks import channel_block, parts_of, summed, triton_type

BLOCK_PIXELS, BLOCK_PIXELS_OF_INPUT_GRAD, BLOCK_PIXELS_OF_KERNEL_GRAD = 32, 64, 32
# Of the stride-1 kernels, columns of a program, its warps and stages: the fastest on an H200, over 28x28 pixels of 64
# channels, 14x14 of 128 and 7x7 of 256.
FORWARD, FORWARD_NORMED, BACKWARD, BACKWARD_SUMMED = (32, 4, 4), (16, 4, 4), (32, 4, 4), (32, 4, 1)
KERNEL_GRAD, PROGRAMS_OF_KERNEL_GRAD = (8, 2, 4), 528
WARPS = 4

SIZES = ["pixels", "each", "h", "w", "h_out", "w_out", "edges", "frames"]


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None) -> Tensor:
    (f, c_in, h, w), c_out = x.shape, len(kernel)
    y = empty_output(x, c_out, stride)
    rows, pixels, block = rows_of(x), y.numel() // c_out, channel_block(c_in)
    if stride == 1:
        columns, warps, stages = FORWARD if norm is None else FORWARD_NORMED
        grid = (triton.cdiv(f * w, columns) * triton.cdiv(c_out, block) * dilation,)
        depthwise_rows[grid](
            rows.tensor, rows.stride, *_taps(kernel), *_norm_arguments(norm, kernel), y, f * w, h, w, c_in, c_out,
            DILATION=dilation, NORMED=norm is not None, BLOCK_Q=columns, BLOCK_C=block,
            SUM=triton_type(sum_type(x)), STAGES=stages, num_warps=warps,
        )  # fmt: skip
        return y
    grid = (triton.cdiv(pixels, BLOCK_PIXELS) * triton.cdiv(c_out, block),)
    _depthwise[grid](
        rows.tensor, rows.stride, *_taps(kernel), *_norm_arguments(norm, kernel), y, pixels, h, w, *y.shape[2:], c_in,
        c_out, STRIDE=stride, DILATION=dilation, NORMED=norm is not None, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block,
        SUM=triton_type(sum_type(x)), num_warps=WARPS,
    )  # fmt: skip
    return y


def depthwise_input_grad(
    grad: Tensor, kernel: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, into: Tensor | None = None
) -> Tensor:
    (f, c, h, w), edges = x.shape, len(kernel) // x.shape[1]
    if stride == 1:
        return _input_grad_rows(grad, kernel, x, dilation, None, into)[0]
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    g, block = rows_of(grad), channel_block(c)
    _input_grad_stride2[(4 * triton.cdiv(g.pixels, BLOCK_PIXELS_OF_INPUT_GRAD) * triton.cdiv(c, block),)](
        g.tensor, g.stride, *_taps(kernel), x_grad, h, w, *grad.shape[2:], c, edges, f,
        DILATION=dilation, ADD=into is not None, BLOCK_P=BLOCK_PIXELS_OF_INPUT_GRAD, BLOCK_C=block,
        SUM=triton_type(sum_type(grad)), num_warps=WARPS,
    )  # fmt: skip
    return x_grad


def depthwise_norm_grad(grad: Tensor, kernel: Tensor, norm: Normed) -> tuple[Tensor, Tensor]:
    return _input_grad_rows(grad, kernel, norm.z, 1, norm, None)


def _input_grad_rows(
    grad: Tensor, kernel: Tensor, x: Tensor, dilation: int, norm: Normed | None, into: Tensor | None
) -> tuple[Tensor, Tensor]:
    (f, c, h, w), edges = x.shape, len(kernel) // x.shape[1]
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    g, rows, block = rows_of(grad), rows_of(x), channel_block(c)
    columns, warps, stages = BACKWARD_SUMMED if norm is None else BACKWARD
    parts, statistics = triton.cdiv(f * w, columns) * dilation, _norm_arguments(norm, kernel)
    sums = x_grad if norm is None else grad.new_empty(parts, 2, 1, c, dtype=sum_type(grad))
    input_grad_rows[(parts * triton.cdiv(c, block),)](
        g.tensor, g.stride, *_taps(kernel), rows.tensor, rows.stride, *statistics, x_grad, sums, f * w, h, w, c,
        EDGES=edges, DILATION=dilation, NORMED=norm is not None, ADD=into is not None, BLOCK_Q=columns, BLOCK_C=block,
        SUM=triton_type(sum_type(grad)), STAGES=stages, num_warps=warps,
    )  # fmt: skip
    return x_grad, sums if norm is None else summed(sums)


def depthwise_kernel_grad(
    grad: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None
) -> Tensor:
    """The gradient is in the type of sums."""
    (c_in, h, w), (_, c_out, h_out, w_out) = x.shape[1:], grad.shape
    g, rows, block = rows_of(grad), rows_of(x), channel_block(c_in)
    blocks = triton.cdiv(c_out, block)
    columns, warps, stages = KERNEL_GRAD
    length, block_length = (rows.pixels // h, columns) if stride == 1 else (g.pixels, BLOCK_PIXELS_OF_KERNEL_GRAD)
    parts, each = parts_of(length, blocks, block_length, PROGRAMS_OF_KERNEL_GRAD)
    sums = grad.new_empty(parts, c_out, 9, dtype=sum_type(grad))
    given = (g.tensor, g.stride, rows.tensor, rows.stride, *_norm_arguments(norm, grad), sums, length, each)
    settings = {"DILATION": dilation, "NORMED": norm is not None, "BLOCK_C": block, "SUM": triton_type(sums.dtype)}
    if stride == 1:
        kernel_grad_rows[(blocks * parts,)](
            *given, h, w, c_in, c_out, BLOCK_Q=columns, STAGES=stages, num_warps=warps, **settings
        )
    else:
        _kernel_grad_stride2[(blocks * parts,)](
            *given, h, w, h_out, w_out, c_in, c_out,
            STRIDE=stride, BLOCK_P=BLOCK_PIXELS_OF_KERNEL_GRAD, num_warps=WARPS, **settings,
        )  # fmt: skip
    return summed(sums).view(c_out, 1, 3, 3)


def _taps(kernel: Tensor) -> tuple[Tensor, int, int]:
    """Return kernels (kC, 1, 3, 3), elements from a channel to the next and from a tap to the next."""
    return kernel, kernel.stride(0), kernel.stride(3)


def _norm_arguments(norm: Normed | None, unused: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / standard deviation; without a norm any tensor, which is not read."""
    return (unused, unused) if norm is None else (norm.mean, norm.inverse_std)


@triton.jit
def _tap(
    x, row, frame, i, j, valid, channel, mean, inverse, h, w,
    KY: tl.constexpr, KX: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, NORMED: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """What one tap of the kernel multiplies, for each pixel of the output."""
    a, b = i * STRIDE + (KY - 1) * DILATION, j * STRIDE + (KX - 1) * DILATION
    inside = (a >= 0) & (a < h) & (b >= 0) & (b < w)
    inside = inside[:, None] & valid
    pixel = ((frame * h + a) * w + b).to(tl.int64)
    values = tl.load(x + pixel[:, None] * row + channel[None, :], mask=inside, other=0.0).to(SUM)
    return prologue(values, mean, inverse, inside, NORMED)


@triton.jit(do_not_specialize=SIZES)
def _depthwise(
    x, row, kernel, k_channel, k_tap, mean, inverse, y, pixels, h, w, h_out, w_out, c_in, c_out,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, NORMED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    valid = (p < pixels)[:, None] & (c < c_out)[None, :]
    frame, i, j = p // (h_out * w_out), p // w_out % h_out, p % w_out
    m, v = load_norm(mean, inverse, c, c < c_out, NORMED, BLOCK_C, SUM)
    total = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    for ky in tl.static_range(3):
        for kx in tl.static_range(3):
            values = _tap(
                x, row, frame, i, j, valid, c % c_in, m, v, h, w, ky, kx, STRIDE, DILATION, NORMED, SUM
            )  # fmt: skip
            weight = tl.load(kernel + c * k_channel + (ky * 3 + kx) * k_tap, mask=c < c_out, other=0.0).to(SUM)
            total += values * weight[None, :]
    tl.store(y + p.to(tl.int64)[:, None] * c_out + c[None, :], total.to(y.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _input_grad_stride2(
    g, row, kernel, k_channel, k_tap, dx, h, w, h_out, w_out, channels, edges, frames,
    DILATION: tl.constexpr, ADD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """At stride 2, where a pixel's row and column say which taps have read it.

    At dilation 1 the middle one an even row, the outer ones an odd row; at dilation 2 all of them even rows alone. So a
    program takes pixels whose rows and columns are alike.
    """
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    kind = tl.program_id(0) // blocks % 4
    odd_i, odd_j = kind // 2, kind % 2
    p = tl.program_id(0) // (blocks * 4) * BLOCK_P + tl.arange(0, BLOCK_P)
    frame, i, j = p // (h_out * w_out), p // w_out % h_out * 2 + odd_i, p % w_out * 2 + odd_j
    valid = ((frame < frames) & (i < h) & (j < w))[:, None] & (c < channels)[None, :]
    if DILATION == 1:
        first_y, count_y, first_x, count_x, step = 1 - odd_i, 1 + odd_i, 1 - odd_j, 1 + odd_j, 2
    else:
        first_y, count_y, first_x, count_x, step = 0, 3 - 3 * odd_i, 0, 3 - 3 * odd_j, 1
    total = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    for edge in range(edges):
        of_edge = edge * channels + c
        for y in range(count_y):
            ky = first_y + y * step
            a = (i - (ky - 1) * DILATION) // 2
            for x in range(count_x):
                kx = first_x + x * step
                b = (j - (kx - 1) * DILATION) // 2
                inside = ((a >= 0) & (a < h_out) & (b >= 0) & (b < w_out))[:, None] & valid
                pixel = ((frame * h_out + a) * w_out + b).to(tl.int64)
                values = tl.load(g + pixel[:, None] * row + of_edge[None, :], mask=inside, other=0.0).to(SUM)
                weight = tl.load(kernel + of_edge * k_channel + (ky * 3 + kx) * k_tap, mask=c < channels, other=0.0).to(
                    SUM
                )
                total += values * weight[None, :]
    target = dx + ((frame * h + i) * w + j).to(tl.int64)[:, None] * channels + c[None, :]
    if ADD:
        total += tl.load(target, mask=valid, other=0.0).to(SUM)
    tl.store(target, total.to(dx.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _kernel_grad_stride2(
    g, row, x, x_row, mean, inverse, sums, pixels, each, h, w, h_out, w_out, c_in, c_out,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, NORMED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(c_out, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.program_id(0) // blocks
    m, v = load_norm(mean, inverse, c, c < c_out, NORMED, BLOCK_C, SUM)
    s00 = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    s01, s02, s10, s11, s12, s20, s21, s22 = s00, s00, s00, s00, s00, s00, s00, s00
    end = tl.minimum(part * each + each, pixels)
    for first in range(part * each, end, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        ok = (p < end)[:, None] & (c < c_out)[None, :]
        f, i, j = p // (h_out * w_out), p // w_out % h_out, p % w_out
        d = tl.load(g + p.to(tl.int64)[:, None] * row + c[None, :], mask=ok, other=0.0).to(SUM)
        k = c % c_in
        s00 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 0, 0, STRIDE, DILATION, NORMED, SUM)
        s01 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 0, 1, STRIDE, DILATION, NORMED, SUM)
        s02 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 0, 2, STRIDE, DILATION, NORMED, SUM)
        s10 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 1, 0, STRIDE, DILATION, NORMED, SUM)
        s11 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 1, 1, STRIDE, DILATION, NORMED, SUM)
        s12 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 1, 2, STRIDE, DILATION, NORMED, SUM)
        s20 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 2, 0, STRIDE, DILATION, NORMED, SUM)
        s21 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 2, 1, STRIDE, DILATION, NORMED, SUM)
        s22 += d * _tap(x, x_row, f, i, j, ok, k, m, v, h, w, 2, 2, STRIDE, DILATION, NORMED, SUM)
    store_taps(sums + (part * c_out + c) * 9, c < c_out, s00, s01, s02, s10, s11, s12, s20, s21, s22)
