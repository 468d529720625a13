"""Costs against an independent count, PyTorch's counter, hand-computed values, and the paper's evidence."""

import json
import statistics
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pvnas.config import NetworkConfig
from pvnas.errors import UserError
from pvnas.space.cost import count_macs, count_parameters, network_cost
from pvnas.space.genotype import Genotype, random_genotype
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.network import PVNASNetwork
from pvnas.space.stem import build_stem
from pvnas.space.supernet import Supernet

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    "row", json.loads((GOLDEN / "costs.json").read_text()), ids=lambda row: f"{row['file']}-{row['width']}"
)
def test_published_geometry_equals_an_independent_count(row):
    genotype = Genotype.load(GOLDEN / row["file"])
    cost = network_cost(genotype, width=row["width"], repeat=row["repeat"], clip=(8, 224, 224), classes=400)
    assert (cost.params, cost.macs) == (row["params"], row["macs"])


@pytest.mark.parametrize("clip", [(8, 112, 112), (4, 75, 58)])
def test_macs_are_half_of_what_pytorch_counts(clip):
    with torch.device("meta"):
        config = NetworkConfig(width=10, stem="stride2")
        network = PVNASNetwork(random_genotype(5), config, num_classes=11, layers=PLAIN).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, *clip))
    assert 2 * count_macs(network, clip)[0] == counter.get_total_flops()


def test_macs_and_parameters_by_hand():
    stem = build_stem("stride4", 3, 4, FOLDED)
    assert count_parameters(stem) == 4 * 3 * 49 + 2 * 4
    network = nn.Sequential(*stem, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 10))
    macs, activations = count_macs(network, (2, 8, 8))
    assert macs == 4 * 2 * 4 * 4 * 3 * 49 + 40
    assert activations == 4 * 2 * 4 * 4 + 10


@pytest.mark.parametrize(("kind", "pixels"), [("stride4", 4 * 4), ("stride2", 8 * 8)])
def test_a_stem_in_time_adds_a_convolution_of_neighbouring_frames(kind, pixels):
    """Before the pooling, at half the resolution; the output's shape is that of the stem without it."""
    x = torch.zeros(1, 3, 5, 16, 16)
    x[:, :, 2] = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, mixing = (build_stem(name, 3, 4, FOLDED).eval() for name in (kind, f"{kind}-time"))
    assert count_parameters(mixing) - count_parameters(plain) == 4 * 4 * 3 + 2 * 4
    macs = [count_macs(network, (5, 16, 16))[0] for network in (plain, mixing)]
    assert macs[1] - macs[0] == 5 * 8 * 8 * 4 * 4 * 3
    halved = build_stem(f"{kind}-time2", 3, 4, FOLDED).eval()
    halved.load_state_dict(mixing.state_dict())
    torch.testing.assert_close(halved(x), mixing(x)[:, :, ::2])
    outputs = [network(x) for network in (plain, mixing)]
    assert outputs[0].shape == outputs[1].shape
    assert outputs[0][0, 0, 0].numel() == pixels
    seen = [(y - y[:, :, :1]).abs().amax((0, 1, 3, 4)) > 0 for y in outputs]
    assert [frames.tolist() for frames in seen] == [
        [False, False, True, False, False],
        [False, True, True, True, False],
    ]


def test_counting_leaves_the_network_as_it_was():
    network = PVNASNetwork(random_genotype(0), NetworkConfig(width=4, stem="stride2"), num_classes=3).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    count_macs(network, (2, 16, 16))
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_random_genotypes_have_the_median_and_range_of_the_published_layout():
    """Section 4's evidence: median 18.8 M parameters and 19.5 GMACs, ranges 6-43 M and 9-40 G."""
    costs = [network_cost(random_genotype(seed)) for seed in range(20)]
    params, macs = [c.params / 1e6 for c in costs], [c.macs / 1e9 for c in costs]
    assert statistics.median(params) == pytest.approx(18.8, rel=0.12)
    assert statistics.median(macs) == pytest.approx(19.5, rel=0.12)
    assert 6 <= min(params) <= max(params) <= 43
    assert 9 <= min(macs) <= max(macs) <= 40


@pytest.mark.parametrize(("stem", "kernel"), [("stride4", 7 * 7), ("stride2", 3 * 3), ("stride4-time", 7 * 7)])
def test_three_more_channels_cost_what_their_part_of_the_first_kernel_does(stem, kernel):
    rgb, both = (
        network_cost(random_genotype(0), width=4, clip=(2, 32, 30), classes=5, stem=stem, in_channels=channels)
        for channels in (3, 6)
    )
    assert both.params - rgb.params == 4 * 3 * kernel
    assert both.macs - rgb.macs == 4 * 3 * kernel * (2 * 16 * 15)  # at each position of the first layer's output
    assert both.activations == rgb.activations
    network = PVNASNetwork(random_genotype(0), NetworkConfig(width=4, stem=stem, in_channels=6), num_classes=5)
    assert count_macs(network, (2, 32, 30)) == (both.macs, both.activations)
    assert count_macs(Supernet(5, width=2, stem=stem, in_channels=6), (2, 32, 30))[0] > 0


def test_over_views():
    cost = network_cost(random_genotype(0), width=4, clip=(4, 32, 32), classes=5)
    table = cost.over_views(30)
    assert table["macs_per_video"] == 30 * table["macs_per_view"] == 30 * cost.macs


@pytest.mark.parametrize("clip", [(0, 8, 8), (8, 224, 100_000)])
def test_impossible_clips_are_refused(clip):
    with pytest.raises(UserError, match="clip is"):
        network_cost(random_genotype(0), clip=clip)
    with pytest.raises(UserError, match="classes"):
        network_cost(random_genotype(0), classes=0)
