"""Batch norms, mixed by weights, in C++."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.fast.kernels.cpp_library import as_bits, call
from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import empty_pictures, rows_of

MOST = 8  # operations that leave a node


def batch_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    rows, c = rows_of(x), x.shape[1]
    mean, variance, inverse_std = statistics = x.new_empty(3, c)
    call("batch_statistics", rows, statistics, rows.pixels, c, as_bits(eps))
    return mean, variance, inverse_std


def normalise(normed: Normed) -> Tensor:
    y = empty_pictures(normed.z, *normed.z.shape)
    call("normalise", _operation(normed), y, y.numel() // y.shape[1], y.shape[1])
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
    rows, edges, clips = rows_of(sums), len(weights), 0 if scales is None else scales.shape[1]
    call(
        "add_mixed", rows, weights, weights.stride(0), rows.pixels, sums.shape[1] // edges, edges, begin,
        scale_arguments(scales, rows.pixels), clips, *_operations(per_edge, shared),
    )  # fmt: skip


def scale_arguments(scales: Tensor | None, pixels: int) -> tuple[Tensor | int | None, ...]:
    """Return what the kernels take of scales (..., N): they, and how many of all pixels a clip has."""
    return (None, 1) if scales is None else (scales, pixels // scales.shape[-1])


def mixed_grad_sums(
    grad: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], edges: int, scales: Tensor | None = None
) -> Tensor:
    g, channels = rows_of(grad), grad.shape[1] // edges
    sums = grad.new_empty(1 + len(per_edge) + len(shared), edges, channels)
    given = scale_arguments(scales, g.pixels)
    call("mixed_grad_sums", g, sums, g.pixels, channels, edges, given, *_operations(per_edge, shared))
    return sums


class DeferredNormGrad(NamedTuple):
    """The gradient (F, kC, H, W) for the input z of a batch norm, computed where it is read.

    It is grad * scale * a + z * b + c.
    """

    grad: Tensor
    z: Tensor
    factors: Tensor
    """a, b and c of each channel, (3, kC), strided."""
    scales: Tensor | None
    """Of each clip, (N,); None: all 1."""

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return self.grad.shape


def per_edge_grads(
    grad: Tensor,
    per_edge: Sequence[Normed],
    weights: Tensor,
    sums: Tensor,
    *,
    of_batch: bool,
    scales: Tensor | None = None,
) -> list[DeferredNormGrad]:
    factors = _grad_factors(grad, per_edge, [], weights, sums, of_batch)
    return [DeferredNormGrad(grad, normed.z, factors[:, o], scales) for o, normed in enumerate(per_edge)]


def shared_grads(
    grad: Tensor, shared: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    (f, kc, h, w), edges, g = grad.shape, len(weights), rows_of(grad)
    factors = _grad_factors(grad, [], shared, weights, sums, of_batch)
    results = [empty_pictures(grad, f, kc // edges, h, w) for _ in shared]
    call(
        "shared_grads", g, factors, g.pixels, kc // edges, edges, *results, *[None] * (MOST - len(results)),
        *_operations([], shared),
    )  # fmt: skip
    return results


def _grad_factors(
    grad: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], weights: Tensor, sums: Tensor, of_batch: bool
) -> Tensor:
    """Return a, b and c of ``DeferredNormGrad`` for each operation, (3, operations, kC)."""
    (f, kc, h, w), edges = grad.shape, len(weights)
    factors = grad.new_empty(3, len(per_edge) + len(shared), kc)
    with_norm = len(per_edge) or 2  # of those that are shared the third is identity
    call(
        "grad_factors", weights, sums, factors, weights.stride(0), f * h * w, kc // edges, edges, of_batch, with_norm,
        *_operations(per_edge, shared),
    )  # fmt: skip
    return factors


def _operations(per_edge: Sequence[Normed], shared: Sequence[Normed]) -> list[int | tuple[Tensor | int | None, ...]]:
    every = [*per_edge, *shared]
    if len(every) > MOST:
        raise ValueError(f"{len(every)} operations leave a node: the kernels take {MOST}")
    return [len(per_edge), len(every), *map(_operation, every)]


def _operation(normed: Normed) -> tuple[Tensor | int | None, ...]:
    return *rows_of(normed.z), *normed[1:]
