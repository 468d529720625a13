"""Cells by our own kernels give the scores of the networks that were trained."""

import pickle
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from test_inference import trained, with_every_operation

from pvnas.fast.inference import folded, for_inference
from pvnas.fast.kernels.choice import by_pytorch
from pvnas.fast.kernels.cpp_library import compiler, supported, watched
from pvnas.fast.prediction_cell import PredictionCell

pytestmark = pytest.mark.skipif(compiler() is None or not supported(), reason="needs Linux and a C++ compiler")


def ran(network, x):
    """What a network returns, and how many kernels of our own it ran."""
    calls = []
    with watched(calls.append):
        return network(x), len(calls)


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize(
    "width, stem, size, batch",
    [(6, "stride2", (21, 26), 1), (10, "stride4", (40, 41), 2), (5, "stride4-time2", (40, 41), 2)],
)
def test_scores_are_those_of_evaluation_mode(first, width, stem, size, batch):
    network = trained(with_every_operation(first), width=width, stem=stem, head="plain")
    x = torch.randn(batch, 3, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, fast = network(x), for_inference(network)
        for _ in range(2):  # nothing it works in place on is lost
            found, kernels = ran(fast, x)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
            assert kernels > 8 * len(network.cells)
        features = fast.forward_features(x)
    torch.testing.assert_close(features, network.forward_features(x), rtol=1e-9, atol=1e-10)


def test_the_same_bits_on_any_number_of_threads():
    network = for_inference(trained(with_every_operation(2)).float())
    x, threads = torch.randn(2, 3, 4, 40, 40), torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            with torch.inference_mode():
                y = network.stem(x)
                found.append(network.cells[0](y, y))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@torch.no_grad()
def test_a_changed_a_converted_and_a_copied_network_read_their_own_weights():
    network = for_inference(trained(with_every_operation(1)))
    x = torch.randn(1, 3, 3, 24, 24, dtype=torch.float64)
    before = network(x)

    def assert_reads_its_own(changed, clips, tolerance):
        with by_pytorch():
            expected = changed(clips)
        torch.testing.assert_close(changed(clips), expected, rtol=tolerance, atol=tolerance)
        return expected

    twin = deepcopy(network)
    for parameter in twin.cells.parameters():
        parameter.mul_(0.9)
    assert not torch.allclose(assert_reads_its_own(twin, x, 1e-9), before)
    assert_reads_its_own(pickle.loads(pickle.dumps(twin)), x, 1e-9)
    assert_reads_its_own(twin.float(), x.float(), 1e-3)
    assert torch.equal(network(x), before)


@pytest.mark.parametrize("why", ["gradients", "autocast", "left out", "another type", "export"])
def test_where_they_cannot_the_folded_cells_compute(why):
    network = trained(with_every_operation(0))
    x = torch.randn(1, 3, 3, 24, 24, dtype=torch.float64)
    if why == "another type":
        network, x = network.bfloat16(), x.bfloat16()
    elif why == "autocast":
        network, x = network.float(), x.float()
    fast, slow = for_inference(network), folded(network)
    assert isinstance(fast.cells[0], PredictionCell)
    if why == "gradients":
        x.requires_grad_()
        expected = torch.autograd.grad(slow(x).sum(), x)
        y, kernels = ran(fast, x)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), x), expected)
    elif why == "export":
        exported, kernels = ran(lambda clip: torch.export.export(fast, (clip,)), x)
        torch.testing.assert_close(exported.module()(x), slow(x))
    else:
        ways = {"autocast": torch.autocast("cpu", torch.bfloat16), "left out": by_pytorch()}
        with torch.no_grad(), ways.get(why, nullcontext()):
            y, kernels = ran(fast, x)
            torch.testing.assert_close(y, slow(x))
    assert kernels == 0
