"""What the two passes of a search step share must change no bit of either."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pvnas.fast.accelerate import accelerate, shared_passes
from pvnas.fast.kernels.choice import by_pytorch
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.supernet import Supernet, frozen, frozen_statistics


class Convolutions(TorchDispatchMode):
    """Counts convolutions."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def network_of(layout, width=5, plain=False, **options):
    torch.manual_seed(3)
    layers = PLAIN if plain else FOLDED
    network = Supernet(5, width=width, layout=layout, stem="stride2", initial_std=0.7, layers=layers).double()
    return network if plain else accelerate(network, **options)


def two_half_steps(network, sharing):
    """Return alpha's gradient, w's gradient at other alphas, the running statistics, and the convolutions made."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 21, 26, generator=draw, dtype=torch.float64)
    labels = torch.tensor([1, 4])
    alphas, weights = (list(part().values()) for part in (network.architecture_parameters, network.weight_parameters))
    with Convolutions() as made, shared_passes(network) if sharing else nullcontext():
        with frozen_statistics(network), frozen(weights):
            of_alphas = torch.autograd.grad(F.cross_entropy(network(x), labels), alphas)
        with torch.no_grad():
            for alpha in alphas:
                alpha.add_(torch.randn(alpha.shape, generator=draw, dtype=torch.float64))
        with frozen(alphas):
            of_weights = torch.autograd.grad(F.cross_entropy(network(x), labels), weights)
    return [*of_alphas, *of_weights, *network.buffers()], made.count


LAYOUTS = ["S-NC S-RC T-NC T-RC", "T-NC T-RC", "S-RC T-NC"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sharing_changes_no_bit_and_makes_fewer_convolutions(layout):
    with by_pytorch():  # the same by compiled kernels: test_search_cell
        apart, many = two_half_steps(network_of(layout), sharing=False)
        shared, fewer = two_half_steps(network_of(layout), sharing=True)
    assert fewer < many
    for a, b in zip(shared, apart, strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("each_set")
def test_shared_passes_equal_the_oracle():
    plain, _ = two_half_steps(network_of(LAYOUTS[0], plain=True), sharing=False)
    network = network_of(LAYOUTS[0])
    parameters = dict(network_of(LAYOUTS[0], plain=True).named_parameters())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(parameters[name])
    shared, _ = two_half_steps(network, sharing=True)
    count = len(list(network.parameters()))
    for a, b in zip(shared[:count], plain[:count], strict=True):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max() + 1e-12


@pytest.mark.usefixtures("each_set")
def test_nothing_is_left_behind_and_later_passes_are_their_own():
    network = network_of("S-NC T-RC")
    with shared_passes(network):
        with frozen(list(network.weight_parameters().values())):
            network(torch.randn(1, 3, 2, 12, 12, dtype=torch.float64)).sum().backward()
        assert [sorted(cell.step.inputs) for cell in network.cells] == [[0, 1], [0]]  # the stem's, in both cells
        with frozen(list(network.architecture_parameters().values())):
            network(torch.randn(1, 3, 2, 12, 12, dtype=torch.float64)).sum().backward()
        assert not any(cell.step.inputs or cell.step.edges for cell in network.cells)
    assert all(cell.step is None for cell in network.cells)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("each_set")
def test_checkpointing_cells_keep_nothing_and_give_the_same_bits(layout):
    kept, made = two_half_steps(network_of(layout), sharing=True)
    network = network_of(layout, checkpointing=True)
    again, more = two_half_steps(network, sharing=True)
    assert more > made
    for a, b in zip(again, kept, strict=True):
        assert torch.equal(a, b)
    assert [bool(kept_by_cells(network_of(layout, checkpointing=each))) for each in (False, True)] == [True, False]


def kept_by_cells(network):
    """Return what the cells' functions keep besides what autograd saves."""
    node, found = network(torch.randn(1, 3, 2, 12, 12, dtype=torch.float64)).grad_fn, []
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            found += getattr(node, "edges", [])
    return found


@pytest.mark.usefixtures("each_set")
def test_an_evaluation_shares_nothing():
    network = network_of("S-NC T-RC")
    with shared_passes(network), torch.no_grad():
        network(torch.randn(1, 3, 2, 12, 12, dtype=torch.float64))
        assert not any(cell.step.inputs or cell.step.edges for cell in network.cells)
