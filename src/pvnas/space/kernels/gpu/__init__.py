"""Triton kernels for what is bound by memory in a relaxed cell on a GPU: one pass where PyTorch takes several.

Legend, in all files: F folded frames, H and W pixels, P = F*H*W, C channels of a node, k edges side by side, kC their
channels. A tensor is read as rows of P pixels, its channels next to each other and rows ``row`` elements apart, so that
the channels of a node among those of a cell need no copy. All sums are made in fp32, of float64 in float64, in an order
that depends on the sizes alone: the same clips give the same bits.
"""

from pvnas.space.kernels.gpu.channels import (
    mix_channels,
    mix_channels_input_gradient,
    mix_channels_kernel_gradient,
    mix_channels_with_statistics,
)
from pvnas.space.kernels.gpu.moments import statistics
from pvnas.space.kernels.gpu.normed import add_normed, normalised, own_gradients, products, shared_gradients
from pvnas.space.kernels.gpu.pixels import every_other, spread
from pvnas.space.kernels.gpu.poolings import pool, pool_backward
from pvnas.space.kernels.gpu.stencils import (
    depthwise,
    depthwise_input_gradient,
    depthwise_kernel_gradient,
    depthwise_norm_gradient,
)
from pvnas.space.kernels.operands import KernelSet

KERNELS = KernelSet(
    add_normed=add_normed,
    depthwise=depthwise,
    depthwise_input_gradient=depthwise_input_gradient,
    depthwise_kernel_gradient=depthwise_kernel_gradient,
    depthwise_norm_gradient=depthwise_norm_gradient,
    every_other=every_other,
    mix_channels=mix_channels,
    mix_channels_input_gradient=mix_channels_input_gradient,
    mix_channels_kernel_gradient=mix_channels_kernel_gradient,
    mix_channels_with_statistics=mix_channels_with_statistics,
    normalised=normalised,
    own_gradients=own_gradients,
    pool=pool,
    pool_backward=pool_backward,
    products=products,
    shared_gradients=shared_gradients,
    spread=spread,
    statistics=statistics,
)
