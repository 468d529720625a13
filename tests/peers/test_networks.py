"""The networks that ours are compared with have the sizes that were published, and any other that is asked for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pvnas.bench.roofline import count_macs as counted_by_pytorch
from pvnas.errors import UserError
from pvnas.peers import PEERS, peer, width_of
from pvnas.peers.networks import Shifted
from pvnas.peers.residual import ResidualNetwork
from pvnas.space.cost import count_macs, count_parameters

PUBLISHED = [name for name, found in PEERS.items() if not math.isnan(found.params)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_accumulates_are_the_published_ones(name: str) -> None:
    """To the digits that are published: TSM's are rounded to 0.1 M and 1 G."""
    found = PEERS[name]
    with torch.device("meta"):
        network = found.build(found.width, num_classes=400).eval()
        clips_NCTHW = torch.empty(1, 3, *found.clip)
        macs = counted_by_pytorch(lambda: network(clips_NCTHW))
    rounded = name == "tsm-r50"
    assert count_parameters(network) / 1e6 == pytest.approx(found.params, abs=0.05 if rounded else 0.006)
    assert macs / 1e9 == pytest.approx(found.gmacs, abs=0.5 if rounded else 0.006)
    assert count_macs(network, found.clip)[0] == macs


@pytest.mark.parametrize("name", PEERS)
def test_any_width_sees_any_channels_and_learns(name: str) -> None:
    network = PEERS[name].build(3, num_classes=4, in_channels=2, drop_rate=0.5, drop_path_rate=0.3)
    scores_NK = network(torch.randn(3, 2, 4, 24, 24))
    assert scores_NK.shape == (3, 4)
    scores_NK.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert (network.width, network.in_channels, network.num_classes) == (3, 2, 4)
    network.eval()
    x = torch.randn(2, 2, 4, 24, 24)
    assert torch.equal(network(x), network(x))  # nothing is dropped in a test


def macs_by_hand(w: int, depth: int, frames: int, side: int, classes: int, channels: int) -> int:
    """Of the stem on half the side, then of stages of w, 2w, 4w, 8w, each on half the side of the one before."""
    side = -(-side // 2)
    macs = frames * side * side * (channels * w * 25 + w * w * 3)
    before = w
    for c in (w, 2 * w, 4 * w, 8 * w):
        side = -(-side // 2)
        macs += frames * side * side * (before * c * 9 + c * c * 3 + before * c)  # the shortcut is a 1x1x1 convolution
        macs += (depth - 1) * frames * side * side * (c * c * 9 + c * c * 3)
        before = c
    return macs + before * classes


@pytest.mark.parametrize(("depth", "channels", "side"), [(1, 3, 24), (2, 6, 23)])
def test_the_plain_network_has_the_macs_and_parameters_that_it_is_written_with(
    depth: int, channels: int, side: int
) -> None:
    network = ResidualNetwork(4, depth, num_classes=5, in_channels=channels)
    assert count_macs(network, (2, side, side))[0] == macs_by_hand(4, depth, 2, side, 5, channels)
    x = torch.randn(3, channels, 2, side, side)
    assert network(x).shape == (3, 5)
    assert network.blocks(network.stem(x)).shape == (3, 32, 2, 1, 1)
    weights = 4 * channels * 25 + 4 * 4 * 3 + 2 * (4 + 4)
    before = 4
    for c in (4, 8, 16, 32):
        weights += before * c * 9 + c * c * 3 + before * c + 3 * 2 * c
        weights += (depth - 1) * (c * c * 12 + 2 * 2 * c)
        before = c
    assert count_parameters(network) == weights + 32 * 5 + 5


def test_a_block_is_the_convolutions_that_pytorch_has() -> None:
    torch.manual_seed(0)
    network = ResidualNetwork(3, 2, num_classes=2).eval()
    first, second = network.blocks[:2]
    x = torch.randn(2, 3, 4, 6, 5)

    def factored(x: torch.Tensor, body: nn.Sequential, stride: int) -> torch.Tensor:
        (space, norm), relu, (time, last) = body
        y = torch.conv3d(x, space.weight, None, (1, stride, stride), (0, 1, 1))
        return last(torch.conv3d(relu(norm(y)), time.weight, None, 1, (1, 0, 0)))

    shortcut = first.shortcut[1](torch.conv3d(x, first.shortcut[0].weight, None, (1, 2, 2)))
    expected = torch.relu(shortcut + factored(x, first.body, 2))
    torch.testing.assert_close(first(x.contiguous(memory_format=torch.channels_last_3d)), expected)
    torch.testing.assert_close(second(expected), torch.relu(expected + factored(expected, second.body, 1)))


def test_a_shift_brings_an_eighth_of_the_channels_from_either_neighbour() -> None:
    x_NCTHW = torch.arange(8 * 3.0).view(1, 8, 3, 1, 1)
    y_CT = Shifted()(x_NCTHW)[0, :, :, 0, 0]
    assert y_CT[0].tolist() == [1.0, 2.0, 0.0]  # of the frame behind
    assert y_CT[1].tolist() == [0.0, 3.0, 4.0]  # of the frame before
    assert torch.equal(y_CT[2:], x_NCTHW[0, 2:, :, 0, 0])


@pytest.mark.parametrize("macs", [1.0, 2.5e6])
def test_the_width_is_the_one_whose_macs_are_nearest(macs: float) -> None:
    found = width_of(PEERS["residual"], macs, (2, 24, 24), num_classes=5, in_channels=3)
    assert found == min(range(1, 60), key=lambda w: abs(macs_by_hand(w, 1, 2, 24, 5, 3) - macs))


def test_what_no_width_has_and_unknown_names_are_one_line() -> None:
    with pytest.raises(UserError, match=r"no width up to 4096 has 1e\+18 multiply-accumulates a view"):
        width_of(PEERS["residual"], 1e18, (8, 8, 8), num_classes=2)
    with pytest.raises(UserError, match="no network 'resnet' to compare with; there are residual, r2plus1d-18"):
        peer("resnet")
