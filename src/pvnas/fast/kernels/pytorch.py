"""The reference set of kernels: PyTorch's own operations, a few lines each, for every type and every device.

Its sums are PyTorch's: their order, and so the last bits, may change with the number of threads.
"""

from pvnas.fast.kernels.batchnorm.reference import (
    add_mixed,
    batch_statistics,
    mixed_grad_sums,
    normalise,
    per_edge_grads,
    shared_grads,
)
from pvnas.fast.kernels.channel_conv.reference import (
    channel_conv,
    channel_conv_input_grad,
    channel_conv_kernel_grad,
    channel_conv_statistics,
)
from pvnas.fast.kernels.depthwise.reference import (
    depthwise,
    depthwise_input_grad,
    depthwise_kernel_grad,
    depthwise_norm_grad,
)
from pvnas.fast.kernels.flow.reference import optical_flow
from pvnas.fast.kernels.pixels.reference import pick_pixels, spread_pixels
from pvnas.fast.kernels.pool.reference import pool, pool_grad
from pvnas.fast.kernels.spatial_conv.reference import spatial_conv, spatial_conv_grads

NAME = "pytorch"
