"""Kernels in C++ for a relaxed cell on a CPU, with the names, the arguments and the legend of those in ``gpu``.

They are compiled on first use, see ``library``. All sums have an order that depends on the sizes alone: the same clips
give the same bits, whatever the number of threads.
"""

from pvnas.space.kernels.cpu.channels import (
    mix_channels,
    mix_channels_input_gradient,
    mix_channels_kernel_gradient,
    mix_channels_with_statistics,
)
from pvnas.space.kernels.cpu.normed import add_normed, normalised, own_gradients, products, shared_gradients, statistics
from pvnas.space.kernels.cpu.poolings import every_other, pool, pool_backward, spread
from pvnas.space.kernels.cpu.stencils import (
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
