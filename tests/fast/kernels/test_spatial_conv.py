"""Dense 3x3 convolutions, by Winograd's algorithm in C++, against autograd through PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast.kernels.spatial_conv.cpu import _pays, _side

CPP = pytest.mark.parametrize("chosen", ["c++ float32", "c++ float64"], indirect=True)


@pytest.fixture
def check(kernels, make, exact, assert_close, assert_dense):
    """Compare all passes of one convolution."""

    def compare(frames, a, b, h, w, stride=1):
        x, kernel = make(frames, a, h, w), make(b, a, 3, 3)
        x64, kernel64 = exact(x), exact(kernel)
        read = x64.relu()
        y = F.conv2d(read, kernel64, None, stride, 1)
        result = kernels.spatial_conv(x, kernel, stride)
        grad = make(*y.shape)
        read_grad, kernel_grad = torch.autograd.grad(y, (read, kernel64), grad.double())
        given_x_grad, given_kernel_grad = kernels.spatial_conv_grads(grad, kernel, x, stride)
        assert_close(result, y)
        assert_close(given_x_grad, read_grad)
        assert_close(given_kernel_grad, kernel_grad)
        assert given_kernel_grad.is_contiguous()
        assert_dense(result, given_x_grad)
        into = make(frames, a, h, w)
        total = into.double() + read_grad
        given_x_grad, nothing = kernels.spatial_conv_grads(grad, kernel, x, stride, into, kernel_grad=False)
        assert given_x_grad is into
        assert nothing is None
        assert_close(into, total)

    return compare


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("h, w", [(3, 3), (5, 4), (7, 6), (9, 10)])
def test_equals_convolutions(check, h, w, stride):
    check(64, 16, 18, h, w, stride)


@CPP
@pytest.mark.parametrize("h, w, side", [(3, 3, 3), (9, 9, 3), (8, 8, 4), (4, 12, 4), (5, 5, 5), (10, 5, 5)])
@pytest.mark.parametrize("a, b", [(17, 33), (40, 16), (66, 70)])
def test_squares_of_every_size_and_channels_that_fill_no_vector(check, h, w, side, a, b):
    assert _side(h, w, a, b) == side
    check(64, a, b, h, w)


@CPP
def test_more_squares_than_are_summed_at_once(check):
    check(90, 40, 36, 17, 18)


@CPP
def test_channels_of_a_wider_tensor(kernels, make, assert_close):
    """A node lies among others in the output of its cell."""
    cell, kernel = make(70, 64, 6, 5), make(20, 16, 3, 3)
    x = cell[:, 16:32]
    alone = x.contiguous(memory_format=torch.channels_last)
    assert_close(kernels.spatial_conv(x, kernel), kernels.spatial_conv(alone, kernel))
    grads = make(70, 60, 6, 5)
    grad = grads[:, 20:40]
    expected = kernels.spatial_conv_grads(grad.contiguous(memory_format=torch.channels_last), kernel, alone)
    for given, wanted in zip(kernels.spatial_conv_grads(grad, kernel, x), expected, strict=True):
        assert_close(given, wanted)


@CPP
def test_the_number_of_threads_changes_no_bit(kernels, make):
    x, kernel, grad = make(70, 24, 9, 9), make(40, 24, 3, 3), make(70, 40, 9, 9)
    before, given = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            given.append((kernels.spatial_conv(x, kernel), *kernels.spatial_conv_grads(grad, kernel, x)))
    finally:
        torch.set_num_threads(before)
    for other in given[1:]:
        assert all(map(torch.equal, given[0], other))


@CPP
@pytest.mark.parametrize("frames, a, stride", [(3, 64, 1), (64, 8, 1), (64, 64, 2)])
def test_few_pictures_few_channels_and_strides_are_left_to_pytorch(check, make, frames, a, stride):
    assert not _pays(make(frames, a, 6, 6), make(32, a, 3, 3), stride)
    check(frames, a, 32, 6, 6, stride)
