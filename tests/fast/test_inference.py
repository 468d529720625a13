"""Networks made ready for predictions give the scores of the networks that were trained."""

import pytest
import torch
from torch import nn

from every_operation import with_every_operation
from pvnas.config import NetworkConfig
from pvnas.fast.inference import folded, for_inference
from pvnas.space.genotype import random_genotype
from pvnas.space.layers import BatchNorm, FactorizedReduction, FoldedConv
from pvnas.space.network import PVNASNetwork


def trained(genotype, **options):
    """A network in float64 whose norms have learned something."""
    torch.manual_seed(0)
    config = NetworkConfig(**{"width": 6, "stem": "stride2", **options})
    network = PVNASNetwork(genotype, config, num_classes=5).double()
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, BatchNorm)):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.3, 3.0)
            norm.weight.uniform_(-2.0, 2.0)
            norm.bias.normal_()
    return network.eval()


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("stem, size, batch", [("stride2", (21, 26), 1), ("stride4", (40, 40), 2)])
def test_scores_are_those_of_evaluation_mode(first, stem, size, batch):
    network = trained(with_every_operation(first), stem=stem, head="plain")
    x = torch.randn(batch, 3, 3, *size, dtype=torch.float64)
    fused = folded(network)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(fused(x), expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(fused(x), expected, rtol=1e-9, atol=1e-10)  # nothing it works in place on is lost


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stem", ["stride2-time", "stride2-time2", "stride4-time2"])
@pytest.mark.parametrize("frames, size", [(2, 33), (16, 32)])
def test_a_single_clip_is_enough(stem, frames, size, threads):
    """Of so few pictures PyTorch's convolutions leave the memory format, which the kernels need."""
    network, before = trained(with_every_operation(0), stem=stem).float(), torch.get_num_threads()
    x = torch.randn(1, 3, frames, size, size)
    try:
        torch.set_num_threads(threads)
        with torch.no_grad():
            torch.testing.assert_close(for_inference(network)(x), network(x), rtol=1e-3, atol=1e-3)
    finally:
        torch.set_num_threads(before)


def test_six_channels_go_through_folded_layers_and_kernels_alike():
    network = trained(with_every_operation(0), in_channels=6).float()
    x = torch.randn(2, 6, 3, 20, 20)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(folded(network)(x), expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(for_inference(network)(x), expected, rtol=1e-3, atol=1e-3)
    assert for_inference(network).in_channels == 6


def test_norms_are_gone_and_pointwise_joins_temporal():
    network = trained(with_every_operation(5))
    fused = folded(network)
    assert not any(isinstance(m, nn.BatchNorm3d) for m in fused.modules())
    kernels = [{m.kernel_size for m in n.modules() if isinstance(m, FoldedConv)} for n in (network, fused)]
    assert kernels[0] == kernels[1]
    joined = len(list(network.modules())) - len(list(fused.modules()))
    norms = sum(isinstance(m, nn.BatchNorm3d) for m in network.modules())
    reductions = sum(isinstance(m, FactorizedReduction) for m in network.modules())  # theirs become Identity
    pairs = sum(operation.endswith("3+1x1") for cell in network.cells for operation in _operations_of(cell))
    assert joined == norms - reductions + pairs
    assert pairs > 0


def _operations_of(cell):
    """The names of a derived cell's temporal 3+1x1 operations, found by their kernels."""
    for operation in cell.operations:
        kernels = [m.kernel_size for m in operation.modules() if isinstance(m, FoldedConv)]
        yield "3+1x1" if kernels == [(1, 1, 1), (3, 1, 1)] else "another"


def test_the_trained_network_stays_as_it_was():
    network = trained(random_genotype(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    fused = for_inference(network)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_few_pictures_on_one_thread_stay_in_channels_last_memory():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for frames, height in ((1, 6), (8, 6), (8, 7), (16, 6)):
            x = torch.randn(1, 4, frames, height, 5).contiguous(memory_format=torch.channels_last_3d)
            conv = FoldedConv(4, 6, 1)
            with torch.no_grad():
                y = conv(x)
                expected = nn.functional.conv3d(x, conv.weight, conv.bias)
            assert y.is_contiguous(memory_format=torch.channels_last_3d)
            torch.testing.assert_close(y, expected)
    finally:
        torch.set_num_threads(threads)
