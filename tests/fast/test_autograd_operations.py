"""Operations that the kernels do not know: registered from outside, taken by fast cells through autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pvnas.fast.accelerate import accelerate, shared_passes
from pvnas.space.layers import FOLDED, PLAIN, Rectified
from pvnas.space.operations import is_parameter_free, operations_of, register_operation, unregister_operation
from pvnas.space.supernet import Supernet, frozen, frozen_statistics

LAYOUT = "S-NC S-RC T-NC T-RC"


@pytest.fixture(autouse=True)
def two_more_operations():
    """A 1x5x5 average without parameters in all cells, and a dense 1x5x5 convolution in spatial ones."""

    @register_operation("avg_pool_1x5x5", has_parameters=False)
    def average(channels, stride, layers, *, affine):
        return layers.avg_pool((1, 5, 5), (1, stride, stride), (0, 2, 2), count_include_pad=False)

    @register_operation("conv_1x5x5", sets=("spatial",))
    def convolution(channels, stride, layers, *, affine):
        conv = layers.conv(channels, channels, (1, 5, 5), stride=(1, stride, stride), padding=(0, 2, 2), bias=False)
        return Rectified(nn.ReLU(), conv, layers.norm(channels, affine=affine))

    yield
    unregister_operation("avg_pool_1x5x5")
    unregister_operation("conv_1x5x5")


def test_they_have_columns_behind_the_papers():
    assert operations_of("S-NC")[6:] == ("avg_pool_1x5x5", "conv_1x5x5")
    assert operations_of("T-RC")[8:] == ("avg_pool_1x5x5",)
    assert is_parameter_free("avg_pool_1x5x5")
    with pytest.raises(ValueError, match="taken"):
        register_operation("conv_1x5x5")


def network_of(plain, **options):
    torch.manual_seed(3)
    layers = PLAIN if plain else FOLDED
    network = Supernet(5, width=4, layout=LAYOUT, stem="stride2", initial_std=0.7, layers=layers).double()
    return network if plain else accelerate(network, **options)


def half_steps(network, sharing):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 2, 44, 45, generator=draw, dtype=torch.float64)
    labels = torch.tensor([1, 4])
    alphas, weights = (list(part().values()) for part in (network.architecture_parameters, network.weight_parameters))

    def passes():
        with frozen_statistics(network), frozen(weights):
            of_alphas = torch.autograd.grad(F.cross_entropy(network(x), labels), alphas)
        with torch.no_grad():
            for alpha in alphas:
                alpha.add_(torch.randn(alpha.shape, generator=draw, dtype=torch.float64))
        with frozen(alphas):
            return [*of_alphas, *torch.autograd.grad(F.cross_entropy(network(x), labels), weights)]

    if not sharing:
        return passes()
    with shared_passes(network):
        return passes()


@pytest.mark.parametrize("sharing, checkpointing", [(False, False), (True, False), (False, True)])
@pytest.mark.usefixtures("each_set")
def test_half_steps_equal_the_cells_of_the_paper(sharing, checkpointing):
    plain, fast = network_of(plain=True), network_of(plain=False, checkpointing=checkpointing)
    for found, expected in zip(half_steps(fast, sharing), half_steps(plain, sharing=False), strict=True):
        assert (found - expected).abs().max() <= 1e-9 * expected.abs().max() + 1e-12
    oracle, buffers = dict(plain.named_buffers()), dict(fast.named_buffers())
    shared = [name for name in buffers if name in oracle and "running" in name]
    assert any("conv_1x5x5" in name for name in shared)
    for name in shared:
        torch.testing.assert_close(buffers[name], oracle[name], rtol=1e-9, atol=1e-12)
    x = torch.randn(1, 3, 2, 44, 45, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(fast.eval()(x), plain.eval()(x), rtol=1e-9, atol=1e-10)


def test_in_half_precision_gradients_are_those_of_fp32_nearly():
    network = network_of(plain=False).float()
    x, labels = torch.randn(2, 3, 2, 44, 45), torch.tensor([0, 3])
    exact = torch.autograd.grad(F.cross_entropy(network(x), labels), list(network.alphas.values()))
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(x)
    rough = torch.autograd.grad(F.cross_entropy(scores.float(), labels), list(network.alphas.values()))
    for a, b in zip(exact, rough, strict=True):
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9
