"""Dense 3x3 convolutions in PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.fast.kernels.tensors import as_parameter, dense, sum_type


def spatial_conv(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    return dense(F.conv2d(dense(x.relu()), _laid(kernel), None, stride, 1))


def spatial_conv_grads(
    grad: Tensor, kernel: Tensor, x: Tensor, stride: int = 1, into: Tensor | None = None, kernel_grad: bool = True
) -> tuple[Tensor, Tensor | None]:
    sizes, wanted = ([stride, stride], [1, 1], [1, 1], False, [0, 0], 1), [True, kernel_grad, False]
    x_grad, of_kernel, _ = torch.ops.aten.convolution_backward(
        dense(grad), dense(x.relu()), _laid(kernel), None, *sizes, wanted
    )
    of_kernel = as_parameter(of_kernel.to(sum_type(grad))) if kernel_grad else None
    return dense(x_grad) if into is None else into.add_(x_grad), of_kernel


def _laid(kernel: Tensor) -> Tensor:
    """Return a kernel as the pictures lie: else PyTorch copies it whenever it reads it."""
    return kernel.contiguous(memory_format=torch.channels_last)
