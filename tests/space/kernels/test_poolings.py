"""Both poolings against autograd through PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from pvnas.space.kernels.cpu.poolings import pool_one


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("f, c, h, w", [(2, 5, 7, 6), (3, 66, 4, 5), (1, 3, 2, 2), (2, 4, 1, 3)])
@pytest.mark.parametrize("others", [False, True])
def test_equals_pytorchs_poolings(kernels, f, c, h, w, stride, others, make, assert_close):
    x = make(f, c, h, w).requires_grad_()
    # Contiguous: on a GPU PyTorch's averages go backwards wrongly in channels-last memory (seen in 2.11).
    average = F.avg_pool2d(x.contiguous(), 3, stride, 1, count_include_pad=False)
    largest = F.max_pool2d(x, 3, stride, 1)
    own_average, own_largest, which = kernels.pool(x.detach(), stride)
    assert_close(own_average, average)
    assert_close(own_largest, largest)
    of_average, of_largest, of_rectified, of_x = (make(*y.shape) for y in (average, largest, x, x))
    outputs, gradients = [average, largest], [of_average, of_largest]
    if others:
        outputs, gradients = [*outputs, x.relu(), x * 1], [*gradients, of_rectified, of_x]
    (expected,) = torch.autograd.grad(outputs, x, gradients)
    rest = (of_rectified, of_x) if others else (None, None)
    assert_close(kernels.pool_backward(of_average, of_largest, which, x.detach(), stride, *rest), expected)
    cell = make(f, 3 * c, h, w)
    sums, into = cell[:, c : 2 * c] + expected, cell[:, c : 2 * c]
    assert_close(kernels.pool_backward(of_average, of_largest, which, x.detach(), stride, *rest, into=into), sums)
    assert_close(into, sums)


def test_of_equal_numbers_the_first_is_the_largest(kernels, make, assert_close):
    x = torch.ones_like(make(1, 2, 5, 5)).requires_grad_()
    g = make(1, 2, 5, 5)
    (expected,) = torch.autograd.grad(F.max_pool2d(x, 3, 1, 1), x, g)
    _, _, which = kernels.pool(x.detach(), 1)
    assert_close(kernels.pool_backward(torch.zeros_like(g), g, which, x.detach(), 1, None, None), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("f, c, h, w", [(2, 5, 7, 6), (1, 66, 4, 5), (2, 4, 1, 3)])
def test_one_of_them_alone(cpu_kernels, f, c, h, w, stride, make, assert_close):
    x = make(f, c, h, w)
    average, largest = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False), F.max_pool2d(x, 3, stride, 1)
    cell = make(f, 3 * c, *average.shape[2:])
    before = cell.clone()
    assert_close(pool_one(x, stride, averages=False), largest)
    pool_one(x, stride, averages=False, into=cell[:, c : 2 * c])
    pool_one(x, stride, averages=True, into=cell[:, c : 2 * c], added=True)
    assert_close(cell[:, c : 2 * c], average + largest)
    assert_close(cell[:, :c], before[:, :c])
    assert_close(cell[:, 2 * c :], before[:, 2 * c :])


def test_backwards_into_more_than_the_caches_hold(cpu_kernels, make, assert_close):
    x = make(3, 64, 32, 32).requires_grad_()
    g = make(*x.shape)
    assert g.numel() * 8 > 2**20  # what is written past the caches
    (expected,) = torch.autograd.grad(F.max_pool2d(x, 3, 1, 1), x, g)
    _, _, which = cpu_kernels.pool(x.detach(), 1)
    assert_close(cpu_kernels.pool_backward(torch.zeros_like(g), g, which, x.detach(), 1, None, None), expected)
