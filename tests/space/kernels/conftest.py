"""Where the kernels run in these tests: on a GPU in fp32, or in Triton's interpreter on the CPU in float64."""

import os
from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]  # for want of triton, which only PyTorch's GPU builds bring along
elif not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined, so before their modules are imported


@pytest.fixture
def make():
    """Random numbers of a shape, as pictures in channels-last memory where they have four dimensions."""
    gpu = torch.cuda.is_available()
    draw = torch.Generator().manual_seed(0)

    def draw_numbers(*shape, shift=0.0):
        x = torch.randn(*shape, generator=draw, dtype=torch.float64) + shift
        x = x.to("cuda", torch.float32) if gpu else x
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    return draw_numbers


@pytest.fixture
def close():
    """Compare with what PyTorch makes of the same numbers, in the precision that there is."""
    bounds = {"rtol": 1e-4, "atol": 1e-4} if torch.cuda.is_available() else {"rtol": 1e-10, "atol": 1e-10}

    def compare(found, expected):
        torch.testing.assert_close(found, expected, check_dtype=False, check_stride=False, **bounds)

    return compare
