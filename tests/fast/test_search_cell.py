"""Fast cells against the cells as the paper writes them: by PyTorch, by C++, and by Triton on a GPU."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast import search_cell
from pvnas.fast.accelerate import accelerate, shared_passes
from pvnas.fast.kernels import cpp_library
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.supernet import Supernet, frozen, frozen_statistics

GPU = torch.cuda.is_available()
NO_COMPILER = pytest.mark.skipif(cpp_library.compiler() is None, reason="needs a C++ compiler")
NO_GPU = pytest.mark.skipif(
    not GPU, reason="needs a GPU: minutes in Triton's interpreter, in which each kernel is tested alone"
)
CPU = pytest.param("c++", marks=NO_COMPILER)
EACH = [pytest.param("pytorch"), CPU, pytest.param("triton", marks=NO_GPU)]


@pytest.fixture
def kind(request, monkeypatch, kernel_set):
    """Which kernels cells compute by, whatever the device."""
    kernels = kernel_set(request.param)
    monkeypatch.setattr(search_cell, "kernels_for", lambda x: kernels)
    return request.param


def where(kind):
    if kind == "triton" and GPU:
        return {"device": "cuda", "dtype": torch.float32}
    return {"device": "cpu", "dtype": torch.float64}


def network_of(kind, layout, width, like=None, plain=False, **options):
    torch.manual_seed(3)
    layers = PLAIN if plain else FOLDED
    network = Supernet(5, width=width, layout=layout, stem="stride2-time2", initial_std=0.7, layers=layers)
    network = network.to(**where(kind)) if plain else accelerate(network, **options).to(**where(kind))
    if like is not None:
        parameters = dict(like.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(parameters[name])
    return network


def half_steps(network, size, batch=1, sharing=False):
    """Return alpha's gradient and w's, at other alphas."""
    draw, like = torch.Generator().manual_seed(0), network.classifier.weight
    x = torch.randn(batch, 3, 2, *size, generator=draw, dtype=torch.float64).to(like)
    labels = torch.ones(batch, dtype=torch.long, device=x.device)
    alphas, weights = (list(part().values()) for part in (network.architecture_parameters, network.weight_parameters))
    with shared_passes(network) if sharing else nullcontext():
        with frozen_statistics(network), frozen(weights):
            of_alphas = torch.autograd.grad(F.cross_entropy(network(x), labels), alphas)
        with torch.no_grad():
            for alpha in alphas:
                alpha.add_(torch.randn(alpha.shape, generator=draw, dtype=torch.float64).to(like))
        with frozen(alphas):
            of_weights = torch.autograd.grad(F.cross_entropy(network(x), labels), weights)
    return [*of_alphas, *of_weights]


def assert_equal(kind, found, expected):
    # of the largest number of a tensor; in fp32 maxima may choose another pixel
    bound = 2e-3 if where(kind)["dtype"] == torch.float32 else 1e-9
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= bound * b.abs().max() + 1e-12


@pytest.mark.parametrize(
    "kind, layout, size, batch, width",
    [
        pytest.param(kind.values[0], *case, marks=kind.marks)
        for kind in EACH
        for case in (
            ("S-NC S-RC", (13, 10), 1, 5),
            ("T-RC T-NC", (10, 12), 2, 3),
            ("S-NC S-RC T-NC T-RC", (28, 28), 2, 6),
            ("S-RC T-RC S-NC", (26, 34), 2, 8),
            ("T-RC S-RC", (21, 21), 1, 13),
            ("S-NC S-RC T-NC T-RC", (28, 28), 1, 66),
        )
    ],
    indirect=["kind"],
)
def test_half_steps_equal_the_oracle(kind, layout, size, batch, width):
    plain = network_of(kind, layout, width, plain=True)
    own = network_of(kind, layout, width, plain)
    assert_equal(kind, half_steps(own, size, batch), half_steps(plain, size, batch))


@pytest.mark.parametrize("kind", EACH, indirect=True)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_sharing_and_checkpointing_change_no_bit(kind, checkpointed):
    apart = half_steps(network_of(kind, "S-NC T-RC", 3), (9, 8))
    shared = half_steps(network_of(kind, "S-NC T-RC", 3, checkpointing=checkpointed), (9, 8), sharing=True)
    for a, b in zip(shared, apart, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [CPU], indirect=True)
def test_the_number_of_threads_changes_no_bit_of_a_cell(kind):
    cells = [network_of(kind, "S-NC", 8), network_of(kind, "S-NC", 8)]
    inputs = [torch.randn(2, 32, 4, 14, 14, dtype=torch.float64).to(memory_format=torch.channels_last_3d)] * 2
    found, before = [], torch.get_num_threads()
    for threads, network in zip((1, 2), cells, strict=True):
        torch.set_num_threads(threads)
        try:
            cell = network.cells[0]
            x = [x[:, : layer.in_channels] for x, layer in zip(inputs, first_convolutions(cell), strict=True)]
            y = cell(*x, torch.softmax(network.alphas["S-NC"], 1))
            found.append([y, *torch.autograd.grad(y.square().sum(), list(cell.parameters()))])
        finally:
            torch.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def first_convolutions(cell):
    return [part.convolutions[0] for part in cell.inputs]


@pytest.mark.parametrize("kind", EACH, indirect=True)
def test_running_statistics_move_as_the_oracles_and_normalise_in_evaluation(kind):
    plain = network_of(kind, "S-NC T-RC", 3, plain=True)
    own = network_of(kind, "S-NC T-RC", 3, plain)
    x = torch.randn(2, 3, 1, 12, 12, dtype=torch.float64).to(**where(kind))
    for network in (plain, own):
        network(x)
    buffers = dict(own.named_buffers())
    shared = [name for name, b in plain.named_buffers() if name in buffers and b.is_floating_point()]
    assert shared
    assert_equal(kind, [buffers[name] for name in shared], [dict(plain.named_buffers())[name] for name in shared])
    found = []
    for network in (plain, own):
        network.eval()
        alphas = list(network.architecture_parameters().values())
        weights = [p for name, p in network.weight_parameters().items() if "stem" in name]
        found.append([network(x), *torch.autograd.grad(network(x).square().sum(), [*alphas, *weights])])
    assert_equal(kind, found[1], found[0])
