"""Dense 3x3 convolutions in C++, by Winograd's algorithm where that pays, else PyTorch's."""

from torch import Tensor

from pvnas.fast.kernels.channel_conv.cpu import WIDEST
from pvnas.fast.kernels.cpp_library import call
from pvnas.fast.kernels.spatial_conv import reference
from pvnas.fast.kernels.tensors import empty_pictures, rows_of

SIDES = (3, 4, 5)
"""Of the squares of the output that the algorithm makes at once."""
FEWEST_SQUARES, FEWEST_CHANNELS = 64, 16
"""Below which bringing kernels and pictures into its form takes longer than it saves."""


def spatial_conv(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    if not _pays(x, kernel, stride):
        return reference.spatial_conv(x, kernel, stride)
    return _convolved(x, kernel.transpose(0, 1), relu=True)


def spatial_conv_grads(
    grad: Tensor, kernel: Tensor, x: Tensor, stride: int = 1, into: Tensor | None = None, kernel_grad: bool = True
) -> tuple[Tensor, Tensor | None]:
    if not _pays(x, kernel, stride):
        return reference.spatial_conv_grads(grad, kernel, x, stride, into, kernel_grad)
    x_grad = _convolved(grad, kernel, turned=True, into=into)
    if not kernel_grad:
        return x_grad, None
    (f, a, h, w), b = x.shape, len(kernel)
    sums = kernel.new_empty(b, a, 3, 3)
    sizes = b, a, f, h, w, _side(h, w, b, a)
    call("spatial_conv_kernel_grad", rows_of(grad), rows_of(x), True, *sizes, sums)
    return x_grad, sums


def _convolved(
    x: Tensor, weights: Tensor, *, relu: bool = False, turned: bool = False, into: Tensor | None = None
) -> Tensor:
    """Return the convolution of x (F, A, H, W) with weights (A, B, 3, 3), which are ``turned`` round."""
    (f, a, h, w), b = x.shape, weights.shape[1]
    m = _side(h, w, a, b)
    values = x.new_empty((m + 2) ** 2 * a * -(-b // WIDEST) * WIDEST)
    of_a, of_b, _, of_tap = weights.stride()
    call("spatial_weights", weights, of_a, of_b, of_tap, turned, a, b, m, values)
    y = empty_pictures(x, f, b, h, w) if into is None else into
    call("spatial_conv", rows_of(x), relu, values, a, b, f, h, w, m, rows_of(y), into is not None)
    return y


def _pays(x: Tensor, kernel: Tensor, stride: int) -> bool:
    f, a, h, w = x.shape
    squares = f * _squares(h, w, _side(h, w, a, len(kernel)))
    return stride == 1 and squares >= FEWEST_SQUARES and min(a, len(kernel)) >= FEWEST_CHANNELS


def _side(h: int, w: int, a: int, b: int) -> int:
    """Return the side of the squares that takes the least time for pictures of ``a`` channels to ``b``.

    That is multiplications for the products, and for their (m + 2)^2 values of each square and channel about as many as
    four products of matrices of that side.
    """
    return min(SIDES, key=lambda m: _squares(h, w, m) * (m + 2) ** 2 * (a * b + 4 * (m + 2) * (a + b)))


def _squares(h: int, w: int, m: int) -> int:
    return -(-h // m) * -(-w // m)
