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
    size = optical_flow(now, later).norm()
    assert float(size) > 0.3 * (pairs * height * width) ** 0.5
    for steady in (False, True):
        found = cpp.optical_flow(now, later, steady=steady)
        assert found.shape == (pairs, 2, height, width)
        assert float((found - optical_flow(now, later, steady=steady)).norm() / size) < BOUNDS[dtype]


@pytest.mark.parametrize("height, width", [(40, 51), (8, 16), (5, 5)], ids=str)
def test_what_is_taken_off_a_frame_is_its_lower_median_to_the_bit(height, width):
    draw = torch.Generator().manual_seed(width)
    now, later = torch.rand(2, 6, height, width, generator=draw).pow(3)
    flow = cpp.optical_flow(now, later)
    expected = flow - flow.flatten(2).median(2).values[:, :, None, None]
    assert torch.equal(cpp.optical_flow(now, later, steady=True), expected)


def test_a_frame_with_a_value_that_is_none_has_no_median():
    now = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0))
    later = now.flip(1).clone()
    later[0, 4, 4] = float("nan")
    found = cpp.optical_flow(now, later, steady=True)
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


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
