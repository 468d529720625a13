"""Both kinds of kernels on the same tests: in C++ on the CPU; in Triton on a GPU, or in its interpreter on the CPU.

In float64, on a GPU in fp32.
"""

import os
from importlib.util import find_spec

import pytest
import torch
from pvnas.space.kernels.cpu import KERNELS as CPU
from pvnas.space.kernels.cpu.library import compiler, supported

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined, so before their modules are imported
NO_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
NO_COMPILER = pytest.mark.skipif(compiler() is None or not supported(), reason="needs Linux and a C++ compiler")


@pytest.fixture(params=[pytest.param("cpu", marks=NO_COMPILER), pytest.param("gpu", marks=NO_TRITON)])
def kernels(request):
    """All kernels of a kind."""
    if request.param == "cpu":
        return CPU
    from pvnas.space.kernels.gpu import KERNELS

    return KERNELS


@pytest.fixture
def cpu_kernels():
    """Those in C++, which do more for predictions."""
    if NO_COMPILER.args[0]:
        pytest.skip(NO_COMPILER.kwargs["reason"])
    return CPU


@pytest.fixture
def on_gpu(request):
    return GPU and "kernels" in request.fixturenames and request.getfixturevalue("kernels") is not CPU


@pytest.fixture(autouse=True)
def fp32_as_it_is(monkeypatch):
    """PyTorch's convolutions on a GPU, too, which else round fp32 to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def make(on_gpu):
    """Random numbers of a shape, as pictures in channels-last memory where they have four dimensions."""
    draw = torch.Generator().manual_seed(0)

    def draw_numbers(*shape, shift=0.0):
        x = torch.randn(*shape, generator=draw, dtype=torch.float64) + shift
        x = x.to("cuda", torch.float32) if on_gpu else x
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    return draw_numbers


@pytest.fixture
def assert_close(on_gpu):
    """Compare with what PyTorch makes of the same numbers, in the precision that there is."""
    bounds = {"rtol": 1e-4, "atol": 1e-4} if on_gpu else {"rtol": 1e-10, "atol": 1e-10}

    def compare(found, expected):
        torch.testing.assert_close(found, expected, check_dtype=False, check_stride=False, **bounds)

    return compare
