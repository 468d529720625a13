"""The derived network: timm's interface, odd sizes, drop-path, plain layers against folded ones."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pvnas.config import NetworkConfig
from pvnas.errors import UserError
from pvnas.space.genotype import CATEGORIES, Genotype, operations_of, random_genotype
from pvnas.space.layers import (
    FOLDED,
    PLAIN,
    FactorizedReduction,
    FoldedConv,
    fold_time,
    to_channels_last,
    unfold_time,
)
from pvnas.space.layout import cell_specs, parse_layout
from pvnas.space.network import HEAD_LENGTH, DerivedCell, PVNASNetwork, drop_path
from pvnas.space.operations import build_operation, build_relaxed

SMALL = NetworkConfig(width=4, stem="stride2")


def small(**changes):
    return PVNASNetwork(random_genotype(1), replace(SMALL, **changes), num_classes=5)


def test_folding_copies_nothing_on_channels_last_memory():
    x = to_channels_last(torch.randn(2, 8, 4, 6, 5))
    folded = fold_time(x)
    assert folded.data_ptr() == x.data_ptr()
    assert folded.is_contiguous(memory_format=torch.channels_last)
    assert unfold_time(folded, 4).data_ptr() == x.data_ptr()
    assert torch.equal(unfold_time(folded, 4), x)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 1, 1), (1, 1, 1), (1, 7, 7)])
def test_folded_convolutions_stay_in_channels_last_memory(kernel):
    padding = tuple(k // 2 for k in kernel)
    x = to_channels_last(torch.randn(2, 8, 4, 6, 5))
    y = FoldedConv(8, 8, kernel, padding=padding, bias=False)(x)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("name", [n for n in operations_of("T-NC") if n != "zero"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 9), (8, 6), (1, 1)])
@pytest.mark.parametrize("build", [build_operation, build_relaxed])
def test_folded_operations_equal_plain_ones(build, name, stride, size):
    if name == "avg_pool_1x3x3" and size == (1, 1):
        size = (3, 3)  # PyTorch's 3-D average pooling refuses sizes below its kernel
    torch.manual_seed(0)
    plain = build(name, 6, stride, PLAIN).double()
    folded = build(name, 6, stride, FOLDED).double()
    folded.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 3, *size, dtype=torch.float64)
    inputs = [
        x.clone().requires_grad_(),
        to_channels_last(x).clone(memory_format=torch.preserve_format).requires_grad_(),
    ]
    outputs = [plain(inputs[0]), folded(inputs[1])]
    assert outputs[0].shape == (2, 6, 3, -(-size[0] // stride), -(-size[1] // stride))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-12)
    direction = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(y, x, direction)[0] for y, x in zip(outputs, inputs, strict=True)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("layers", [PLAIN, FOLDED])
@pytest.mark.parametrize("size", [7, 9])
@pytest.mark.parametrize("category", ["S-RC", "T-RC"])
def test_reduction_cells_take_odd_sizes(category, size, layers):
    spec = cell_specs(("S-RC", category), 4)[1]
    assert spec.reduced_before
    x0, x1 = torch.randn(2, 4, 3, 2 * size - 1, 2 * size - 1), torch.randn(2, 32, 3, size, size)
    everything = [("identity", "avg_pool_1x3x3"), ("max_pool_1x3x3", "sep_conv_1x3x3")]
    everything += [("dil_sep_conv_1x3x3", "identity"), (operations_of(category)[-1], operations_of(category)[-2])]
    cell = Genotype.from_cells({category: [[(0, a), (1, b)] for a, b in everything]}).cells[category]
    y = DerivedCell(cell, spec, layers)(x0, x1)
    half = (size + 1) // 2
    assert y.shape == (2, 4 * spec.channels, 3, half, half)


def test_factorized_reduction_sees_every_pixel():
    reduction = FactorizedReduction(2, 4, FOLDED, affine=False)
    x = torch.rand(1, 2, 1, 7, 7, requires_grad=True)
    reduction.norm = torch.nn.Identity()
    reduction(x).sum().backward()
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    seen = (x.grad != 0).all(1)[0, 0]
    assert torch.equal(seen, (rows % 2) == (columns % 2))


def test_drop_path_drops_samples_not_channels_where_n_equals_c():
    torch.manual_seed(0)
    x = torch.ones(64, 64, 2, 3, 3)
    y = drop_path(x, 0.25, training=True)
    per_sample = y.flatten(1)
    assert ((per_sample == 0).all(1) | (per_sample == 1 / 0.75).all(1)).all()
    assert 0 < int((per_sample == 0).all(1).sum()) < 64
    assert drop_path(x, 0.25, training=False) is x


def test_drop_path_leaves_identity_alone():
    nodes = [[(0, "identity"), (1, "identity")]] * 4
    genotype = Genotype.from_cells({"S-NC": nodes})
    network = PVNASNetwork(genotype, replace(SMALL, layout="S-NC"), num_classes=3, drop_path_rate=0.99)
    x = torch.randn(2, 3, 2, 8, 8)
    torch.testing.assert_close(network.train()(x), network.train()(x))


def test_interface():
    network = small().eval()
    x = torch.randn(2, 3, 4, 16, 16)
    features = network.forward_features(x)
    assert features.shape[:3] == (2, network.num_features, 4)
    torch.testing.assert_close(network.forward_head(features), network(x))
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    assert network.get_classifier().out_features == 5
    network.reset_classifier(7)
    assert network(x).shape == (2, 7)
    network.reset_classifier(0)
    assert network(x).shape == (2, network.num_features)
    last, maps = network.forward_intermediates(x)
    torch.testing.assert_close(last, features)
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert [16 // m.shape[3] for m in maps] == network.feature_info.reduction()
    network.reset_classifier(0, global_pool="")
    assert network(x).shape == features.shape
    for classes, pool in ((5, ""), (0, "max")):
        with pytest.raises(ValueError, match="global_pool"):
            network.reset_classifier(classes, pool)


def test_intermediates_are_those_that_are_asked_for():
    network, x = small().eval(), torch.randn(2, 3, 4, 16, 16)
    last, maps = network.forward_intermediates(x)
    n = len(maps)
    for indices, wanted in ((2, [n - 2, n - 1]), ([0, 2], [0, 2]), ([-1, 1], [n - 1, 1]), (n, list(range(n)))):
        found = network.forward_intermediates(x, indices, intermediates_only=True)
        for each, number in zip(found, wanted, strict=True):
            torch.testing.assert_close(each, maps[number])
    early, (first,) = network.forward_intermediates(x, [1], stop_early=True)
    torch.testing.assert_close(early, maps[1])
    torch.testing.assert_close(first, maps[1])
    torch.testing.assert_close(network.forward_intermediates(x, [1])[0], last)
    for wrong in ([n], [-n - 1], [], 0, n + 1):
        with pytest.raises(ValueError, match="indices"):
            network.forward_intermediates(x, wrong)
    with pytest.raises(ValueError, match="output_fmt"):
        network.forward_intermediates(x, output_fmt="NLC")
    assert network.feature_info.module_name([0, -1]) == ["cells.0", f"cells.{n - 1}"]
    assert network.feature_info.channels(1) == maps[1].shape[1]


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    network, x = small(), torch.randn(2, 3, 2, 16, 16)
    gradients = []
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_layouts():
    assert parse_layout("S-NC*K S-RC T-NC*3", 2) == ("S-NC", "S-NC", "S-RC", "T-NC", "T-NC", "T-NC")
    widths = [(p.channels, p.channels_before) for p in cell_specs(("S-NC", "S-RC", "T-NC"), 8)]
    assert widths == [(8, (8, 8)), (16, (8, 32)), (16, (32, 64))]
    for layout in ("", "S-NC*0", "S-XX", "S-NC*K*2", "s-nc", "S-NC*9999 S-NC"):
        with pytest.raises(UserError, match="layout"):
            parse_layout(layout)
    with pytest.raises(UserError, match="repeat"):
        parse_layout("S-NC", 0)
    with pytest.raises(UserError, match="width"):
        cell_specs(("S-NC",), 1)
    with pytest.raises(UserError, match="no cell T-NC"):
        PVNASNetwork(random_genotype(0, categories=CATEGORIES[:2]), SMALL)


def test_a_normalised_head_gives_the_classifier_features_of_one_length():
    x = 30 * torch.randn(3, small().num_features, 2, 4, 4) + 5
    normalised, plain = (small(head=head).eval().forward_head(x, pre_logits=True) for head in ("normalised", "plain"))
    torch.testing.assert_close(normalised.norm(dim=1), torch.full((3,), HEAD_LENGTH))
    torch.testing.assert_close(normalised.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain, x.mean((2, 3, 4)))


@pytest.mark.parametrize("size", [(64, 64), (69, 58)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_folded_network_equals_the_plain_one_in_every_gradient(size, seed):
    genotype = random_genotype(seed)
    x = torch.randn(2, 3, 4, *size, dtype=torch.float64)
    found = []
    for layers in (PLAIN, FOLDED):
        torch.manual_seed(5)
        network = PVNASNetwork(genotype, replace(SMALL, width=6), num_classes=3, layers=layers).double()
        scores = network(x)
        F.cross_entropy(scores, torch.tensor([0, 2])).backward()
        found.append(
            [scores, *(p.grad for p in network.parameters()), *(b for b in network.buffers() if b.is_floating_point())]
        )
    for plain, folded in zip(*found, strict=True):
        assert (folded - plain).abs().max() <= 1e-9 * plain.abs().max() + 1e-12


def test_a_folded_network_makes_each_relu_once():
    class Counted(TorchDispatchMode):
        relus = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.relus += func in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
            return func(*args, **(kwargs or {}))

    counts = []
    for layers in (PLAIN, FOLDED):
        network = PVNASNetwork(random_genotype(0), SMALL, num_classes=3, layers=layers)
        with Counted() as counted:
            network(torch.randn(1, 3, 2, 64, 64))
        counts.append(counted.relus)
    assert counts[1] < counts[0]
