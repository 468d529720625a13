"""Convolutions 1x1x1 and 3x1x1 as matrix products over channels, in Triton.

A program either holds a whole kernel, or goes through it in steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pvnas.fast.kernels.batchnorm.triton import batch_statistics
from pvnas.fast.kernels.batchnorm.triton_moments import joined_moments
from pvnas.fast.kernels.channel_conv.triton_kernels import (
    kernel_grad,
    multiply_in_steps,
    multiply_in_time,
    multiply_once,
)
from pvnas.fast.kernels.tensors import empty_pictures, rows_of, sum_type
from pvnas.fast.kernels.triton_blocks import PROGRAMS, channel_block, parts_of, shared_memory, summed, triton_type


class _Setting(NamedTuple):
    """How a kernel divides its work: the fastest on an H200."""

    pixels: int
    channels: int
    warps: int
    stages: int
    """Blocks of pixels that are read at a time."""
    programs: int = 1 << 30
    """About how many; by default one for each block of pixels."""


# Where a program goes through a kernel in steps, and for the gradient of a kernel: up to 64 channels, more.
STEPS = _Setting(128, 64, 4, 3), _Setting(128, 128, 8, 3)
GRADS = _Setting(64, 64, 4, 3, PROGRAMS), _Setting(64, 64, 4, 3, PROGRAMS)
# Where it holds the kernel, by taps and whether moments are computed: the same two.
HOLDING = {
    (1, False): (_Setting(64, 64, 4, 1), _Setting(64, 128, 4, 3, 528)),
    (1, True): (_Setting(64, 64, 4, 3, 528), _Setting(64, 64, 4, 3, 528)),
    (3, False): (_Setting(64, 64, 4, 3), _Setting(64, 64, 4, 3)),
    (3, True): (_Setting(64, 64, 4, 3, 528), _Setting(64, 64, 4, 3, 1056)),
}
CHANNELS_HELD = 128
"""Up to as many are faster so."""


def channel_conv(
    x: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    into: Tensor | None = None,
    step: int = 0,
) -> Tensor:
    return _convolve(x, kernel, edges, frames, relu, into, step)[0]


def channel_conv_statistics(
    x: Tensor, kernel: Tensor, edges: int, frames: int = 1, relu: bool = False, eps: float = 0.0
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    y, moments = _convolve(x, kernel, edges, frames, relu, moments=True)
    return y, batch_statistics(y, eps) if moments is None else joined_moments(*moments, y.numel() // y.shape[1], eps)


def _convolve(
    x: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int,
    relu: bool,
    into: Tensor | None = None,
    step: int = 0,
    moments: bool = False,
) -> tuple[Tensor, tuple[Tensor, int] | None]:
    f, _, h, w = x.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    y = empty_pictures(x, f, edges * b, h, w) if into is None else into
    weights = kernel.reshape(edges, b, a, taps).permute(3, 0, 2, 1)
    steps = (0 if x.shape[1] == a else a, step or b)
    return y, _multiply(_Product(x, y, weights, steps, frames, relu=relu), moments)


def channel_conv_input_grad(
    grad: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    shared: bool = False,
    first: int = 0,
    step: int = 0,
    behind_relu: Tensor | None = None,
) -> Tensor:
    f, _, h, w = grad.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    x_grad = empty_pictures(grad, f, a if shared else edges * a, h, w)
    weights = kernel.reshape(edges, b, a, taps).permute(3, 0, 1, 2)
    together, steps = edges if shared else 1, (step or b, a)
    _multiply(_Product(grad[:, first:], x_grad, weights, steps, frames, together, sign=-1, behind_relu=behind_relu))
    return x_grad


def channel_conv_kernel_grad(
    grad: Tensor,
    x: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    first: int = 0,
    step: int = 0,
) -> Tensor:
    """The gradient is in the type of sums."""
    h, w = grad.shape[2:]
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    setting = GRADS[max(a, b) > 64]
    g, rows = rows_of(grad[:, first:]), rows_of(x)
    block_b, block_a = channel_block(b, setting.channels), channel_block(a, setting.channels)
    blocks = triton.cdiv(b, block_b) * triton.cdiv(a, block_a) * edges * taps
    parts, each = parts_of(g.pixels, blocks, setting.pixels, setting.programs)
    sums = grad.new_empty(parts, edges * b, a, taps, 1, dtype=sum_type(grad))
    kernel_grad[(blocks * parts,)](
        g.tensor, g.stride, step or b, rows.tensor, rows.stride, 0 if x.shape[1] == a else a, sums, g.pixels, each,
        h * w, frames, b, a, edges,
        TAPS=taps, RELU=relu, BLOCK_B=block_b, BLOCK_A=block_a, BLOCK_P=setting.pixels, **_types(grad),
        num_warps=setting.warps, num_stages=setting.stages,
    )  # fmt: skip
    return summed(sums)


class _Product(NamedTuple):
    """A product over channels, written to y."""

    x: Tensor
    y: Tensor
    weights: Tensor
    """(t, k, from, to)."""
    steps: tuple[int, int]
    """From an edge's channels to those of the next, in x and y."""
    frames: int
    together: int = 1
    """Edges that are summed."""
    sign: int = 1
    """-1 for a gradient: of a frame, from those that it has reached."""
    relu: bool = False
    behind_relu: Tensor | None = None

    @property
    def mask(self) -> tuple[Tensor, int]:
        """``behind_relu`` and elements from a pixel to the next; any tensor if there is none, which is not read."""
        mask = rows_of(self.y if self.behind_relu is None else self.behind_relu)
        return mask.tensor, mask.stride


def _multiply(product: _Product, moments: bool = False) -> tuple[Tensor, int] | None:
    """Write to y. Return, if asked for and a program holds a kernel, the first two arguments of ``joined_moments``."""
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
    x = product.x
    if product.together > 1 or n_from > CHANNELS_HELD or (product.behind_relu is not None and taps > 1):
        return False
    if not x.is_cuda:
        return True
    rows = setting.stages * setting.pixels + taps * channel_block(n_to, setting.channels)
    return (x.element_size() == 2 or _precision(x) == "tf32") and (
        rows * channel_block(n_from, CHANNELS_HELD) * x.element_size() <= shared_memory(x.device) - 16384
    )


def _multiply_in_steps(product: _Product, setting: _Setting) -> None:
    x, y, weights, steps, frames, together, sign, relu, behind_relu = product
    x_rows, y_rows, (taps, edges, n_from, n_to) = rows_of(x), rows_of(y), weights.shape
    (tap, edge, stride_from, stride_to), runs = weights.stride(), edges // together
    block = channel_block(n_to, setting.channels)
    multiply_in_steps[(triton.cdiv(y_rows.pixels, setting.pixels) * triton.cdiv(n_to, block) * runs,)](
        x_rows.tensor, x_rows.stride, steps[0], weights, edge, stride_from, stride_to, tap, y_rows.tensor,
        y_rows.stride, steps[1], *product.mask, y_rows.pixels, x.shape[2] * x.shape[3], frames, n_from, n_to, runs,
        together,
        MASKED=behind_relu is not None, TAPS=taps, SIGN=sign, RELU=relu, BLOCK_P=setting.pixels,
        BLOCK_K=channel_block(n_from), BLOCK_N=block, **_types(y), num_warps=setting.warps, num_stages=setting.stages,
    )  # fmt: skip


def _multiply_holding(product: _Product, setting: _Setting, with_moments: bool) -> tuple[Tensor, int]:
    x, y, weights, steps, frames, _, sign, relu, behind_relu = product
    x_rows, y_rows, (taps, edges, n_from, n_to) = rows_of(x), rows_of(y), weights.shape
    (tap, edge, stride_from, stride_to), channels = weights.stride(), y.shape[1]
    block, frames = channel_block(n_to, setting.channels), frames if taps > 1 else 1
    blocks, length = triton.cdiv(n_to, block) * edges, y_rows.pixels // frames
    parts, each = parts_of(length, blocks, setting.pixels, setting.programs)
    moments = y.new_empty((parts, 2, channels) if with_moments else 1, dtype=sum_type(y))
    x_given = (x_rows.tensor, x_rows.stride, steps[0], weights, edge, stride_from, stride_to)
    y_given = (y_rows.tensor, y_rows.stride, steps[1])
    settings = {
        "RELU": relu, "MOMENTS": with_moments, "BLOCK_P": setting.pixels, "BLOCK_N": block,
        "BLOCK_K": channel_block(n_from, CHANNELS_HELD), "num_warps": setting.warps, "num_stages": setting.stages,
    } | _types(y)  # fmt: skip
    if taps == 1:
        multiply_once[(parts * blocks,)](
            *x_given, *y_given, *product.mask, moments, channels, length, each, n_from, n_to, edges,
            MASKED=behind_relu is not None, **settings,
        )  # fmt: skip
    else:
        multiply_in_time[(parts * blocks,)](
            *x_given, tap, *y_given, moments, channels, length, each, x.shape[2] * x.shape[3], frames, n_from, n_to,
            edges, SIGN=sign, **settings,
        )  # fmt: skip
    return moments, each * frames


def _types(y: Tensor) -> dict[str, Any]:
    return {"SUM": triton_type(sum_type(y)), "PRECISION": _precision(y)}


def _precision(x: Tensor) -> str:
    """As PyTorch's own products: fp32 as it is, unless TF32 is allowed."""
    return "tf32" if x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"
