"""Convolutions 1x1x1 and 3x1x1 of several edges as matrix products over channels, forward and backward.

Legend: A channels that enter an edge, B that leave it, t taps over time (1 or 3), T frames of a clip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pvnas.space.kernels.cpu.library import as_bits, call
from pvnas.space.kernels.cpu.normed import OwnGradient
from pvnas.space.kernels.cpu.stencils import OwnDepthwise
from pvnas.space.kernels.operands import empty_pictures, rows_of

Read = Tensor | OwnGradient | OwnDepthwise

# Parts of the pixels that are summed apart, and the most numbers that all of them may have.
PARTS, NUMBERS_OF_PARTS = 16, 2**20
WIDEST = 32
"""Columns of a tile are as many or a part of it, on any processor."""


def mix_channels(
    x_FCHW: Tensor | OwnDepthwise,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    rectified: bool = False,
    into: Tensor | None = None,
    apart: int = 0,
    bias: Tensor | None = None,
    added: bool = False,
    laid_out: Tensor | None = None,
) -> Tensor:
    """Return the convolutions of x (F, kA, H, W), or of one x (F, A, H, W) for all edges, with kernels (kB, A, t, 1).

    ``frames``: T; ``rectified``: of ReLU(x); ``into``: pictures to write to, from their first channel on, the channels
    of an edge ``apart`` from those of the next; ``bias`` (kB,); ``added``: to what these pictures hold; ``laid_out``:
    what ``lay_out`` makes of the kernels, where they are used again.
    """
    b = len(kernel) // edges
    y = _pictures_of(x_FCHW, kernel) if into is None else into
    _mix_edges(x_FCHW, kernel, edges, y, apart or b, frames, rectified, bias=bias, added=added, laid_out=laid_out)
    return y


def lay_out(kernel: Tensor, edges: int) -> Tensor:
    """Return the kernels of ``mix_channels`` in the order in which this machine's processor reads them."""
    weights = _by_edges(kernel, edges)
    _, n_from, n_to, taps = weights.shape
    laid_out = kernel.new_empty(edges * taps * n_from * -(-n_to // WIDEST) * WIDEST)
    call("lay_out", kernel.dtype, *_kernels(weights, 1), laid_out, torch.get_num_threads())
    return laid_out


def mix_channels_with_statistics(
    x_FCHW: Tensor | OwnDepthwise,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    rectified: bool = False,
    eps: float = 0.0,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return what ``mix_channels`` does and the ``statistics`` of it."""
    y, found = _pictures_of(x_FCHW, kernel), kernel.new_empty(3, len(kernel))
    _mix_edges(x_FCHW, kernel, edges, y, len(kernel) // edges, frames, rectified, found=found, eps=eps)
    mean, variance, inverse = found
    return y, (mean, variance, inverse)


def _pictures_of(x_FCHW: Tensor | OwnDepthwise, kernel: Tensor) -> Tensor:
    f, _, h, w = x_FCHW.shape
    return empty_pictures(kernel, f, len(kernel), h, w)


def _mix_edges(
    x_FCHW: Tensor | OwnDepthwise, kernel: Tensor, edges: int, y: Tensor, apart: int, frames: int, rectified: bool,
    **more: Any,
) -> None:  # fmt: skip
    weights, a = _by_edges(kernel, edges), kernel.shape[1]
    _mix(x_FCHW, 0 if x_FCHW.shape[1] == a else a, weights, y, apart, 1, 1, frames, rectified, **more)


def _by_edges(kernel: Tensor, edges: int) -> Tensor:
    """Return kernels (kB, A, t, 1) as (k, A, B, t)."""
    return kernel.reshape(edges, len(kernel) // edges, *kernel.shape[1:3]).transpose(1, 2)


def mix_channels_input_gradient(
    g_FCHW: Tensor | OwnGradient,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    shared: bool = False,
    first: int = 0,
    apart: int = 0,
    where: Tensor | None = None,
) -> Tensor:
    """Return the gradient for what ``mix_channels`` reads: (F, kA, H, W), or summed (F, A, H, W) where it is shared.

    ``first``, ``apart``: where the edges' channels begin in g, and how far from one to the next; ``where``: zero where
    this is not above zero.
    """
    f, _, h, w = g_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    dx = empty_pictures(kernel, f, a if shared else edges * a, h, w)
    summed = edges if shared else 1
    _mix(g_FCHW, apart or b, kernel.reshape(edges, b, a, taps), dx, a, summed, -1, frames, first=first)
    return dx if where is None else torch.ops.aten.threshold_backward.grad_input(dx, where, 0, grad_input=dx)


def _mix(
    x_FCHW: Read,
    x_edge: int,
    weights: Tensor,
    y_FCHW: Tensor,
    y_edge: int,
    summed: int,
    sign: int,
    frames: int,
    rectified: bool = False,
    first: int = 0,
    bias: Tensor | None = None,
    added: bool = False,
    found: Tensor | None = None,
    eps: float = 0.0,
    laid_out: Tensor | None = None,
) -> None:
    """Multiply by ``weights`` (k, from, to, t); sum ``summed`` edges; ``found``: for the ``statistics`` of y."""
    y, (h, w) = rows_of(y_FCHW), x_FCHW.shape[2:]
    call(
        "mix", y_FCHW.dtype, *_kernels(weights, summed), laid_out, *_read(x_FCHW, first), x_edge, y.tensor, y.row,
        y_edge, y.pixels, h * w, frames, sign, rectified, bias, added, found, as_bits(eps), torch.get_num_threads(),
    )  # fmt: skip


def _kernels(weights: Tensor, summed: int) -> list[Tensor | int]:
    """Return what the kernels take of weights (k, from, to, t), of which edges are summed."""
    edges, n_from, n_to, taps = weights.shape
    return [weights, *weights.stride(), n_from, n_to, edges // summed, summed, taps]


def mix_channels_kernel_gradient(
    g_FCHW: Tensor | OwnGradient,
    x_FCHW: Tensor | OwnDepthwise,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    rectified: bool = False,
    first: int = 0,
    apart: int = 0,
) -> Tensor:
    """Return the gradient for the kernels of ``mix_channels``, (kB, A, t, 1).

    ``first``, ``apart``: where the edges' channels begin in g, and how far from one to the next.
    """
    f, _, h, w = g_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    sums = kernel.new_empty(edges * b, a, taps, 1)
    parts = max(1, min(PARTS, NUMBERS_OF_PARTS // sums.numel()))
    call(
        "mix_kernel_gradient", kernel.dtype, *_read(g_FCHW, first), apart or b, *_read(x_FCHW, 0),
        0 if x_FCHW.shape[1] == a else a, sums, f * h * w, h * w, frames, b, a, edges, taps, rectified, parts,
        torch.get_num_threads(),
    )  # fmt: skip
    return sums


def _read(x_FCHW: Read, first: int) -> list[Tensor | int | None]:
    """Return what the kernels take of pictures, from a channel on; of what is made on the way, of what."""
    gradient: list[Tensor | int | None] = [None] * 4
    depthwise: list[Tensor | int | None] = [None] * 11
    if isinstance(x_FCHW, OwnDepthwise):
        x, depthwise = rows_of(x_FCHW.x_FCHW), x_FCHW.arguments()
    elif isinstance(x_FCHW, OwnGradient):
        x, z, lines = rows_of(x_FCHW.g_FCHW), rows_of(x_FCHW.z_FCHW), x_FCHW.lines[:, first:]
        gradient = [z.tensor[:, first:], z.row, lines, lines.stride(0)]
    else:
        x = rows_of(x_FCHW)
    return [x.tensor[:, first:] if first else x.tensor, x.row, *gradient, *depthwise]
