"""Depthwise 3x3 convolutions in PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.fast.kernels.batchnorm.reference import normalise
from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import as_parameter, dense, empty_pictures, rows_of, sum_over_edges, sum_type
from pvnas.space.layers import split_phases


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None) -> Tensor:
    read, stride, dilation = _read(x, len(kernel), stride, dilation, norm)
    return dense(F.conv2d(read, kernel, None, stride, dilation, dilation, len(kernel)))


def depthwise_input_grad(
    grad: Tensor, kernel: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, into: Tensor | None = None
) -> Tensor:
    edges = len(kernel) // x.shape[1]
    if stride == 2 and dilation == 1:
        read = empty_pictures(x, len(x), len(kernel), *x.shape[2:])  # whose shape alone is read
        x_grad = sum_over_edges(_backward(grad, read, kernel, stride, of_input=True), edges)
    else:
        spacing = dilation // stride  # at stride 2 every tap of dilation 2 falls on an even pixel
        turned = kernel.flip(2, 3)
        x_grad = sum_over_edges(F.conv2d(grad, turned, None, 1, spacing, spacing, len(kernel)), edges)
        if stride == 2:
            picked, x_grad = x_grad, torch.zeros_like(x, memory_format=torch.channels_last)
            x_grad[:, :, ::2, ::2] = picked
    return dense(x_grad) if into is None else into.add_(x_grad)


def depthwise_kernel_grad(
    grad: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None
) -> Tensor:
    read, stride, dilation = _read(x, grad.shape[1], stride, dilation, norm)
    if dilation == 2:  # which is slow on a CPU: an undilated one on the four phases of even and odd pixels
        read, grad = split_phases(read), split_phases(grad)
    kernel = grad.new_empty(grad.shape[1], 1, 3, 3)  # whose shape alone is read
    return as_parameter(_backward(grad, read, kernel, stride, of_input=False).to(sum_type(grad)))


def depthwise_norm_grad(grad: Tensor, kernel: Tensor, norm: Normed) -> tuple[Tensor, Tensor]:
    n = normalise(norm)
    n_grad = dense(F.conv2d(grad, kernel.flip(2, 3), None, 1, 1, 1, len(kernel)))
    torch.ops.aten.threshold_backward.grad_input(n_grad, n, 0, grad_input=n_grad)
    dtype = sum_type(n)
    before = n if norm.weight is None else normalise(norm._replace(weight=None, bias=None))
    sums = n_grad.sum((0, 2, 3), dtype=dtype), (n_grad * before).sum((0, 2, 3), dtype=dtype)
    return n_grad, torch.stack(sums)[:, None]


def _read(x: Tensor, channels: int, stride: int, dilation: int, norm: Normed | None) -> tuple[Tensor, int, int]:
    """Return what is convolved, once for each edge, and the stride and the dilation that are left to do."""
    x = rows_of(x).tensor if norm is None else normalise(norm)
    if stride == dilation == 2:  # every tap falls on an even pixel
        x, stride, dilation = x[:, :, ::2, ::2], 1, 1
    x, edges = dense(x.relu()), channels // x.shape[1]
    return torch.cat([x] * edges, 1) if edges > 1 else x, stride, dilation


def _backward(grad: Tensor, read: Tensor, kernel: Tensor, stride: int, *, of_input: bool) -> Tensor:
    sizes = ([stride, stride], [1, 1], [1, 1], False, [0, 0], len(kernel))
    wanted = [of_input, not of_input, False]
    grads = torch.ops.aten.convolution_backward(grad, read, kernel, None, *sizes, wanted)
    result: Tensor = grads[0] if of_input else grads[1]
    return result
