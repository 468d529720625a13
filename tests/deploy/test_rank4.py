"""Networks without tensors of more than four dimensions give the scores of those that they are made of."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import pvnas
from every_operation import with_every_operation
from pvnas.config import ClipConfig, NetworkConfig
from pvnas.data.clips.network_input import frames_read, network_input
from pvnas.deploy.rank4 import FromPixels, OnClips, Rank4Network
from pvnas.space.genotype import Edge, Genotype
from pvnas.space.layers import BatchNorm
from pvnas.space.network import PVNASNetwork
from pvnas.space.operations import register_operation, unregister_operation


def learnt(
    genotype: Genotype, stem: str = "stride2", width: int = 6, channels: int = 3, **options: object
) -> PVNASNetwork:
    """A network whose norms have learnt something."""
    torch.manual_seed(0)
    config = NetworkConfig(width=width, stem=stem, in_channels=channels, **options)
    network = PVNASNetwork(genotype, config, num_classes=5)
    with torch.no_grad():
        for norm in (module for module in network.modules() if isinstance(module, BatchNorm)):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.3, 3.0)
            norm.weight.uniform_(-2.0, 2.0)
            norm.bias.normal_()
    return network.eval()


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize("stem, frames", [("stride2", 1), ("stride4", 8), ("stride4-time2", 5), ("stride2-time", 2)])
@torch.no_grad()
def test_scores_are_the_networks(first: int, stem: str, frames: int) -> None:
    network = learnt(with_every_operation(first), stem).double()
    rank4 = Rank4Network(network, frames)
    for clips in (1, 3):
        x = torch.randn(clips, 3, frames, 37, 42, dtype=torch.float64)
        torch.testing.assert_close(rank4(x.transpose(1, 2)), network(x), rtol=1e-9, atol=1e-10)
    assert isinstance(network.stem[0], nn.Conv3d), "the network itself is as it was"


@pytest.mark.parametrize("input", ["rgb", "motion", "both", "flow", "flow+rgb"])
@torch.no_grad()
def test_pixels_become_what_the_network_sees(input: str) -> None:
    clip = ClipConfig(input=input, frames=4)
    network = learnt(pvnas.random_genotype(0), channels=clip.channels, head="plain")
    generator = torch.Generator().manual_seed(0)
    frames_NFHWC = torch.randint(0, 256, (3, frames_read(clip), 32, 36, 3), generator=generator, dtype=torch.uint8)
    views_NCTHW = frames_NFHWC.permute(0, 4, 1, 2, 3)
    if clip.colours == 1:
        from pvnas.data.video.decode import in_colours

        views_NCTHW = torch.stack([in_colours(view.transpose(0, 1), 1).transpose(0, 1) for view in views_NCTHW])
    expected = network(network_input(views_NCTHW, clip)).softmax(1)
    found = FromPixels(Rank4Network(network, 4), clip)(frames_NFHWC)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float(expected.std()) > 1e-3, "scores that differ"


@torch.no_grad()
def test_an_operation_that_somebody_else_registered() -> None:
    @register_operation("gated", sets=("temporal",))
    def gated(channels: int, stride: int, layers: object, *, affine: bool) -> nn.Module:
        norm = layers.norm(channels, affine=affine)  # type: ignore[attr-defined]
        pool = layers.avg_pool((1, 3, 3), (1, stride, stride), (0, 1, 1))  # type: ignore[attr-defined]
        return nn.Sequential(pool, norm, nn.AvgPool3d((3, 1, 1), 1, (1, 0, 0)))

    try:
        nodes = tuple((Edge(0, "gated"), Edge(1, "sep_conv_1x3x3")) for _ in range(4))
        genotype = pvnas.random_genotype(0)
        genotype = replace(genotype, items=tuple((n, nodes if n == "T-NC" else c) for n, c in genotype.cells.items()))
        network = learnt(genotype)
        rank4 = Rank4Network(network, 4)
        x = torch.randn(2, 3, 4, 32, 32)
        torch.testing.assert_close(rank4(x.transpose(1, 2)), network(x), rtol=1e-4, atol=1e-4)
        assert any(isinstance(module, OnClips) for module in rank4.modules())
    finally:
        unregister_operation("gated")
