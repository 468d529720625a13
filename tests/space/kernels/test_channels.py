"""Products over channels against autograd through PyTorch's convolutions in groups."""

import pytest
import torch
import torch.nn.functional as F

FRAMES = 3


def convolved(x, kernel, groups):
    n, (c, h, w) = len(x) // FRAMES, x.shape[1:]
    x_NCTP = x.reshape(n, FRAMES, c, h * w).transpose(1, 2)
    y_NCTP = F.conv2d(x_NCTP, kernel, None, 1, (kernel.shape[2] // 2, 0), 1, groups)
    return y_NCTP.transpose(1, 2).reshape(n * FRAMES, -1, h, w)


@pytest.mark.parametrize(
    "a, b, edges, taps, shared, rectified",
    [
        (5, 5, 2, 1, False, False),
        (5, 5, 2, 3, False, True),
        (70, 66, 1, 1, False, True),
        (70, 66, 1, 3, False, False),
        (3, 8, 4, 1, True, False),
        (3, 8, 4, 3, True, True),
    ],
)
def test_equals_convolutions(kernels, a, b, edges, taps, shared, rectified, make, assert_close):
    x = make(2 * FRAMES, a if shared else edges * a, 4, 5).requires_grad_()
    kernel = make(edges * b, a, taps, 1).requires_grad_()
    seen = x.relu() if rectified else x
    y = convolved(seen, kernel, 1 if shared else edges)
    assert_close(kernels.mix_channels(x.detach(), kernel.detach(), edges, FRAMES, rectified), y)
    g = make(*y.shape)
    d_seen, d_kernel = torch.autograd.grad(y, (seen, kernel), g)
    assert_close(kernels.mix_channels_input_gradient(g, kernel.detach(), edges, FRAMES, shared), d_seen)
    assert_close(kernels.mix_channels_kernel_gradient(g, x.detach(), kernel, edges, FRAMES, rectified), d_kernel)
