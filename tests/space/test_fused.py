"""The way of a GPU, cells by Triton kernels, against the plain oracle: in Triton's interpreter where no GPU is."""

import os
from contextlib import nullcontext
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from pvnas.runtime.tensors import frozen
from pvnas.space import kernels, norms, shared_cell
from pvnas.space.supernet import Supernet, frozen_statistics, shared_passes

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"
WHERE = {"device": "cuda", "dtype": torch.float32} if GPU else {"dtype": torch.float64}
BOUND = 2e-3 if GPU else 1e-9  # of the largest number of a tensor; in fp32 maxima may choose another pixel


@pytest.fixture(autouse=True)
def by_kernels(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for module in (shared_cell, norms):
        monkeypatch.setattr(module, "usable", lambda x: True)


def network_of(layout, width, like=None, **options):
    torch.manual_seed(3)
    network = Supernet(5, width=width, layout=layout, stem="stride2", initial_std=0.7, **options).to(**WHERE)
    if like is not None:
        parameters = dict(like.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(parameters[name])
    return network


def half_steps(network, size, sharing=False):
    """Return alpha's gradient and w's, at other alphas."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 2, *size, generator=draw, dtype=torch.float64).to(**WHERE)
    labels = torch.tensor([1], device=x.device)
    alphas, weights = (list(part().values()) for part in (network.architecture_parameters, network.weight_parameters))
    with shared_passes(network) if sharing else nullcontext():
        with frozen_statistics(network), frozen(weights):
            of_alphas = torch.autograd.grad(F.cross_entropy(network(x), labels), alphas)
        with torch.no_grad():
            for alpha in alphas:
                alpha.add_(torch.randn(alpha.shape, generator=draw, dtype=torch.float64).to(**WHERE))
        with frozen(alphas):
            of_weights = torch.autograd.grad(F.cross_entropy(network(x), labels), weights)
    return [*of_alphas, *of_weights]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= BOUND * b.abs().max() + 1e-12


on_a_gpu = pytest.mark.skipif(not GPU, reason="needs a GPU: minutes in Triton's interpreter")


@pytest.mark.parametrize(
    "layout, size, width",
    [
        ("T-RC", (9, 10), 3),
        pytest.param("S-NC S-RC", (13, 10), 5, marks=on_a_gpu),
        pytest.param("T-RC T-NC", (10, 12), 3, marks=on_a_gpu),
        pytest.param("S-NC S-RC T-NC T-RC", (28, 28), 66, marks=on_a_gpu),
    ],
)
def test_half_steps_equal_the_oracle(layout, size, width):
    plain = network_of(layout, width, plain=True)
    own = network_of(layout, width, plain)
    assert_equal(half_steps(own, size), half_steps(plain, size))


@on_a_gpu
@pytest.mark.parametrize("checkpointed", [False, True])
def test_sharing_and_checkpointing_change_no_bit(checkpointed):
    apart = half_steps(network_of("S-NC T-RC", 3), (9, 8))
    shared = half_steps(network_of("S-NC T-RC", 3, checkpointed=checkpointed), (9, 8), sharing=True)
    for a, b in zip(shared, apart, strict=True):
        assert torch.equal(a, b)


@on_a_gpu
def test_running_statistics_move_as_the_oracles_and_normalise_in_evaluation():
    plain = network_of("S-NC T-RC", 3, plain=True)
    own = network_of("S-NC T-RC", 3, plain)
    x = torch.randn(2, 3, 1, 12, 12, dtype=torch.float64).to(**WHERE)
    for network in (plain, own):
        network(x)
    buffers = dict(own.named_buffers())
    shared = [name for name, b in plain.named_buffers() if name in buffers and b.is_floating_point()]
    assert shared
    assert_equal([buffers[name] for name in shared], [dict(plain.named_buffers())[name] for name in shared])
    found = []
    for network in (plain, own):
        network.eval()
        alphas = list(network.architecture_parameters().values())
        weights = [p for name, p in network.weight_parameters().items() if "stem" in name]
        found.append([network(x), *torch.autograd.grad(network(x).square().sum(), [*alphas, *weights])])
    assert_equal(found[1], found[0])


def test_a_triton_that_does_not_work_is_told_and_left_alone(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert not kernels._triton_works.__wrapped__()
    monkeypatch.setattr(kernels, "find_spec", lambda name: True)
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no C compiler\nfound")))
    with pytest.warns(RuntimeWarning, match=r"Triton does not work here \(no C compiler\): the search runs with"):
        assert not kernels._triton_works.__wrapped__()
    assert not kernels.usable(torch.ones(1))
