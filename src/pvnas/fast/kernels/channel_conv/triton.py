"""Convolutions 1x1x1 and 3x1x1 of several edges as matrix products over channels, forward and backward.

Legend: A channels that enter an edge, B that leave it, t taps over time (1 or 3), T frames of a clip.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pvnas.space.kernels.gpu.blocks import PROGRAMS, channel_block, parts_of, shared_memory, summed, triton_type
from pvnas.space.kernels.gpu.moments import joined_moments, statistics
from pvnas.space.kernels.gpu.product_kernels import kernel_gradient, mix, mix_at_once, mix_in_time
from pvnas.space.kernels.operands import empty_pictures, rows_of, sum_type


class _Setting(NamedTuple):
    """How a kernel parts its work: as fast as was found on an H200."""

    pixels: int
    channels: int
    warps: int
    stages: int
    """Blocks of pixels that are read at a time."""
    programs: int = 1 << 30
    """About how many; by default one for each block of pixels."""


# Where a program goes through a kernel in steps, and for the gradient of a kernel: up to 64 channels, more.
STEPS = _Setting(128, 64, 4, 3), _Setting(128, 128, 8, 3)
GRADIENTS = _Setting(64, 64, 4, 3, PROGRAMS), _Setting(64, 64, 4, 3, PROGRAMS)
# Where it holds the kernel, by taps and whether moments are found: the same two.
HOLDING = {
    (1, False): (_Setting(64, 64, 4, 1), _Setting(64, 128, 4, 3, 528)),
    (1, True): (_Setting(64, 64, 4, 3, 528), _Setting(64, 64, 4, 3, 528)),
    (3, False): (_Setting(64, 64, 4, 3), _Setting(64, 64, 4, 3)),
    (3, True): (_Setting(64, 64, 4, 3, 528), _Setting(64, 64, 4, 3, 1056)),
}
CHANNELS_HELD = 128
"""Up to as many are faster so."""


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
    _multiply(_Product(x_FCHW, y, weights, (x_edge, apart or b), frames, rectified=rectified))
    return y


def mix_channels_with_statistics(
    x_FCHW: Tensor, kernel: Tensor, edges: int, frames: int = 1, rectified: bool = False, eps: float = 0.0
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return what ``mix_channels`` does and the ``statistics`` of it."""
    f, _, h, w = x_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    y = empty_pictures(x_FCHW, f, edges * b, h, w)
    weights = kernel.reshape(edges, b, a, taps).permute(3, 0, 2, 1)
    x_edge = 0 if x_FCHW.shape[1] == a else a
    found = _multiply(_Product(x_FCHW, y, weights, (x_edge, b), frames, rectified=rectified), moments=True)
    return y, statistics(y, eps) if found is None else joined_moments(*found, f * h * w, eps)


def mix_channels_input_gradient(
    g_FCHW: Tensor,
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
    g_FCHW = g_FCHW[:, first:]
    f, _, h, w = g_FCHW.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    dx = empty_pictures(g_FCHW, f, a if shared else edges * a, h, w)
    weights = kernel.reshape(edges, b, a, taps).permute(3, 0, 1, 2)
    together = edges if shared else 1
    _multiply(_Product(g_FCHW, dx, weights, (apart or b, a), frames, together=together, sign=-1, where=where))
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
    setting = GRADIENTS[max(a, b) > 64]
    g, x = rows_of(g_FCHW), rows_of(x_FCHW)
    block_b, block_a = channel_block(b, setting.channels), channel_block(a, setting.channels)
    blocks = triton.cdiv(b, block_b) * triton.cdiv(a, block_a) * edges * taps
    parts, each = parts_of(g.pixels, blocks, setting.pixels, setting.programs)
    sums = g_FCHW.new_empty(parts, edges * b, a, taps, 1, dtype=sum_type(g_FCHW))
    kernel_gradient[(blocks * parts,)](
        g.tensor, g.row, apart or b, x.tensor, x.row, 0 if x_FCHW.shape[1] == a else a, sums, g.pixels, each, h * w,
        frames, b, a, edges,
        TAPS=taps, RECTIFIED=rectified, BLOCK_B=block_b, BLOCK_A=block_a, BLOCK_P=setting.pixels, **_types(g_FCHW),
        num_warps=setting.warps, num_stages=setting.stages,
    )  # fmt: skip
    return summed(sums)


class _Product(NamedTuple):
    """A product over channels as its kernels take it."""

    x_FCHW: Tensor
    y_FCHW: Tensor
    weights: Tensor
    """(t, k, from, to)."""
    offsets: tuple[int, int]
    """Of an edge's channels in x and y."""
    frames: int
    together: int = 1
    """Edges that are summed."""
    sign: int = 1
    """-1 for a gradient: of a frame, by what it has reached."""
    rectified: bool = False
    where: Tensor | None = None
    """Zero where this is not above zero."""

    @property
    def mask(self) -> tuple[Tensor, int]:
        """Where y is kept, and elements from a pixel to the next; anything where it is all kept."""
        mask = rows_of(self.y_FCHW if self.where is None else self.where)
        return mask.tensor, mask.row


def _multiply(product: _Product, moments: bool = False) -> tuple[Tensor, int] | None:
    """Write to y. Return, if asked for and found on the way, what ``joined_moments`` takes: moments, pixels of each."""
    weights = product.weights
    if weights.stride(3) != 1 and weights.stride(2) != 1:  # neighbours in memory are read together
        product = product._replace(weights=weights.contiguous())
    taps, _, n_from, n_to = weights.shape
    setting = HOLDING[taps, moments][max(n_from, n_to) > 64]
    if _holds(product, setting):
        return _multiply_holding(product, setting, moments)
    _multiply_in_steps(product, STEPS[n_to > 64])
    return None


def _holds(product: _Product, setting: _Setting) -> bool:
    """Whether a program holds a whole kernel: in tensor cores alone, whose operands the shared memory has room for."""
    taps, _, n_from, n_to = product.weights.shape
    x = product.x_FCHW
    if product.together > 1 or n_from > CHANNELS_HELD or (product.where is not None and taps > 1):
        return False
    if not x.is_cuda:
        return True
    rows = setting.stages * setting.pixels + taps * channel_block(n_to, setting.channels)
    return (x.element_size() == 2 or _precision(x) == "tf32") and (
        rows * channel_block(n_from, CHANNELS_HELD) * x.element_size() <= shared_memory(x.device) - 16384
    )


def _multiply_in_steps(product: _Product, setting: _Setting) -> None:
    x_FCHW, y_FCHW, weights, offsets, frames, together, sign, rectified, where = product
    x, y, (taps, edges, n_from, n_to) = rows_of(x_FCHW), rows_of(y_FCHW), weights.shape
    (tap, edge, stride_from, stride_to), runs = weights.stride(), edges // together
    block = channel_block(n_to, setting.channels)
    mix[(triton.cdiv(y.pixels, setting.pixels) * triton.cdiv(n_to, block) * runs,)](
        x.tensor, x.row, offsets[0], weights, edge, stride_from, stride_to, tap, y.tensor, y.row, offsets[1],
        *product.mask, y.pixels, x_FCHW.shape[2] * x_FCHW.shape[3], frames, n_from, n_to, runs, together,
        MASKED=where is not None, TAPS=taps, SIGN=sign, RECTIFIED=rectified, BLOCK_P=setting.pixels,
        BLOCK_K=channel_block(n_from), BLOCK_N=block, **_types(y_FCHW), num_warps=setting.warps,
        num_stages=setting.stages,
    )  # fmt: skip


def _multiply_holding(product: _Product, setting: _Setting, moments: bool) -> tuple[Tensor, int]:
    x_FCHW, y_FCHW, weights, offsets, frames, _, sign, rectified, where = product
    x, y, (taps, edges, n_from, n_to) = rows_of(x_FCHW), rows_of(y_FCHW), weights.shape
    (tap, edge, stride_from, stride_to), channels = weights.stride(), y_FCHW.shape[1]
    block, frames = channel_block(n_to, setting.channels), frames if taps > 1 else 1
    blocks, length = triton.cdiv(n_to, block) * edges, y.pixels // frames
    parts, each = parts_of(length, blocks, setting.pixels, setting.programs)
    found = y_FCHW.new_empty((parts, 2, channels) if moments else 1, dtype=sum_type(y_FCHW))
    given = {
        "RECTIFIED": rectified, "MOMENTS": moments, "BLOCK_P": setting.pixels, "BLOCK_N": block,
        "BLOCK_K": channel_block(n_from, CHANNELS_HELD), "num_warps": setting.warps, "num_stages": setting.stages,
    } | _types(y_FCHW)  # fmt: skip
    if taps == 1:
        mix_at_once[(parts * blocks,)](
            x.tensor, x.row, offsets[0], weights, edge, stride_from, stride_to, y.tensor, y.row, offsets[1],
            *product.mask, found, channels, length, each, n_from, n_to, edges, MASKED=where is not None, **given,
        )  # fmt: skip
    else:
        mix_in_time[(parts * blocks,)](
            x.tensor, x.row, offsets[0], weights, edge, stride_from, stride_to, tap, y.tensor, y.row, offsets[1],
            found, channels, length, each, x_FCHW.shape[2] * x_FCHW.shape[3], frames, n_from, n_to, edges,
            SIGN=sign, **given,
        )  # fmt: skip
    return found, each * frames


def _types(y: Tensor) -> dict[str, Any]:
    return {"SUM": triton_type(sum_type(y)), "PRECISION": _precision(y)}


def _precision(x: Tensor) -> str:
    """As PyTorch's own products: fp32 as it is, unless TF32 is allowed."""
    return "tf32" if x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"
