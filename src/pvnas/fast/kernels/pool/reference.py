"""Both 3x3 poolings of a node in PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.fast.kernels.tensors import dense, sum_type
from pvnas.space.dense import average_3x3_backward


def pool(x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels are numbered as PyTorch does, in half the bytes that it takes."""
    average = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
    maximum, which = torch.ops.aten.max_pool2d_with_indices(x, [3, 3], [stride, stride], [1, 1])
    return dense(average), dense(maximum), dense(which.int())


def pool_grad(
    average_grad: Tensor | None,
    max_grad: Tensor | None,
    which: Tensor | None,
    x: Tensor,
    stride: int,
    relu_grad: Tensor | None,
    identity_grad: Tensor | None,
    into: Tensor | None = None,
) -> Tensor:
    dtype, window = sum_type(x), ([3, 3], [stride, stride], [1, 1])
    read = dense(x).to(dtype)
    x_grad = torch.zeros_like(read)
    if average_grad is not None and x.is_cuda:  # where PyTorch's is wrong, see there
        x_grad += average_3x3_backward(average_grad.to(dtype), x.shape, stride)
    elif average_grad is not None:
        x_grad += torch.ops.aten.avg_pool2d_backward(average_grad.to(dtype), read, *window, False, False, None)
    if max_grad is not None and which is not None:
        x_grad += torch.ops.aten.max_pool2d_with_indices_backward(
            max_grad.to(dtype), read, *window, [1, 1], False, which.long()
        )
    if relu_grad is not None:
        x_grad += torch.ops.aten.threshold_backward(relu_grad, x, 0)
    if identity_grad is not None:
        x_grad += identity_grad
    return x_grad.to(x.dtype) if into is None else into.add_(x_grad)
