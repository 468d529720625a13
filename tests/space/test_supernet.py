"""The supernet as the paper writes it, and what alpha's gradient means."""

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast.accelerate import accelerate
from pvnas.space.genotype import CATEGORIES, EDGES
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.layout import cell_specs
from pvnas.space.operations import operations_of
from pvnas.space.search_cell import MixedOperation, SearchCell
from pvnas.space.supernet import Supernet, frozen_statistics

OPTIONS = {"layout": "S-NC S-RC T-NC T-RC", "stem": "stride2", "initial_std": 0.7}


def network_of(layers, width=4, **options):
    torch.manual_seed(3)
    return Supernet(5, width=width, layers=layers, **{**OPTIONS, **options}).double()


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_mixed_operation_is_equation_2(category):
    torch.manual_seed(0)
    mixed, x = MixedOperation(category, 4, 1, PLAIN), torch.randn(2, 4, 3, 6, 5)
    weights = torch.softmax(torch.randn(len(operations_of(category))), 0)
    expected = torch.zeros_like(x)
    for weight, name in zip(weights, operations_of(category), strict=True):
        expected = expected + (weight * mixed[name](x) if name != "zero" else 0)
    torch.testing.assert_close(mixed(x, weights), expected)


def test_a_cell_is_equation_1():
    """By a table written out by hand: which of the 14 edges enter a node, from where."""
    torch.manual_seed(0)
    cell = SearchCell(cell_specs(("S-NC",), 3)[0], PLAIN)
    x0, x1, weights = torch.randn(1, 3, 2, 5, 6), torch.randn(1, 3, 2, 5, 6), torch.rand(14, 6)
    a, b = cell.input0(x0), cell.input1(x1)
    edge = lambda number, x: cell.edges[number](x, weights[number])  # noqa: E731
    c = edge(0, a) + edge(1, b)
    d = edge(2, a) + edge(3, b) + edge(4, c)
    e = edge(5, a) + edge(6, b) + edge(7, c) + edge(8, d)
    f = edge(9, a) + edge(10, b) + edge(11, c) + edge(12, d) + edge(13, e)
    torch.testing.assert_close(cell(x0, x1, weights), torch.cat([c, d, e, f], 1))


@pytest.mark.parametrize("size", [(28, 27), (21, 26)])
def test_folded_layers_give_the_numbers_of_three_dimensional_ones(size):
    plain, folded = network_of(PLAIN), network_of(FOLDED)
    x, labels = torch.randn(2, 3, 3, *size, dtype=torch.float64), torch.tensor([1, 4])
    scores = [network(x) for network in (plain, folded)]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-9, atol=1e-11)
    grads = [
        torch.autograd.grad(F.cross_entropy(y, labels), list(network.parameters()))
        for y, network in zip(scores, (plain, folded), strict=True)
    ]
    for a, b in zip(*grads, strict=True):
        assert (a - b).abs().max() <= 1e-9 * a.abs().max() + 1e-12


@pytest.mark.parametrize("build", [lambda network: network, accelerate], ids=["plain", "fast"])
def test_alpha_gradient_by_finite_differences(build):
    network = build(network_of(FOLDED, layout="S-NC T-RC"))
    x, labels = torch.randn(2, 3, 3, 12, 12, dtype=torch.float64), torch.tensor([1, 4])

    def loss():
        return F.cross_entropy(network(x), labels)

    gradients = torch.autograd.grad(loss(), list(network.alphas.values()))
    step = 1e-6
    draw = torch.Generator().manual_seed(0)
    for alpha, gradient in zip(network.alphas.values(), gradients, strict=True):
        direction = torch.randn(alpha.shape, generator=draw, dtype=torch.float64)
        with torch.no_grad():
            alpha.add_(step * direction)
            up = loss()
            alpha.sub_(2 * step * direction)
            down = loss()
            alpha.add_(step * direction)
        expected = (up - down) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(float(expected), rel=1e-6, abs=1e-9)


def test_zero_is_never_computed_yet_takes_its_share():
    network = network_of(FOLDED, layout="S-NC")
    x = torch.randn(1, 3, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        network.alphas["S-NC"][:, 1] = 50.0  # softmax: all of it on zero
        assert network.train()(x).std() < 1e-6 + network.classifier(torch.zeros(1, 16).double()).std()
    assert not any("zero" in name for name, _ in network.named_modules())


def test_parameters_are_parted_in_two():
    network = Supernet(3, width=4, stem="stride2")
    alphas, weights = network.architecture_parameters(), network.weight_parameters()
    ids = [{id(p) for p in part.values()} for part in (alphas, weights)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {id(p) for p in network.parameters()}
    assert {c: tuple(a.shape) for c, a in alphas.items()} == {
        "S-NC": (len(EDGES), 6),
        "S-RC": (len(EDGES), 6),
        "T-NC": (len(EDGES), 8),
        "T-RC": (len(EDGES), 8),
    }


def test_cells_of_one_category_share_their_alphas():
    network = Supernet(3, width=4, layout="S-NC S-NC T-NC", stem="stride2")
    assert sorted(network.alphas) == ["S-NC", "T-NC"]


@pytest.mark.parametrize("build", [lambda network: network, accelerate], ids=["plain", "fast"])
def test_frozen_statistics_normalise_by_the_batch_but_remember_nothing(build):
    network = build(Supernet(3, width=4, stem="stride2")).train()
    x = torch.randn(2, 3, 2, 12, 12)
    before = {name: b.clone() for name, b in network.named_buffers()}
    with frozen_statistics(network):
        frozen = network(x)
    assert all(torch.equal(b, before[name]) for name, b in network.named_buffers())
    torch.testing.assert_close(network(x), frozen)
    assert any(not torch.equal(b, before[name]) for name, b in network.named_buffers())
