"""The set of kernels in C++ for a CPU, in float32 and float64, compiled on first use: see ``cpp_library``."""

from pvnas.fast.kernels.batchnorm.cpu import (
    add_mixed,
    batch_statistics,
    mixed_grad_sums,
    normalise,
    per_edge_grads,
    shared_grads,
)
from pvnas.fast.kernels.channel_conv.cpu import (
    channel_conv,
    channel_conv_input_grad,
    channel_conv_kernel_grad,
    channel_conv_statistics,
)
from pvnas.fast.kernels.depthwise.cpu import depthwise, depthwise_input_grad, depthwise_kernel_grad, depthwise_norm_grad
from pvnas.fast.kernels.flow.cpu import optical_flow
from pvnas.fast.kernels.pixels.cpu import pick_pixels, spread_pixels
from pvnas.fast.kernels.pool.cpu import pool, pool_grad
from pvnas.fast.kernels.spatial_conv.cpu import spatial_conv, spatial_conv_grads

NAME = "c++"
