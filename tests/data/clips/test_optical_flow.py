"""Optical flow of textures that were moved by a known distance."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pvnas.data.clips.optical_flow import optical_flow, window_matrix

SIDE, MARGIN = 56, 10


def texture(seed: int = 0) -> torch.Tensor:
    """A smooth random picture with room to move in: (1, SIDE + 2 MARGIN, SIDE + 2 MARGIN)."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN, generator=draw)
    smooth = F.avg_pool2d(F.avg_pool2d(noise, 5, 1, 2), 5, 1, 2)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def window(picture: torch.Tensor, right: int = 0, down: int = 0) -> torch.Tensor:
    """What is seen where the picture has moved by so many pixels: (1, SIDE, SIDE)."""
    top, left = MARGIN - down, MARGIN - right
    return picture[:, top : top + SIDE, left : left + SIDE]


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (-2, 1), (3, -3)])
def test_flow_is_the_distance_that_a_texture_was_moved_by(right, down):
    picture = texture()
    flow = optical_flow(window(picture), window(picture, right, down))
    assert flow.shape == (1, 2, SIDE, SIDE)
    found = flow[0, :, 8:-8, 8:-8].flatten(1).median(1).values
    torch.testing.assert_close(found, torch.tensor([right, down]).float(), atol=0.25, rtol=0.05)


def test_a_steady_flow_is_without_the_motion_of_the_camera():
    picture = texture()
    moved = window(picture), window(picture, 3, -2)
    flow, steady = optical_flow(*moved), optical_flow(*moved, steady=True)
    assert steady[:, :, 8:-8, 8:-8].abs().median() < 0.25
    torch.testing.assert_close(
        flow - steady, flow.flatten(2).sort(2).values[:, :, (SIDE**2 - 1) // 2, None, None].expand_as(flow)
    )


def test_two_halves_move_apart():
    left, right = texture(1), texture(2)
    now = torch.cat([window(left)[:, :, :28], window(right)[:, :, 28:]], 2)
    later = torch.cat([window(left, -2)[:, :, :28], window(right, 2)[:, :, 28:]], 2)
    horizontal = optical_flow(now, later)[0, 0, 8:-8]
    assert horizontal[:, 6:18].median() == pytest.approx(-2, abs=0.25)
    assert horizontal[:, 38:50].median() == pytest.approx(2, abs=0.25)


@given(st.integers(0, 100), st.sampled_from([(8, 8), (9, 24), (56, 40)]))
def test_a_still_picture_has_no_flow(seed, size):
    picture = texture(seed)[:, : size[0], : size[1]]
    assert optical_flow(picture, picture).abs().max() < 1e-4


def test_where_nothing_has_structure_nothing_moves():
    grey = torch.full((2, 32, 32), 0.5)
    assert optical_flow(grey, grey + 0.2).abs().max() < 1e-3


def test_pairs_do_not_hang_on_each_other():
    now = torch.cat([window(texture(seed)) for seed in range(3)])
    later = torch.cat([window(texture(seed), 1, seed) for seed in range(3)])
    together = optical_flow(now, later)
    for pair in range(3):
        torch.testing.assert_close(optical_flow(now[pair : pair + 1], later[pair : pair + 1])[0], together[pair])


def test_means_at_the_border_are_over_what_is_there():
    expected = [[1 / 2, 1 / 2, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 1 / 3, 1 / 3, 1 / 3], [0, 0, 1 / 2, 1 / 2]]
    torch.testing.assert_close(window_matrix(4, 3, torch.device("cpu"), torch.float32), torch.tensor(expected))
