"""Convolutions 1x1x1 and 3x1x1 in PyTorch, as 2-D ones: of pictures, and of clips as pictures of (frames, pixels)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.fast.kernels.batchnorm.reference import batch_statistics
from pvnas.fast.kernels.tensors import as_parameter, channels_of, dense, sum_type
from pvnas.space.layers import pointwise


def channel_conv(
    x: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    into: Tensor | None = None,
    step: int = 0,
) -> Tensor:
    groups, x = _groups(x, kernel), x.relu() if relu else x
    if groups == 1 and kernel.shape[2] == 1:
        y = pointwise(x, kernel)
    else:
        y = F.conv2d(_unfold(x, kernel, frames), kernel, None, 1, (kernel.shape[2] // 2, 0), 1, groups)
    y = _fold(y, x)
    if into is None:
        return y
    for edge, part in enumerate(y.chunk(edges, 1)):
        into[:, edge * (step or part.shape[1]) :][:, : part.shape[1]] = part
    return into


def channel_conv_statistics(
    x: Tensor, kernel: Tensor, edges: int, frames: int = 1, relu: bool = False, eps: float = 0.0
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    y = channel_conv(x, kernel, edges, frames, relu)
    return y, batch_statistics(y, eps)


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
    b, a = len(kernel) // edges, kernel.shape[1]
    grad = channels_of(grad, edges, b, first, step or b)
    f, _, h, w = grad.shape
    x = grad.new_empty(f, h, w, a if shared else edges * a).permute(0, 3, 1, 2)  # whose shape alone is read
    x_grad = _backward(grad, x, kernel, frames, of_input=True)
    if behind_relu is not None:
        torch.ops.aten.threshold_backward.grad_input(x_grad, behind_relu, 0, grad_input=x_grad)
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
    b = len(kernel) // edges
    grad, x = channels_of(grad, edges, b, first, step or b), x.relu() if relu else x
    if x.device.type == "cpu" and x.dtype == sum_type(x):
        return _kernel_grad_by_products(grad, x, kernel, frames)
    shape = kernel.new_empty(kernel.shape)  # contiguous: else PyTorch (2.13) may be wrong in bf16 and in float64
    return as_parameter(_backward(grad, x, shape, frames, of_input=False).to(sum_type(grad)))


def _kernel_grad_by_products(grad: Tensor, x: Tensor, kernel: Tensor, frames: int) -> Tensor:
    """As a product of matrices for each tap, clip by clip, which on a CPU is faster than PyTorch's convolution."""
    groups, taps, frame = _groups(x, kernel), kernel.shape[2], grad.shape[2] * grad.shape[3]
    pixels = frames * frame if taps > 1 else len(grad) * frame
    g, x = (t.permute(0, 2, 3, 1).reshape(-1, pixels, groups, t.shape[1] // groups) for t in (grad, x))
    sums = g.new_zeros(taps, groups, g.shape[3], x.shape[3])
    for tap in range(taps):
        shift = (tap - taps // 2) * frame
        for g_QkB, x_QkA in zip(g, x, strict=True):
            g_QkB = g_QkB[max(0, -shift) : pixels - max(0, shift)]
            x_QkA = x_QkA[max(0, shift) : pixels - max(0, -shift)]
            sums[tap].baddbmm_(g_QkB.permute(1, 2, 0), x_QkA.transpose(0, 1))
    return sums.permute(1, 2, 3, 0).reshape(kernel.shape)


def _backward(grad: Tensor, x: Tensor, kernel: Tensor, frames: int, *, of_input: bool) -> Tensor:
    taps = kernel.shape[2]
    sizes = ([1, 1], [taps // 2, 0], [1, 1], False, [0, 0], _groups(x, kernel))
    wanted = [of_input, not of_input, False]
    given = _unfold(grad, kernel, frames), _unfold(x, kernel, frames), kernel
    x_grad, kernel_grad, _ = torch.ops.aten.convolution_backward(*given, None, *sizes, wanted)
    return _fold(x_grad, x) if of_input else kernel_grad


def _groups(x: Tensor, kernel: Tensor) -> int:
    """Return how many edges have channels of their own to read; if all read the same, their kernels are one."""
    return x.shape[1] // kernel.shape[1]


def _unfold(x: Tensor, kernel: Tensor, frames: int) -> Tensor:
    """Return pictures (F, C, H, W) as a kernel over time sees them, (N, C, T, H*W), a view."""
    f, c, h, w = x.shape
    if kernel.shape[2] == 1:
        return x
    return x.permute(0, 2, 3, 1).reshape(f // frames, frames, h * w, c).permute(0, 3, 1, 2)


def _fold(y: Tensor, like: Tensor) -> Tensor:
    """Return what ``_unfold`` has unfolded as dense pictures of the size of others."""
    if y.shape[0] == like.shape[0] and y.shape[2:] == like.shape[2:]:
        return dense(y)
    return dense(y.transpose(1, 2).reshape(like.shape[0], -1, *like.shape[2:]))
