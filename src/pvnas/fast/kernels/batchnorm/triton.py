"""Batch norm of all operations that leave a node, its statistics known: weighted sums of what it makes, and backward.

Legend: O operations that leave a node, each with a BN, identity without one: those of each edge first, (P, kC), then
those that all edges share, (P, C). ``weights``: mixing weights (k, O), in the type of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from pvnas.space.kernels.gpu.blocks import channel_block, parts_of, summed, triton_type
from pvnas.space.kernels.operands import Normed, empty_pictures, rows_of, sum_type

BLOCK_PIXELS, WARPS = 32, 4
BLOCK_PIXELS_OF_SUMS, WARPS_OF_SUMS, STAGES_OF_SUMS = 32, 2, 3
SIZES = ["pixels", "each", "edges", "operations"]


def normalised(normed: Normed) -> Tensor:
    """Return BN of what it has seen, (F, C, H, W)."""
    f, c, h, w = normed.z_FCHW.shape
    z, y, block = rows_of(normed.z_FCHW), empty_pictures(normed.z_FCHW, f, c, h, w), channel_block(c)
    _normalised[(triton.cdiv(z.pixels, BLOCK_PIXELS) * triton.cdiv(c, block),)](
        z.tensor, z.row, normed.mean, normed.inverse_std, y, z.pixels, c,
        BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(y)), num_warps=WARPS,
    )  # fmt: skip
    return y


def add_normed(
    sums_FCHW: Tensor, own: Sequence[Normed], shared: Sequence[Normed], weights: Tensor, *, begin: bool
) -> None:
    """Add to k nodes' sums (F, kC, H, W), or ``begin`` them, all operations of their edges times their weights."""
    sums, edges = rows_of(sums_FCHW), len(weights)
    channels = sums_FCHW.shape[1] // edges
    block = channel_block(channels)
    grid = (triton.cdiv(sums.pixels, BLOCK_PIXELS) * triton.cdiv(channels, block) * edges,)
    _add_normed[grid](
        sums.tensor, sums.row, *_columns([*own, *shared]), weights, sums.pixels, channels, edges, weights.stride(0),
        OWN=len(own), ALL=len(own) + len(shared), BEGIN=begin, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block,
        SUM=triton_type(sum_type(sums_FCHW)), num_warps=WARPS,
    )  # fmt: skip


def products(g_FCHW: Tensor, own: Sequence[Normed], shared: Sequence[Normed], edges: int) -> Tensor:
    """Return the sums over pixels (1 + O, k, C): of the nodes' gradients g (F, kC, H, W), and of g * BN(z)."""
    g, channels, dtype = rows_of(g_FCHW), g_FCHW.shape[1] // edges, sum_type(g_FCHW)
    block, operations = channel_block(channels), len(own) + len(shared)
    blocks = triton.cdiv(channels, block) * edges
    block_pixels = BLOCK_PIXELS_OF_SUMS if operations <= 5 else BLOCK_PIXELS_OF_SUMS // 2  # all sums are held at once
    parts, each = parts_of(g.pixels, blocks, block_pixels)
    found = g_FCHW.new_empty(parts, 1 + operations, edges, channels, dtype=dtype)
    _products[(blocks * parts,)](
        g.tensor, g.row, *_columns([*own, *shared]), found, g.pixels, each, channels, edges,
        OWN=len(own), ALL=operations, BLOCK_P=block_pixels, BLOCK_C=block, SUM=triton_type(dtype),
        STAGES=STAGES_OF_SUMS, num_warps=WARPS_OF_SUMS,
    )  # fmt: skip
    return summed(found)


def own_gradients(
    g_FCHW: Tensor, own: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    """Return the gradients (F, kC, H, W) for what the BN of each edge's operations have seen.

    ``sums``: what ``products`` has returned; ``of_batch``: whether the batch's own statistics normalise.
    """
    g, edges = rows_of(g_FCHW), len(weights)
    f, kc, h, w = g_FCHW.shape
    channels, results = kc // edges, [empty_pictures(g_FCHW, f, kc, h, w) for _ in own]
    block = channel_block(channels)
    grid = (triton.cdiv(g.pixels, BLOCK_PIXELS) * triton.cdiv(channels, block) * edges,)
    _own_gradients[grid](
        g.tensor, g.row, *_columns(own), tuple(results), weights, sums, g.pixels, channels, edges,
        weights.stride(0),
        ALL=len(own), OF_BATCH=of_batch, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(g_FCHW)),
        num_warps=WARPS,
    )  # fmt: skip
    return results


def shared_gradients(
    g_FCHW: Tensor, shared: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    """Return the gradients (F, C, H, W) for what the BN of shared operations have seen, and for identity.

    ``weights`` (k, shared) and ``sums`` (1 + shared, k, C) as in ``own_gradients``; identity is the third.
    """
    g, edges = rows_of(g_FCHW), len(weights)
    f, kc, h, w = g_FCHW.shape
    channels, results = kc // edges, [empty_pictures(g_FCHW, f, kc // edges, h, w) for _ in shared]
    block = channel_block(channels)
    grid = (triton.cdiv(g.pixels, BLOCK_PIXELS) * triton.cdiv(channels, block),)
    _shared_gradients[grid](
        g.tensor, g.row, *_columns(shared), tuple(results), weights, sums, g.pixels, channels, edges,
        weights.stride(0),
        ALL=len(shared), OF_BATCH=of_batch, BLOCK_P=BLOCK_PIXELS, BLOCK_C=block, SUM=triton_type(sum_type(g_FCHW)),
        num_warps=WARPS,
    )  # fmt: skip
    return results


class _Columns(NamedTuple):
    """What a kernel takes of some operations."""

    z: tuple[Tensor, ...]
    rows: tuple[int, ...]
    means: tuple[Tensor, ...]
    inverses: tuple[Tensor, ...]


def _columns(normed: Sequence[Normed]) -> _Columns:
    rows = [rows_of(one.z_FCHW) for one in normed]
    means, inverses = ([one.mean for one in normed], [one.inverse_std for one in normed])
    return _Columns(tuple(r.tensor for r in rows), tuple(r.row for r in rows), tuple(means), tuple(inverses))


@triton.jit
def _normed(z, row, mean, inverse, p, column, channel, valid, in_c, SUM: tl.constexpr):
    """BN of what it has seen."""
    values = tl.load(z + p.to(tl.int64)[:, None] * row + column[None, :], mask=valid, other=0.0).to(SUM)
    m = tl.load(mean + channel, mask=in_c, other=0.0).to(SUM)
    v = tl.load(inverse + channel, mask=in_c, other=0.0).to(SUM)
    return (values - m[None, :]) * v[None, :]


@triton.jit(do_not_specialize=SIZES)
def _normalised(
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
def _add_normed(
    sums, row, z, rows, means, inverses, weights, pixels, channels, edges, operations,
    OWN: tl.constexpr, ALL: tl.constexpr, BEGIN: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
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
        at = column if o < OWN else c
        total += weight * _normed(z[o], rows[o], means[o], inverses[o], p, at, at, valid, in_c, SUM)
    tl.store(target, total.to(sums.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _products(
    g, row, z, rows, means, inverses, found, pixels, each, channels, edges,
    OWN: tl.constexpr, ALL: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
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
            at = column if OWN > 0 else c
            s0 += d * _normed(z[0], rows[0], means[0], inverses[0], p, at, at, ok, in_c, SUM)
        if ALL > 1:
            at = column if OWN > 1 else c
            s1 += d * _normed(z[1], rows[1], means[1], inverses[1], p, at, at, ok, in_c, SUM)
        if ALL > 2:
            at = column if OWN > 2 else c
            s2 += d * _normed(z[2], rows[2], means[2], inverses[2], p, at, at, ok, in_c, SUM)
        if ALL > 3:
            at = column if OWN > 3 else c
            s3 += d * _normed(z[3], rows[3], means[3], inverses[3], p, at, at, ok, in_c, SUM)
        if ALL > 4:
            at = column if OWN > 4 else c
            s4 += d * _normed(z[4], rows[4], means[4], inverses[4], p, at, at, ok, in_c, SUM)
        if ALL > 5:
            at = column if OWN > 5 else c
            s5 += d * _normed(z[5], rows[5], means[5], inverses[5], p, at, at, ok, in_c, SUM)
        if ALL > 6:
            at = column if OWN > 6 else c
            s6 += d * _normed(z[6], rows[6], means[6], inverses[6], p, at, at, ok, in_c, SUM)
        if ALL > 7:
            at = column if OWN > 7 else c
            s7 += d * _normed(z[7], rows[7], means[7], inverses[7], p, at, at, ok, in_c, SUM)
    target = found + part * (1 + ALL) * edges * channels + column
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
def _own_gradients(
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
        own = d
        if OF_BATCH:
            along = tl.load(sums + (1 + o) * edges * channels + column, mask=in_c, other=0.0) / pixels
            own -= along[None, :] * _normed(z[o], rows[o], means[o], inverses[o], p, column, column, valid, in_c, SUM)
        own = own * (weight * inverse)[None, :]
        target = results[o] + p.to(tl.int64)[:, None] * (edges * channels) + column[None, :]
        tl.store(target, own.to(results[o].dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def _shared_gradients(
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
        own = tl.zeros([BLOCK_P, BLOCK_C], SUM)
        along = tl.zeros([BLOCK_C], SUM)
        for edge in range(edges):
            column = edge * channels + c
            weight = tl.load(weights + edge * operations + o).to(SUM)
            d = tl.load(g + p.to(tl.int64)[:, None] * row + column[None, :], mask=valid, other=0.0).to(SUM)
            if OF_BATCH and o < 2:
                d -= (tl.load(sums + column, mask=in_c, other=0.0) / pixels)[None, :]
                along += weight * tl.load(sums + (1 + o) * edges * channels + column, mask=in_c, other=0.0) / pixels
            own += weight * d
        if o < 2:
            if OF_BATCH:
                own -= along[None, :] * _normed(z[o], rows[o], means[o], inverses[o], p, c, c, valid, in_c, SUM)
            own *= tl.load(inverses[o] + c, mask=in_c, other=0.0).to(SUM)[None, :]
        target = results[o] + p.to(tl.int64)[:, None] * channels + c[None, :]
        tl.store(target, own.to(results[o].dtype.element_ty), mask=valid)
