"""Depthwise convolutions against autograd through PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import tap_by_tap

# F, C, edges, H, W, stride, dilation
CASES = [
    (2, 5, 2, 7, 6, 1, 1),
    (2, 5, 2, 6, 5, 1, 2),
    (1, 33, 1, 5, 3, 2, 1),
    (1, 5, 3, 4, 5, 2, 2),
    (2, 4, 3, 1, 1, 1, 2),
]
ON_CPU = pytest.mark.parametrize(
    "chosen", ["c++ float32", "c++ float64", "pytorch float32", "pytorch bfloat16"], indirect=True
)


def convolve(x, kernel, stride, dilation, edges):
    return F.conv2d(torch.cat([x] * edges, 1).relu(), kernel, None, stride, dilation, dilation, len(kernel))


@pytest.fixture
def check(kernels, make, exact, assert_close, assert_dense, as_tensor):
    """Compare all passes of one convolution."""

    def compare(f, c, edges, h, w, stride, dilation):
        x, kernel = make(f, c, h, w), tap_by_tap(make(edges * c, 1, 3, 3))
        x64, kernel64 = exact(x), exact(kernel)
        y = convolve(x64, kernel64, stride, dilation, edges)
        assert_close(as_tensor(kernels.depthwise(x, kernel, stride, dilation), edges), y)
        grad = make(*y.shape)
        x_grad, kernel_grad = torch.autograd.grad(y, (x64, kernel64), grad.double())
        result = kernels.depthwise_input_grad(grad, kernel, x, stride, dilation)
        assert_dense(result)
        assert_close(result * (x > 0), x_grad)
        before = make(*x.shape)
        added = before.clone()
        assert kernels.depthwise_input_grad(grad, kernel, x, stride, dilation, into=added) is added
        assert_close(added, result.double() + before.double())
        assert_close(kernels.depthwise_kernel_grad(grad, x, stride, dilation), kernel_grad)

    return compare


@pytest.mark.parametrize("f, c, edges, h, w, stride, dilation", CASES)
def test_all_edges_of_one_node(check, f, c, edges, h, w, stride, dilation):
    check(f, c, edges, h, w, stride, dilation)


@ON_CPU
@pytest.mark.parametrize("c", [13, 17, 66])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_channels_that_fill_no_whole_number_of_vectors(check, c, stride, dilation):
    check(2, c, 2, 9, 12, stride, dilation)


@pytest.mark.parametrize("c, with_parameters", [(6, False), (17, False), (6, True), (17, True)])
def test_behind_batch_norm(kernels, c, with_parameters, make, make_sums, exact, assert_close, assert_dense, as_tensor):
    z, kernel = make(3, c, 5, 7, shift=2.0), make(c, 1, 3, 3)
    parameters = (make_sums(c), make_sums(c)) if with_parameters else ()
    norm = Normed(z, make_sums(c, shift=2.0), make_sums(c).abs(), *parameters)
    z64, kernel64 = exact(z), exact(kernel)
    before = (z64 - norm.mean.double()[:, None, None]) * norm.inverse_std.double()[:, None, None]
    n = before * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None] if parameters else before * 1
    y = convolve(n, kernel64, 1, 1, 1)
    grad = make(*y.shape)
    n_grad, kernel_grad = torch.autograd.grad(y, (n, kernel64), grad.double())
    assert_close(as_tensor(kernels.depthwise(z, kernel, norm=norm), 1), y)
    result, sums = kernels.depthwise_norm_grad(grad, kernel, norm)
    assert_dense(result)
    assert_close(result, n_grad)
    assert_close(sums, torch.stack([n_grad.sum((0, 2, 3)), (n_grad * before).sum((0, 2, 3))])[:, None])
    assert_close(kernels.depthwise_kernel_grad(grad, z, norm=norm), kernel_grad)


def test_channels_of_a_node_among_those_of_its_cell(kernels, make, assert_close, as_tensor):
    cell, kernel = make(2, 12, 5, 4), make(8, 1, 3, 3)
    node = cell[:, 4:8]
    assert_close(as_tensor(kernels.depthwise(node, kernel), 2), convolve(node.double(), kernel.double(), 1, 1, 2))
    grad = make(2, 16, 5, 4)[:, 8:]
    expected = kernels.depthwise_kernel_grad(grad.contiguous(memory_format=torch.channels_last), node)
    assert_close(kernels.depthwise_kernel_grad(grad, node), expected)


def test_other_memory_formats_are_refused(kernels, make):
    with pytest.raises(ValueError, match="are no rows"):
        kernels.depthwise(make(2, 4, 5, 4).contiguous(), make(4, 1, 3, 3))


@pytest.mark.parametrize("chosen", ["c++ float32", "c++ float64"], indirect=True)
def test_more_than_the_caches_hold(kernels, make, make_sums, exact, assert_close):
    x, kernel = make(5, 64, 32, 32), make(64, 1, 3, 3)
    assert x.nbytes > 2**20  # what is written past the caches
    x64 = exact(x)
    y = convolve(x64, kernel.double(), 1, 1, 1)
    grad = make(*y.shape)
    y.backward(grad.double())
    result = kernels.depthwise_input_grad(grad, kernel, x)
    assert_close(result * (x > 0), x64.grad)
    norm = Normed(x, torch.zeros_like(make_sums(64)), torch.ones_like(make_sums(64)))
    of_norm, sums = kernels.depthwise_norm_grad(grad, kernel, norm)
    assert_close(of_norm, x64.grad)
    assert_close(sums, torch.stack([x64.grad.sum((0, 2, 3)), (x64.grad * x64).sum((0, 2, 3))])[:, None])
