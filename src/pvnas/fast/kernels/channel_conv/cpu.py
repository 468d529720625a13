"""Convolutions 1x1x1 and 3x1x1 as matrix products over channels, in C++; those for predictions take a bias as well."""

from torch import Tensor

from pvnas.fast.kernels.batchnorm.cpu import DeferredNormGrad, scale_arguments
from pvnas.fast.kernels.cpp_library import as_bits, call
from pvnas.fast.kernels.depthwise.cpu import DeferredDepthwise
from pvnas.fast.kernels.tensors import empty_pictures, rows_of

NO_NORM_GRAD, NO_DEPTHWISE, NO_MASK = [None] * 6, [None] * 13, (None, 0)  # arguments of what is not read
WIDEST = 32
"""Columns of a tile are as many or a part of it, on any processor."""
MOST_POINTS = 7
"""That stand for the three taps of a kernel in time, see ``include/winograd.h``."""


def channel_conv(
    x: Tensor | DeferredDepthwise,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    into: Tensor | None = None,
    step: int = 0,
) -> Tensor:
    return channel_conv_into(x, kernel, edges, frames, relu, into=into, step=step)


def channel_conv_statistics(
    x: Tensor | DeferredDepthwise, kernel: Tensor, edges: int, frames: int = 1, relu: bool = False, eps: float = 0.0
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    mean, variance, inverse_std = statistics = kernel.new_empty(3, len(kernel))
    y = channel_conv_into(x, kernel, edges, frames, relu, statistics=statistics, eps=eps)
    return y, (mean, variance, inverse_std)


def channel_conv_into(
    x: Tensor | DeferredDepthwise,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    *,
    into: Tensor | None = None,
    step: int = 0,
    bias: Tensor | None = None,
    added: bool = False,
    laid_out: Tensor | None = None,
    statistics: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Return what ``channel_conv`` does, plus a bias (kB,); ``added``: add that to what ``into`` holds.

    ``laid_out``: what ``lay_out`` returns for the kernel, where it is used again. ``statistics``: (3, kB), written.
    """
    (f, _, h, w), (b, a) = x.shape, (len(kernel) // edges, kernel.shape[1])
    y = empty_pictures(kernel, f, len(kernel), h, w) if into is None else into
    call(
        "channel_conv", _weight_arguments(_by_edge(kernel, edges), 1), laid_out, _read_arguments(x, 0),
        0 if x.shape[1] == a else a, rows_of(y), step or b, f * h * w, h * w, frames, 1, relu, NO_MASK, bias, added,
        statistics, as_bits(eps),
    )  # fmt: skip
    return y


def lay_out(kernel: Tensor, edges: int, frames: int = 1) -> Tensor:
    """Return the kernels of ``channel_conv`` in the form in which this machine reads them for clips of that length."""
    weights = _by_edge(kernel, edges)
    _, n_from, n_to, taps = weights.shape
    laid_out = kernel.new_empty(edges * (taps if taps == 1 else MOST_POINTS) * n_from * -(-n_to // WIDEST) * WIDEST)
    call("lay_out", _weight_arguments(weights, 1), laid_out, frames, 1)
    return laid_out


def channel_conv_input_grad(
    grad: Tensor | DeferredNormGrad,
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
    x_grad = empty_pictures(kernel, f, a if shared else edges * a, h, w)
    mask = NO_MASK if behind_relu is None else rows_of(behind_relu)
    call(
        "channel_conv", _weight_arguments(kernel.reshape(edges, b, a, taps), edges if shared else 1), None,
        _read_arguments(grad, first), step or b, rows_of(x_grad), a, f * h * w, h * w, frames, -1, False, mask,
        *[None] * 4,
    )  # fmt: skip
    return x_grad


def channel_conv_kernel_grad(
    grad: Tensor | DeferredNormGrad,
    x: Tensor | DeferredDepthwise,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    first: int = 0,
    step: int = 0,
) -> Tensor:
    f, _, h, w = grad.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    sums = kernel.new_empty(edges * b, a, taps, 1)
    call(
        "channel_conv_kernel_grad", _read_arguments(grad, first), step or b, _read_arguments(x, 0),
        0 if x.shape[1] == a else a, sums, f * h * w, h * w, frames, b, a, edges, taps, relu,
    )  # fmt: skip
    return sums


def _by_edge(kernel: Tensor, edges: int) -> Tensor:
    """Return kernels (kB, A, t, 1) as (k, A, B, t)."""
    return kernel.reshape(edges, len(kernel) // edges, *kernel.shape[1:3]).transpose(1, 2)


def _weight_arguments(weights: Tensor, summed: int) -> tuple[Tensor | int, ...]:
    """Return what the kernels take of weights (k, from, to, t), of which edges are summed."""
    edges, n_from, n_to, taps = weights.shape
    return weights, *weights.stride(), n_from, n_to, edges // summed, summed, taps


def _read_arguments(x: Tensor | DeferredNormGrad | DeferredDepthwise, first: int) -> tuple[Tensor | int | None, ...]:
    """Return what the kernels take of pictures, from a channel on."""
    if isinstance(x, DeferredDepthwise):
        return *rows_of(x.x), *NO_NORM_GRAD, *x.arguments()
    if isinstance(x, DeferredNormGrad):
        factors, grad = x.factors[:, first:], rows_of(x.grad[:, first:])
        deferred = *rows_of(x.z[:, first:]), factors, factors.stride(0), *scale_arguments(x.scales, grad.pixels)
        return *grad, *deferred, *NO_DEPTHWISE
    return *rows_of(x[:, first:]), *NO_NORM_GRAD, *NO_DEPTHWISE
