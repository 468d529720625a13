"""The set of kernels in Triton for a GPU: one pass over memory where PyTorch's operations take several."""

from pvnas.fast.kernels.batchnorm.triton import (
    add_mixed,
    batch_statistics,
    mixed_grad_sums,
    normalise,
    per_edge_grads,
    shared_grads,
)
from pvnas.fast.kernels.channel_conv.triton import (
    channel_conv,
    channel_conv_input_grad,
    channel_conv_kernel_grad,
    channel_conv_statistics,
)
from pvnas.fast.kernels.depthwise.triton import (
    depthwise,
    depthwise_input_grad,
    depthwise_kernel_grad,
    depthwise_norm_grad,
)
from pvnas.fast.kernels.flow.reference import optical_flow
from pvnas.fast.kernels.pixels.triton import pick_pixels, spread_pixels
from pvnas.fast.kernels.pool.triton import pool, pool_grad
from pvnas.fast.kernels.spatial_conv.reference import spatial_conv, spatial_conv_grads

NAME = "triton"
