"""Batch norms, their statistics, and their outputs mixed by weights, in Triton."""

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels import triton_blocks as tb
from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import empty_pictures, rows_of, sum_type

BLOCK, BLOCK_OF_MOMENTS = tb.Setting(32), tb.Setting(32, 4, 4)
BLOCK_OF_SUMS, BLOCK_OF_MANY_SUMS = tb.Setting(32, 2, 3), tb.Setting(16, 2, 3)  # all sums are held at once
SIZES = ["pixels", "each", "edges", "operations", "clips", "clip_pixels"]


def batch_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    pixels, channels = rows_of(x).pixels, x.shape[1]
    block = tb.channel_block(channels)
    setting, blocks = BLOCK_OF_MOMENTS, triton.cdiv(channels, block)
    parts, each = tb.parts_of(pixels, blocks, setting)
    moments = x.new_empty(parts, 2, channels, dtype=sum_type(x))
    _part_moments[(blocks * parts,)](
        pixels, channels, tb.strided(x), moments, each,
        STAGES=setting.stages, BLOCK_P=setting.pixels, BLOCK_C=block, num_warps=setting.warps,
    )  # fmt: skip
    return joined_moments(moments, each, pixels, eps)


def joined_moments(moments: Tensor, each: int, pixels: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and 1 / sqrt(variance + eps).

    ``moments``: (parts, 2, C) means and sums of squared differences from them, of ``each`` pixels, in the end of fewer.
    """
    parts, _, c = moments.shape
    mean, variance, inverse = moments.new_empty(3, c)
    _joined_moments[(triton.cdiv(c, 16),)](
        moments, mean, variance, inverse, pixels, each, c, eps, PARTS=triton.next_power_of_2(parts), BLOCK_C=16
    )
    return mean, variance, inverse


def normalise(normed: Normed) -> Tensor:
    f, c, h, w = normed.z.shape
    y = empty_pictures(normed.z, f, c, h, w)
    tb.launch(_normalise, BLOCK, f * h * w, c, tb.normed_argument(normed), y)
    return y


def add_mixed(
    sums: Tensor,
    per_edge: Sequence[Normed],
    shared: Sequence[Normed],
    weights: Tensor,
    *,
    begin: bool,
    scales: Tensor | None = None,
) -> None:
    edges, operations = len(weights), _operations([*per_edge, *shared])
    tb.launch(
        _add_mixed, BLOCK, rows_of(sums).pixels, sums.shape[1] // edges,
        tb.strided(sums), operations, weights, weights.stride(0), edges, scales, *_of_clip(sums, scales),
        times=edges, PER_EDGE=len(per_edge), BEGIN=begin,
    )  # fmt: skip


def mixed_grad_sums(
    grad: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], edges: int, scales: Tensor | None = None
) -> Tensor:
    pixels, channels, operations = rows_of(grad).pixels, grad.shape[1] // edges, _operations([*per_edge, *shared])
    setting, block = BLOCK_OF_SUMS if len(operations) <= 5 else BLOCK_OF_MANY_SUMS, tb.channel_block(channels)
    blocks = triton.cdiv(channels, block) * edges
    parts, each = tb.parts_of(pixels, blocks, setting)
    sums = grad.new_empty(parts, 1 + len(operations), edges, channels, dtype=sum_type(grad))
    _mixed_grad_sums[(blocks * parts,)](
        pixels, channels, tb.strided(grad), operations, sums, each, edges, scales, _of_clip(grad, scales)[1],
        PER_EDGE=len(per_edge), STAGES=setting.stages, BLOCK_P=setting.pixels, BLOCK_C=block, num_warps=setting.warps,
    )  # fmt: skip
    return tb.summed(sums)


def per_edge_grads(
    grad: Tensor,
    per_edge: Sequence[Normed],
    weights: Tensor,
    sums: Tensor,
    *,
    of_batch: bool,
    scales: Tensor | None = None,
) -> list[Tensor]:
    more = scales, _of_clip(grad, scales)[1]
    return _input_grads(_per_edge_grads, grad, per_edge, weights, sums, of_batch, *more, times=len(weights))


def shared_grads(
    grad: Tensor, shared: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    return _input_grads(_shared_grads, grad, shared, weights, sums, of_batch, times=1)


def _input_grads(
    kernel: Any,
    grad: Tensor,
    normed: Sequence[Normed],
    weights: Tensor,
    sums: Tensor,
    of_batch: bool,
    *more: Any,
    times: int,
) -> list[Tensor]:
    """Return the gradients for the inputs of batch norms that read ``times`` the channels of a node."""
    (f, kc, h, w), edges = grad.shape, len(weights)
    results = tuple(empty_pictures(grad, f, kc // edges * times, h, w) for _ in normed)
    tb.launch(
        kernel, BLOCK, f * h * w, kc // edges,
        tb.strided(grad), _operations(normed), results, weights, weights.stride(0), sums, edges, *more,
        times=times, OF_BATCH=of_batch,
    )  # fmt: skip
    return list(results)


def _of_clip(x: Tensor, scales: Tensor | None) -> tuple[int, int]:
    """Return how many clips scales (..., N) are of, and how many pixels each clip has."""
    return (0, 1) if scales is None else (scales.shape[-1], rows_of(x).pixels // scales.shape[-1])


def _operations(normed: Sequence[Normed]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tb.normed_argument(norm) for norm in normed)


@triton.jit
def add_moments(sums, squares, values, around, valid):
    """Add values, and their squares, around a number: far from zero the squares would lose what values differ by."""
    away = tl.where(valid, values.to(sums.dtype) - around[None, :], 0.0)
    return sums + away, squares + away * away


@triton.jit
def store_moments(moments, part, channels, c, in_c, around, sums, squares, count):
    """Mean, and sum of squared differences from it, of sums around a number."""
    count = count.to(sums.dtype)
    mean = tl.sum(sums, 0) / count
    target = moments + part.to(tl.int64) * 2 * channels + c
    tl.store(target, around + mean, mask=in_c)
    tl.store(target + channels, tl.sum(squares, 0) - mean * mean * count, mask=in_c)


@triton.jit(do_not_specialize=SIZES)
def _part_moments(
    pixels, channels, x, moments, each, STAGES: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Moments of a part of the pixels, around its first one."""
    c, in_c, part = tb.channels_of_program(channels, BLOCK_C)
    begin, end = part * each, tl.minimum(part * each + each, pixels)
    around = tb.load(x[0] + begin.to(tl.int64) * x[1] + c, in_c)
    sums, squares = tb.zeros(moments, BLOCK_P, BLOCK_C), tb.zeros(moments, BLOCK_P, BLOCK_C)
    for first in tl.range(begin, end, BLOCK_P, num_stages=STAGES):
        p = first + tl.arange(0, BLOCK_P)
        valid = (p < end)[:, None] & in_c[None, :]
        sums, squares = add_moments(sums, squares, tb.load(tb.at(x, p, c), valid), around, valid)
    store_moments(moments, part, channels, c, in_c, around, sums, squares, end - begin)


@triton.jit(do_not_specialize=SIZES)
def _joined_moments(
    moments, mean, variance, inverse, pixels, each, channels, eps, PARTS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Join the moments of all parts (Chan, Golub, LeVeque, 1979)."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.arange(0, PARTS)
    count = tl.maximum(tl.minimum(pixels - part * each, each), 0).to(moments.dtype.element_ty)[:, None]
    valid = (count > 0) & (c < channels)[None, :]
    moments_at = moments + part[:, None] * 2 * channels + c[None, :]
    means = tl.load(moments_at, mask=valid, other=0.0)
    total = tl.sum(means * count, 0) / pixels
    away = means - total[None, :]
    squares = tl.load(moments_at + channels, mask=valid, other=0.0) + away * away * count
    biased = tl.sum(tl.where(valid, squares, 0.0), 0) / pixels
    tl.store(mean + c, total, mask=c < channels)
    tl.store(variance + c, biased, mask=c < channels)
    tl.store(inverse + c, 1.0 / tl.sqrt(biased + eps), mask=c < channels)


@triton.jit
def _normed(norm, p, c, valid, in_c):
    """The output of a batch norm before its parameters."""
    values, mean, inverse = tb.load(tb.at(norm, p, c), valid), tb.load(norm[2] + c, in_c), tb.load(norm[3] + c, in_c)
    return (values - mean[None, :]) * inverse[None, :]


@triton.jit
def _output(norm, p, c, valid, in_c):
    """The output of a batch norm."""
    y = _normed(norm, p, c, valid, in_c)
    if norm[4] is not None:
        y = y * tb.load(norm[4] + c, in_c)[None, :] + tb.load(norm[5] + c, in_c)[None, :]
    return y


@triton.jit
def _scales(scales, p, clip_pixels, mask):
    """By what pixels are multiplied, (P, 1), of clips of so many pixels."""
    return tl.load(scales + p // clip_pixels, mask=mask, other=0.0)[:, None]


@triton.jit(do_not_specialize=SIZES)
def _normalise(pixels, channels, normed, y, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    p, c, in_c, _, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C)
    tb.store(tb.at((y, channels), p, c), _output(normed, p, c, valid, in_c), valid)


@triton.jit(do_not_specialize=SIZES)
def _add_mixed(
    pixels, channels, sums, normed, weights, operations, edges, scales, clips, clip_pixels,
    PER_EDGE: tl.constexpr, BEGIN: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, in_c, edge, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C, edges)
    column = edge * channels + c
    target, total = tb.at(sums, p, column), tb.zeros(sums[0], BLOCK_P, BLOCK_C)
    if not BEGIN:
        total = tb.load(target, valid)
    for o in tl.static_range(len(normed)):
        weight = tl.load(weights + edge * operations + o).to(total.dtype)
        y = weight * _output(normed[o], p, column if o < PER_EDGE else c, valid, in_c)
        if scales is not None:
            y *= _scales(scales + o * clips, p, clip_pixels, p < pixels)
        total += y
    tb.store(target, total, valid)


@triton.jit(do_not_specialize=SIZES)
def _mixed_grad_sums(
    pixels, channels, g, normed, totals, each, edges, scales, clip_pixels,
    PER_EDGE: tl.constexpr, STAGES: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    c, in_c, program = tb.channels_of_program(channels, BLOCK_C)
    edge, part = program % edges, program // edges
    column = edge * channels + c
    total = tb.zeros(totals, BLOCK_P, BLOCK_C)
    products = (total,) * len(normed)
    end = tl.minimum(part * each + each, pixels)
    for first in tl.range(part * each, end, BLOCK_P, num_stages=STAGES):
        p = first + tl.arange(0, BLOCK_P)
        valid = (p < end)[:, None] & in_c[None, :]
        d = tb.load(tb.at(g, p, column), valid)
        if scales is not None:
            d *= _scales(scales, p, clip_pixels, p < end)
        total += d
        for o in tl.static_range(len(normed)):  # the products in turn: each goes to the end when it is added to
            product = products[0] + d * _normed(normed[o], p, column if o < PER_EDGE else c, valid, in_c)
            products = products[1:] + (product,)  # noqa: RUF005
    target, step = totals + part * (1 + len(normed)) * edges * channels + column, edges * channels
    tl.store(target, tl.sum(total, 0), mask=in_c)
    for o in tl.static_range(len(normed)):
        tl.store(target + (1 + o) * step, tl.sum(products[o], 0), mask=in_c)


@triton.jit(do_not_specialize=SIZES)
def _per_edge_grads(
    pixels, channels, g, normed, results, weights, operations, sums, edges, scales, clip_pixels,
    OF_BATCH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, in_c, edge, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C, edges)
    column = edge * channels + c
    d = tb.load(tb.at(g, p, column), valid)
    if scales is not None:
        d *= _scales(scales, p, clip_pixels, p < pixels)
    if OF_BATCH:
        d -= (tl.load(sums + column, mask=in_c, other=0.0) / pixels)[None, :]
    for o in tl.static_range(len(normed)):
        weight = tl.load(weights + edge * operations + o).to(d.dtype)
        inverse = tb.load(normed[o][3] + column, in_c)
        if normed[o][4] is not None:
            inverse *= tb.load(normed[o][4] + column, in_c)
        dz = d
        if OF_BATCH:
            product = tl.load(sums + (1 + o) * edges * channels + column, mask=in_c, other=0.0) / pixels
            dz -= product[None, :] * _normed(normed[o], p, column, valid, in_c)
        tb.store(tb.at((results[o], edges * channels), p, column), dz * (weight * inverse)[None, :], valid)


@triton.jit(do_not_specialize=SIZES)
def _shared_grads(
    pixels, channels, g, normed, results, weights, operations, sums, edges,
    OF_BATCH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The third operation is identity: no BN, whatever the others have."""
    p, c, in_c, _, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C)
    for o in tl.static_range(len(normed)):
        dz, product = tb.zeros(g[0], BLOCK_P, BLOCK_C), tl.zeros([BLOCK_C], sums.dtype.element_ty)
        for edge in range(edges):
            column = edge * channels + c
            weight = tl.load(weights + edge * operations + o).to(dz.dtype)
            d = tb.load(tb.at(g, p, column), valid)
            if OF_BATCH and o < 2:
                d -= (tl.load(sums + column, mask=in_c, other=0.0) / pixels)[None, :]
                product += weight * tl.load(sums + (1 + o) * edges * channels + column, mask=in_c, other=0.0) / pixels
            dz += weight * d
        if o < 2:
            if OF_BATCH:
                dz -= product[None, :] * _normed(normed[o], p, c, valid, in_c)
            dz *= tb.load(normed[o][3] + c, in_c)[None, :]
        tb.store(tb.at((results[o], channels), p, c), dz, valid)
