"""Batch norm of all operations that leave a node: statistics, weighted sums of what it makes, and backward.

Legend: O operations that leave a node, each with a BN, identity without one: those of each edge first, (P, kC), then
those that all edges share, (P, C). ``weights``: mixing weights (k, O).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.space.kernels.cpu.library import as_bits, call
from pvnas.space.kernels.operands import Normed, empty_pictures, rows_of

PARTS = 16  # of what is summed over pixels
MOST = 8  # operations that leave a node


def statistics(x_FCHW: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and 1 / sqrt(variance + eps) of each channel."""
    x, c = rows_of(x_FCHW), x_FCHW.shape[1]
    parts, found = min(PARTS, x.pixels), x_FCHW.new_empty(3, c)
    scratch = x_FCHW.new_empty(parts, 2, c, dtype=torch.float64)
    call(
        "statistics", x_FCHW.dtype, x.tensor, x.row, found, scratch, x.pixels, c, parts, as_bits(eps),
        torch.get_num_threads(),
    )  # fmt: skip
    mean, variance, inverse = found
    return mean, variance, inverse


def normalised(normed: Normed) -> Tensor:
    """Return BN of what it has seen, (F, C, H, W)."""
    z, y = rows_of(normed.z_FCHW), empty_pictures(normed.z_FCHW, *normed.z_FCHW.shape)
    call("normalised", y.dtype, *_operation(normed), y, z.pixels, y.shape[1], torch.get_num_threads())
    return y


def add_normed(
    sums_FCHW: Tensor, own: Sequence[Normed], shared: Sequence[Normed], weights: Tensor, *, begin: bool
) -> None:
    """Add to k nodes' sums (F, kC, H, W), or ``begin`` them, all operations of their edges times their weights."""
    sums, edges = rows_of(sums_FCHW), len(weights)
    call(
        "add_normed", sums_FCHW.dtype, sums.tensor, sums.row, weights, weights.stride(0), sums.pixels,
        sums_FCHW.shape[1] // edges, edges, begin, torch.get_num_threads(), *_operations(own, shared),
    )  # fmt: skip


def products(g_FCHW: Tensor, own: Sequence[Normed], shared: Sequence[Normed], edges: int) -> Tensor:
    """Return the sums over pixels (1 + O, k, C): of the nodes' gradients g (F, kC, H, W), and of g * BN(z)."""
    g, channels, operations = rows_of(g_FCHW), g_FCHW.shape[1] // edges, len(own) + len(shared)
    parts, found = min(PARTS, g.pixels), g_FCHW.new_empty(1 + operations, edges, channels)
    scratch = g_FCHW.new_empty(parts, *found.shape, dtype=torch.float64)
    call(
        "products", g_FCHW.dtype, g.tensor, g.row, found, scratch, g.pixels, channels, edges, parts,
        torch.get_num_threads(), *_operations(own, shared),
    )  # fmt: skip
    return found


class OwnGradient(NamedTuple):
    """The gradient (F, kC, H, W) for what a BN has seen, which is made where it is read: g * a + z * b + c."""

    g_FCHW: Tensor
    z_FCHW: Tensor
    lines: Tensor
    """a, b and c of each channel, (3, kC); rows apart."""

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return self.g_FCHW.shape

    def made(self) -> Tensor:
        """Return it as a tensor."""
        scale, slope, shift = self.lines[:, :, None, None]
        return self.g_FCHW * scale + self.z_FCHW * slope + shift


def own_gradients(
    g_FCHW: Tensor, own: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[OwnGradient]:
    """Return the gradients (F, kC, H, W) for what the BN of each edge's operations have seen.

    ``sums``: what ``products`` has returned; ``of_batch``: whether the batch's own statistics normalise. They read
    ``g_FCHW`` when they are read themselves.
    """
    lines = _lines(g_FCHW, own, [], weights, sums, of_batch)
    return [OwnGradient(g_FCHW, one.z_FCHW, lines[:, o]) for o, one in enumerate(own)]


def shared_gradients(
    g_FCHW: Tensor, shared: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    """Return the gradients (F, C, H, W) for what the BN of shared operations have seen, and for identity.

    ``weights`` (k, shared) and ``sums`` (1 + shared, k, C) as in ``own_gradients``; identity is the third.
    """
    (f, kc, h, w), edges, g = g_FCHW.shape, len(weights), rows_of(g_FCHW)
    lines = _lines(g_FCHW, [], shared, weights, sums, of_batch)
    results = [empty_pictures(g_FCHW, f, kc // edges, h, w) for _ in shared]
    call(
        "shared_gradients", g_FCHW.dtype, g.tensor, g.row, lines, g.pixels, kc // edges, edges, torch.get_num_threads(),
        *results, *[None] * (MOST - len(results)), *_operations([], shared),
    )  # fmt: skip
    return results


def _lines(
    g_FCHW: Tensor, own: Sequence[Normed], shared: Sequence[Normed], weights: Tensor, sums: Tensor, of_batch: bool
) -> Tensor:
    """Return a, b and c of each operation's gradient, (3, O, kC); identity is the third shared one."""
    (f, kc, h, w), edges = g_FCHW.shape, len(weights)
    lines = g_FCHW.new_empty(3, len(own) + len(shared), kc)
    call(
        "gradient_lines", g_FCHW.dtype, weights, sums, lines, weights.stride(0), f * h * w, kc // edges, edges,
        of_batch, len(own) or 2, *_operations(own, shared),
    )  # fmt: skip
    return lines


def _operations(own: Sequence[Normed], shared: Sequence[Normed]) -> list[Tensor | int]:
    every = [*own, *shared]
    if len(every) > MOST:
        raise ValueError(f"{len(every)} operations leave a node: the kernels take {MOST}")
    return [len(own), len(every), *(argument for normed in every for argument in _operation(normed))]


def _operation(normed: Normed) -> tuple[Tensor, int, Tensor, Tensor]:
    z = rows_of(normed.z_FCHW)
    return z.tensor, z.row, normed.mean, normed.inverse_std
