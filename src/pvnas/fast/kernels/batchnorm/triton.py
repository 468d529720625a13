"""Batch norms without parameters, mixed by weights, in Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels.batchnorm.triton_moments import joined_moments, part_moments
from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import empty_pictures, rows_of, sum_type
from pvnas.fast.kernels.triton_blocks import channel_block, parts_of, summed, triton_type

BLOCK_PIXELS, WARPS = 32, 4
BLOCK_PIXELS_OF_SUMS, WARPS_OF_SUMS, STAGES_OF_SUMS = 32, 2, 3
SIZES = ["pixels", "each", "edges", "operations"]


def batch_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return joined_moments(*part_moments(x), x.numel() // x.shape[1], eps)


def normalise(normed: Normed) -> Tensor:
    f, c, h, w = normed.z.shape
    z, y, block = rows_of(normed.z), empty_pictures(normed.z, f, c, h, w), channel_block(c)
    _normalise[(triton.cdiv(z.pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        z.tensor, z.stride, normed.mean, normed.inverse_std, y, z.pixels, c,
        BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(y)), num_warps=WARPS,
    )  # fmt: skip
    return y


def add_mixed(
    sums: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], weights: Tensor, *, begin: bool
) -> None:
    rows, edges = rows_of(sums), len(weights)
    channels = sums.shape[1] // edges
    block = channel_block(channels)
    grid = (triton.cdiv(rows.pixels, BLOCK_PIXELS) * triton.cdiv(channels, block) * edges,)
    _add_mixed[grid](
        rows.tensor, rows.stride, *_operations([*per_edge, *shared]), weights, rows.pixels, channels, edges,
        weights.stride(0),
        PER_EDGE=len(per_edge), ALL=len(per_edge) + len(shared), BEGIN=begin, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block,
        SUM=triton_type(sum_type(sums)), num_warps=WARPS,
    )  # fmt: skip


def mixed_grad_sums(grad: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], edges: int) -> Tensor:
    g, channels, dtype = rows_of(grad), grad.shape[1] // edges, sum_type(grad)
    block, operations = channel_block(channels), len(per_edge) + len(shared)
    blocks = triton.cdiv(channels, block) * edges
    block_pixels = BLOCK_PIXELS_OF_SUMS if operations <= 5 else BLOCK_PIXELS_OF_SUMS // 2  # all sums are held at once
    parts, each = parts_of(g.pixels, blocks, block_pixels)
    sums = grad.new_empty(parts, 1 + operations, edges, channels, dtype=dtype)
    _mixed_grad_sums[(blocks * parts,)](
        g.tensor, g.stride, *_operations([*per_edge, *shared]), sums, g.pixels, each, channels, edges,
        PER_EDGE=len(per_edge), ALL=operations, BLOCK_P=block_pixels, BLOCK_C=block, SUM=triton_type(dtype),
        STAGES=STAGES_OF_SUMS, num_warps=WARPS_OF_SUMS,
    )  # fmt: skip
    return summed(sums)


def per_edge_grads(
    grad: Tensor, per_edge: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    g, edges = rows_of(grad), len(weights)
    f, kc, h, w = grad.shape
    channels, results = kc // edges, [empty_pictures(grad, f, kc, h, w) for _ in per_edge]
    block = channel_block(channels)
    grid = (triton.cdiv(g.pixels, BLOCK_PIXELS) * triton.cdiv(channels, block) * edges,)
    _per_edge_grads[grid](
        g.tensor, g.stride, *_operations(per_edge), tuple(results), weights, sums, g.pixels, channels, edges,
        weights.stride(0),
        ALL=len(per_edge), OF_BATCH=of_batch, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(grad)),
        num_warps=WARPS,
    )  # fmt: skip
    return results


def shared_grads(
    grad: Tensor, shared: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    g, edges = rows_of(grad), len(weights)
    f, kc, h, w = grad.shape
    channels, results = kc // edges, [empty_pictures(grad, f, kc // edges, h, w) for _ in shared]
    block = channel_block(channels)
    grid = (triton.cdiv(g.pixels, BLOCK_PIXELS) * triton.cdiv(channels, block),)
    _shared_grads[grid](
        g.tensor, g.stride, *_operations(shared), tuple(results), weights, sums, g.pixels, channels, edges,
        weights.stride(0),
        ALL=len(shared), OF_BATCH=of_batch, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(grad)),
        num_warps=WARPS,
    )  # fmt: skip
    return results


class _Operations(NamedTuple):
    """What a kernel takes of some operations."""

    z: tuple[Tensor, ...]
    rows: tuple[int, ...]
    means: tuple[Tensor, ...]
    inverses: tuple[Tensor, ...]


def _operations(normed: Sequence[Normed]) -> _Operations:
    rows = [rows_of(one.z) for one in normed]
    means, inverses = ([one.mean for one in normed], [one.inverse_std for one in normed])
    return _Operations(tuple(r.tensor for r in rows), tuple(r.stride for r in rows), tuple(means), tuple(inverses))


@triton.jit
def _normed(z, row, mean, inverse, p, column, channel, valid, in_c, SUM: tl.constexpr):
    """The output of a batch norm."""
    values = tl.load(z + p.to(tl.int64)[:, None] * row + column[None, :], mask=valid, other=0.0).to(SUM)
    m = tl.load(mean + channel, mask=in_c, other=0.0).to(SUM)
    v = tl.load(inverse + channel, mask=in_c, other=0.0).to(SUM)
    return (values - m[None, :]) * v[None, :]


@triton.jit(do_not_specialize=SIZES)
def _normalise(
    z, row, mean, inverse, y, pixels, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    in_c = c < channels
    valid = (p < pixels)[:, None] & in_c[None, :]
    values = _normed(z, row, mean, inverse, p, c, c, valid, in_c, SUM)
    tl.store(y + p.to(tl.int64)[:, None] * channels + c[None, :], values.to(y.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _add_mixed(
    sums, row, z, rows, means, inverses, weights, pixels, channels, edges, operations,
    PER_EDGE: tl.constexpr, ALL: tl.constexpr, BEGIN: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    edge = tl.program_id(0) // blocks % edges
    p = tl.program_id(0) // (blocks * edges) * BLOCK_P + tl.arange(0, BLOCK_P)
    in_c = c < channels
    valid, column = (p < pixels)[:, None] & in_c[None, :], edge * channels + c
    target = sums + p.to(tl.int64)[:, None] * row + column[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    if not BEGIN:
        total = tl.load(target, mask=valid, other=0.0).to(SUM)
    for o in tl.static_range(ALL):
        weight = tl.load(weights + edge * operations + o).to(SUM)
        at = column if o < PER_EDGE else c
        total += weight * _normed(z[o], rows[o], means[o], inverses[o], p, at, at, valid, in_c, SUM)
    tl.store(target, total.to(sums.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _mixed_grad_sums(
    g, row, z, rows, means, inverses, totals, pixels, each, channels, edges,
    PER_EDGE: tl.constexpr, ALL: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    edge, part = tl.program_id(0) // blocks % edges, tl.program_id(0) // (blocks * edges)
    in_c, column = c < channels, edge * channels + c
    s = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    s0, s1, s2, s3, s4, s5, s6, s7 = s, s, s, s, s, s, s, s
    end = tl.minimum(part * each + each, pixels)
    for first in tl.range(part * each, end, BLOCK_P, num_stages=STAGES):
        p = first + tl.arange(0, BLOCK_P)
        ok = (p < end)[:, None] & in_c[None, :]
        d = tl.load(g + p.to(tl.int64)[:, None] * row + column[None, :], mask=ok, other=0.0).to(SUM)
        s += d
        if ALL > 0:
            at = column if PER_EDGE > 0 else c
            s0 += d * _normed(z[0], rows[0], means[0], inverses[0], p, at, at, ok, in_c, SUM)
        if ALL > 1:
            at = column if PER_EDGE > 1 else c
            s1 += d * _normed(z[1], rows[1], means[1], inverses[1], p, at, at, ok, in_c, SUM)
        if ALL > 2:
            at = column if PER_EDGE > 2 else c
            s2 += d * _normed(z[2], rows[2], means[2], inverses[2], p, at, at, ok, in_c, SUM)
        if ALL > 3:
            at = column if PER_EDGE > 3 else c
            s3 += d * _normed(z[3], rows[3], means[3], inverses[3], p, at, at, ok, in_c, SUM)
        if ALL > 4:
            at = column if PER_EDGE > 4 else c
            s4 += d * _normed(z[4], rows[4], means[4], inverses[4], p, at, at, ok, in_c, SUM)
        if ALL > 5:
            at = column if PER_EDGE > 5 else c
            s5 += d * _normed(z[5], rows[5], means[5], inverses[5], p, at, at, ok, in_c, SUM)
        if ALL > 6:
            at = column if PER_EDGE > 6 else c
            s6 += d * _normed(z[6], rows[6], means[6], inverses[6], p, at, at, ok, in_c, SUM)
        if ALL > 7:
            at = column if PER_EDGE > 7 else c
            s7 += d * _normed(z[7], rows[7], means[7], inverses[7], p, at, at, ok, in_c, SUM)
    target = totals + part * (1 + ALL) * edges * channels + column
    step = edges * channels
    tl.store(target, tl.sum(s, 0), mask=in_c)
    if ALL > 0:
        tl.store(target + 1 * step, tl.sum(s0, 0), mask=in_c)
    if ALL > 1:
        tl.store(target + 2 * step, tl.sum(s1, 0), mask=in_c)
    if ALL > 2:
        tl.store(target + 3 * step, tl.sum(s2, 0), mask=in_c)
    if ALL > 3:
        tl.store(target + 4 * step, tl.sum(s3, 0), mask=in_c)
    if ALL > 4:
        tl.store(target + 5 * step, tl.sum(s4, 0), mask=in_c)
    if ALL > 5:
        tl.store(target + 6 * step, tl.sum(s5, 0), mask=in_c)
    if ALL > 6:
        tl.store(target + 7 * step, tl.sum(s6, 0), mask=in_c)
    if ALL > 7:
        tl.store(target + 8 * step, tl.sum(s7, 0), mask=in_c)


@triton.jit(do_not_specialize=SIZES)
def _per_edge_grads(
    g, row, z, rows, means, inverses, results, weights, sums, pixels, channels, edges, operations,
    ALL: tl.constexpr, OF_BATCH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    edge = tl.program_id(0) // blocks % edges
    p = tl.program_id(0) // (blocks * edges) * BLOCK_P + tl.arange(0, BLOCK_P)
    in_c = c < channels
    valid, column = (p < pixels)[:, None] & in_c[None, :], edge * channels + c
    d = tl.load(g + p.to(tl.int64)[:, None] * row + column[None, :], mask=valid, other=0.0).to(SUM)
    if OF_BATCH:
        d -= (tl.load(sums + column, mask=in_c, other=0.0) / pixels)[None, :]
    for o in tl.static_range(ALL):
        weight = tl.load(weights + edge * operations + o).to(SUM)
        inverse = tl.load(inverses[o] + column, mask=in_c, other=0.0).to(SUM)
        dz = d
        if OF_BATCH:
            product = tl.load(sums + (1 + o) * edges * channels + column, mask=in_c, other=0.0) / pixels
            dz -= product[None, :] * _normed(z[o], rows[o], means[o], inverses[o], p, column, column, valid, in_c, SUM)
        dz = dz * (weight * inverse)[None, :]
        target = results[o] + p.to(tl.int64)[:, None] * (edges * channels) + column[None, :]
        tl.store(target, dz.to(results[o].dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _shared_grads(
    g, row, z, rows, means, inverses, results, weights, sums, pixels, channels, edges, operations,
    ALL: tl.constexpr, OF_BATCH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The third operation is identity: no BN, whatever the others have."""
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.program_id(0) // blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    in_c = c < channels
    valid = (p < pixels)[:, None] & in_c[None, :]
    for o in tl.static_range(ALL):
        dz = tl.zeros([BLOCK_P, BLOCK_C], SUM)
        product = tl.zeros([BLOCK_C], SUM)
        for edge in range(edges):
            column = edge * channels + c
            weight = tl.load(weights + edge * operations + o).to(SUM)
            d = tl.load(g + p.to(tl.int64)[:, None] * row + column[None, :], mask=valid, other=0.0).to(SUM)
            if OF_BATCH and o < 2:
                d -= (tl.load(sums + column, mask=in_c, other=0.0) / pixels)[None, :]
                product += weight * tl.load(sums + (1 + o) * edges * channels + column, mask=in_c, other=0.0) / pixels
            dz += weight * d
        if o < 2:
            if OF_BATCH:
                dz -= product[None, :] * _normed(z[o], rows[o], means[o], inverses[o], p, c, c, valid, in_c, SUM)
            dz *= tl.load(inverses[o] + c, mask=in_c, other=0.0).to(SUM)[None, :]
        target = results[o] + p.to(tl.int64)[:, None] * channels + c[None, :]
        tl.store(target, dz.to(results[o].dtype.element_ty), mask=valid)
