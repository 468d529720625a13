"""Optical flow in C++ against its definition, which is made of PyTorch's operations."""

import pytest
import torch

from pvnas.data.clips.optical_flow import optical_flow
from pvnas.fast.kernels import cpp
from pvnas.fast.kernels.cpp_library import compiler, supported

BOUNDS = {torch.float64: 1e-11, torch.float32: 1e-5}

pytestmark = pytest.mark.skipif(compiler() is None or not supported(), reason="needs Linux and a C++ compiler")


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("pairs, height, width", [(3, 40, 51), (1, 18, 17), (2, 5, 9), (4, 4, 3)])
def test_flow_is_that_of_the_definition(dtype, pairs, height, width):
    """With a coarser level and without one; frames that no matter how lie in memory."""
    draw = torch.Generator().manual_seed(height)
    steps = torch.randn(pairs, height + 2, width + 2, generator=draw, dtype=torch.float64)
    pattern = (steps.cumsum(1).cumsum(2) / 3).sin().add(1).div(2).to(dtype)
    now, later = pattern[:, 1:-1, 1:-1], pattern[:, 2:, :-2]
    expected = optical_flow(now, later)
    assert float(expected.abs().max()) > 0.3
    found = cpp.optical_flow(now, later)
    assert found.shape == (pairs, 2, height, width)
    assert float((found - expected).norm() / expected.norm()) < BOUNDS[dtype]


def test_frames_without_structure_or_motion_do_not_move():
    draw = torch.Generator().manual_seed(0)
    flat, rough = torch.full((1, 30, 30), 0.5), torch.rand(1, 30, 30, generator=draw)
    assert not cpp.optical_flow(flat, flat + 0.1).any()
    assert not cpp.optical_flow(rough, rough.clone()).any()


def test_any_number_of_threads_gives_the_same_bits():
    draw = torch.Generator().manual_seed(1)
    now, later = torch.rand(2, 7, 33, 29, generator=draw)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(cpp.optical_flow(now, later))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
