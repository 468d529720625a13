"""Products over channels against autograd through PyTorch's convolutions in groups."""

import pytest
import torch
import torch.nn.functional as F
from pvnas.space.kernels.cpu.channels import lay_out

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


@pytest.mark.parametrize("taps", [1, 3])
def test_a_bias_and_what_is_added_to(cpu_kernels, taps, make, assert_close):
    x, kernel, bias = make(2 * FRAMES, 10, 4, 5), make(2 * 7, 5, taps, 1), make(14)
    cell = make(2 * FRAMES, 40, 4, 5)
    before, y = cell.clone(), convolved(x, kernel, 2) + bias.view(-1, 1, 1)
    cpu_kernels.mix_channels(x, kernel, 2, FRAMES, into=cell[:, 16:30], bias=bias)
    assert_close(cell[:, 16:30], y)
    cpu_kernels.mix_channels(x, kernel, 2, FRAMES, into=cell[:, 16:30], bias=bias, added=True)
    assert_close(cell[:, 16:30], 2 * y)
    assert_close(cell[:, :16], before[:, :16])
    assert_close(cell[:, 30:], before[:, 30:])


@pytest.mark.parametrize("a, b, edges, taps", [(5, 7, 2, 1), (40, 70, 1, 3), (3, 33, 2, 3)])
def test_kernels_laid_out_before_give_the_same_bits(cpu_kernels, a, b, edges, taps, make):
    x, kernel = make(2 * FRAMES, edges * a, 4, 5), make(edges * b, a, taps, 1)
    expected, laid_out = cpu_kernels.mix_channels(x, kernel, edges, FRAMES), lay_out(kernel, edges)
    assert torch.equal(cpu_kernels.mix_channels(x, kernel * 0, edges, FRAMES, laid_out=laid_out), expected)


def test_more_than_the_caches_hold_and_more_channels_than_they_take_at_once(cpu_kernels, make, assert_close):
    x, kernel = make(2 * FRAMES, 600, 20, 20), make(64, 600, 1, 1)
    assert x.numel() // 600 * 64 * 8 > 2**20  # what is written past the caches
    assert_close(cpu_kernels.mix_channels(x, kernel, 1), convolved(x, kernel, 1))
    g = make(2 * FRAMES, 64, 20, 20)
    found = cpu_kernels.mix_channels_input_gradient(g, kernel, 1)
    assert_close(found, F.conv_transpose2d(g, kernel))


@pytest.mark.parametrize(
    "a, b, edges, frames, taps, side",
    [(5, 7, 2, 1, 1, 9), (9, 5, 1, 3, 3, 9), (130, 70, 1, 1, 1, 9), (5, 7, 2, 1, 1, 21), (3, 20, 2, 3, 3, 17)],
)
def test_product_with_its_statistics(kernels, a, b, edges, frames, taps, side, make, assert_close):
    x, kernel = make(2 * frames, edges * a, side, side - 1, shift=3.0), make(edges * b, a, taps, 1)
    y, (mean, variance, inverse_std) = kernels.mix_channels_with_statistics(x, kernel, edges, frames, True, eps=1e-3)
    assert_close(y, kernels.mix_channels(x, kernel, edges, frames, True))
    assert_close(mean, y.mean((0, 2, 3)))
    assert_close(variance, y.var((0, 2, 3), correction=0))
    assert_close(inverse_std, (variance + 1e-3).rsqrt())


@pytest.mark.parametrize("a, taps", [(5, 1), (130, 1), (5, 3)])
def test_input_gradient_behind_relu(kernels, a, taps, make, assert_close):
    x, kernel, g = make(6, a, 4, 5), make(7, a, taps, 1), make(6, 7, 4, 5)
    own = kernels.mix_channels_input_gradient(g, kernel, 1, 3)
    assert_close(kernels.mix_channels_input_gradient(g, kernel, 1, 3, where=x), own * (x > 0))
