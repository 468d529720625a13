"""Mean and variance against PyTorch's in float64, far from zero."""

import pytest
import torch

EPS = 1e-5


@pytest.mark.parametrize("shape", [(3, 5, 7, 6), (2, 130, 3, 3), (40, 20, 9, 11)])
def test_statistics(kernels, shape, make, assert_close):
    x = make(*shape, shift=1000.0)
    mean, variance, inverse = kernels.statistics(x, EPS)
    assert_close(mean, x.mean((0, 2, 3)))
    exact = x.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance.double(), exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(inverse.double(), (exact + EPS).rsqrt(), rtol=1e-4, atol=0)
