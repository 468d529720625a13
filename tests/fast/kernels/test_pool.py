"""Both poolings against autograd through PyTorch's own."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast.kernels.pool.cpu import pool_single

CPP = pytest.mark.parametrize("chosen", ["c++ float32", "c++ float64"], indirect=True)


@pytest.fixture
def check(kernels, make, exact, assert_close, assert_dense):
    """Compare both passes."""

    def compare(f, c, h, w, stride, others):
        x = make(f, c, h, w)
        x64 = exact(x).contiguous()  # on a GPU averages go backwards wrongly in channels-last memory (PyTorch 2.11)
        outputs = [F.avg_pool2d(x64, 3, stride, 1, count_include_pad=False), F.max_pool2d(x64, 3, stride, 1)]
        average, maximum, which = kernels.pool(x, stride)
        assert_close(average, outputs[0])
        assert_close(maximum, outputs[1])
        outputs += [x64.relu(), x64 * 1] if others else []
        grads = [make(*y.shape) for y in outputs]
        (expected,) = torch.autograd.grad(outputs, x64, [grad.double() for grad in grads])
        given = (grads[0], grads[1], which, x, stride, *(grads[2:] if others else (None, None)))
        result = kernels.pool_grad(*given)
        assert_close(result, expected)
        assert_dense(average, maximum, result)
        cell = make(f, 3 * c, h, w)
        before, into = cell.clone(), cell[:, c : 2 * c]
        assert kernels.pool_grad(*given, into=into) is into
        assert_close(cell, before.double() + F.pad(expected, (0, 0, 0, 0, c, c)))

    return compare


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "f, c, h, w, others", [(2, 5, 7, 6, True), (1, 66, 3, 4, False), (1, 3, 2, 2, True), (2, 4, 1, 3, False)]
)
def test_equals_pytorchs_poolings(check, f, c, h, w, stride, others):
    check(f, c, h, w, stride, others)


@pytest.mark.parametrize("chosen", ["c++ float32", "c++ float64", "pytorch float32"], indirect=True)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("c", [13, 17, 33])
def test_channels_that_fill_no_whole_number_of_vectors(check, c, stride):
    check(3, c, 9, 12, stride, others=True)


def test_of_equal_numbers_the_first_is_the_largest(kernels, make, assert_close):
    x, grad = torch.ones_like(make(1, 2, 5, 5)), make(1, 2, 5, 5)
    x64 = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(F.max_pool2d(x64, 3, 1, 1), x64, grad.double())
    _, _, which = kernels.pool(x, 1)
    assert_close(kernels.pool_grad(torch.zeros_like(grad), grad, which, x, 1, None, None), expected)


def test_channels_of_a_node_among_those_of_its_cell(kernels, make, assert_close, assert_dense):
    cell, grads = make(2, 12, 5, 4), [make(2, 4, 5, 4) for _ in range(4)]
    node = cell[:, 4:8]
    dense = node.contiguous(memory_format=torch.channels_last)
    *pooled, which = kernels.pool(node, 1)
    *expected, expected_which = kernels.pool(dense, 1)
    for result, wanted in zip(pooled, expected, strict=True):
        assert torch.equal(result, wanted)
    assert torch.equal(which, expected_which)
    result = kernels.pool_grad(*grads[:2], which, node, 1, *grads[2:])
    assert_dense(*pooled, which, result)
    assert_close(result, kernels.pool_grad(*grads[:2], which, dense, 1, *grads[2:]))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_of_one_of_them(kernels, stride, make, assert_close):
    x = make(2, 5, 7, 6)
    average, _, which = kernels.pool(x, stride)
    grad, none = make(*average.shape), torch.zeros_like(average)
    relu_grad = make(*x.shape)
    for more in ((None, None), (relu_grad, None)):
        result = kernels.pool_grad(grad, None, None, x, stride, *more)
        assert_close(result, kernels.pool_grad(grad, none, which, x, stride, *more))
        result = kernels.pool_grad(None, grad, which, x, stride, *more)
        assert_close(result, kernels.pool_grad(none, grad, which, x, stride, *more))


@CPP
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("f, c, h, w", [(2, 5, 7, 6), (1, 66, 4, 5), (2, 4, 1, 3), (2, 13, 5, 9), (2, 33, 9, 5)])
def test_one_of_them_alone(f, c, h, w, stride, make, assert_close):
    x = make(f, c, h, w)
    average = F.avg_pool2d(x.double(), 3, stride, 1, count_include_pad=False)
    maximum = F.max_pool2d(x.double(), 3, stride, 1)
    cell = make(f, 3 * c, *average.shape[2:])
    before = cell.clone()
    assert_close(pool_single(x, stride, averages=False), maximum)
    pool_single(x, stride, averages=False, into=cell[:, c : 2 * c])
    pool_single(x, stride, averages=True, into=cell[:, c : 2 * c], added=True)
    assert_close(cell[:, c : 2 * c], average + maximum)
    assert torch.equal(cell[:, :c], before[:, :c])
    assert torch.equal(cell[:, 2 * c :], before[:, 2 * c :])


@CPP
def test_backwards_into_more_than_the_caches_hold(kernels, make, exact, assert_close):
    x, grad = make(5, 64, 32, 32), make(5, 64, 32, 32)
    assert grad.nbytes > 2**20  # what is written past the caches
    x64 = exact(x)
    (expected,) = torch.autograd.grad(F.max_pool2d(x64, 3, 1, 1), x64, grad.double())
    _, _, which = kernels.pool(x, 1)
    assert_close(kernels.pool_grad(torch.zeros_like(grad), grad, which, x, 1, None, None), expected)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pvnas.fast.kernels.pool.triton import _pool_rows

types = ("i32", "i32", ("*fp32", "i32"), "*fp32", "*fp32", "*u8", "i32", "i32", "constexpr", "constexpr", "constexpr")
constants = {"STAGES": 2, "BLOCK_P": 8, "BLOCK_C": 16}
source = ASTSource(_pool_rows, dict(zip(_pool_rows.arg_names, types)), constants)
print(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ttir"])
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_tritons_compiler_carries_both_rows_before_on(tmp_path):
    """It takes a variable that begins as another's value for unchanged: the interpreter sees nothing of that."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (carried,) = re.findall(r"scf\.for .* iter_args\((.*?)\) ->", done.stdout)
    assert carried.count("=") == 6, carried  # of each row its sum, its maximum and where that is
