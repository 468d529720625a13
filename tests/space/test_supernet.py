"""The supernet that is used against its plain oracle, and what alpha's gradient means."""

import pytest
import torch
import torch.nn.functional as F

from pvnas.runtime.tensors import frozen
from pvnas.space import nodes
from pvnas.space.genotype import EDGES
from pvnas.space.kernels import by_pytorch
from pvnas.space.supernet import Supernet, frozen_statistics


def pair(layout, width=6, **options):
    """The two implementations with the same parameters, in float64, alphas far from uniform."""
    torch.manual_seed(3)
    options = {"width": width, "layout": layout, "stem": "stride2", "initial_std": 0.7, **options}
    plain, used = Supernet(5, plain=True, **options).double(), Supernet(5, **options).double()
    parameters = dict(plain.named_parameters())
    assert set(parameters) == {name for name, _ in used.named_parameters()}
    with torch.no_grad():
        for name, parameter in used.named_parameters():
            parameter.copy_(parameters[name])
    return plain, used


@pytest.mark.parametrize(
    "layout, size, batch, width",
    [
        ("S-NC S-RC T-NC T-RC", 28, 2, 6),
        ("S-RC T-NC T-RC T-NC", 36, 1, 4),
        ("S-RC T-RC S-NC", (26, 34), 2, 5),
        ("T-RC S-RC", 21, 3, 8),
        ("S-NC S-RC T-NC T-RC", 27, 1, 7),
        ("S-NC T-RC", 13, 1, 33),
    ],
)
@pytest.mark.parametrize("together, remade", [(1, False), (1, True), (2, True), (4, False)])
def test_outputs_and_gradients_equal_the_oracle(layout, size, batch, width, together, remade, monkeypatch):
    monkeypatch.setattr(nodes.Source, "_edges_together", lambda source, own_sum: min(together, source.edges))
    monkeypatch.setattr(nodes.Source, "_remakes", lambda source, own_sum: remade)
    plain, used = pair(layout, width)
    h, w = size if isinstance(size, tuple) else (size, size)
    x, labels = torch.randn(batch, 3, 4, h, w, dtype=torch.float64), torch.arange(batch) % 5
    with by_pytorch():
        outputs = [network(x) for network in (plain, used)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-11)
        for scores in outputs:
            F.cross_entropy(scores, labels).backward()
    oracle = dict(plain.named_parameters())
    for name, parameter in used.named_parameters():
        scale = oracle[name].grad.abs().max()
        assert (parameter.grad - oracle[name].grad).abs().max() <= 1e-9 * scale + 1e-12, name


def gradients_of(network, parameters, others, x, labels):
    with frozen(others):
        return torch.autograd.grad(F.cross_entropy(network(x), labels), parameters)


@pytest.mark.parametrize("remade", [False, True])
@pytest.mark.usefixtures("each_way")
def test_each_half_step_has_its_part_of_the_whole_gradient(remade, monkeypatch):
    monkeypatch.setattr(nodes.Source, "_remakes", lambda source, own_sum: remade)
    _, network = pair("S-NC S-RC T-NC T-RC", width=5)
    x, labels = torch.randn(2, 3, 4, 22, 22, dtype=torch.float64), torch.tensor([1, 4])
    alphas, weights = (list(part().values()) for part in (network.architecture_parameters, network.weight_parameters))
    whole = torch.autograd.grad(F.cross_entropy(network(x), labels), [*alphas, *weights])
    parts = [
        *gradients_of(network, alphas, weights, x, labels),
        *gradients_of(network, weights, alphas, x, labels),
    ]
    for part, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-13)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.usefixtures("each_way")
def test_gradients_in_evaluation_mode_equal_the_oracle():
    plain, used = pair("S-RC T-RC")
    x, labels = torch.randn(2, 3, 3, 24, 24, dtype=torch.float64), torch.tensor([0, 3])
    for network in (plain, used):
        network(x)  # running statistics
        network.eval()
        F.cross_entropy(network(x), labels).backward()
    oracle = dict(plain.named_parameters())
    for name, parameter in used.named_parameters():
        torch.testing.assert_close(parameter.grad, oracle[name].grad, rtol=1e-8, atol=1e-11, msg=name)


@pytest.mark.usefixtures("each_way")
def test_a_second_backward_pass_says_what_to_do():
    _, network = pair("S-NC", width=4)
    loss = network(torch.randn(1, 3, 2, 8, 8, dtype=torch.float64)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the forward pass again"):
        loss.backward()


@pytest.mark.usefixtures("each_way")
def test_alpha_gradient_by_finite_differences():
    _, network = pair("S-NC T-RC", width=4)
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
    _, network = pair("S-NC", width=4)
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


@pytest.mark.usefixtures("each_way")
def test_frozen_statistics_normalise_by_the_batch_but_remember_nothing():
    network = Supernet(3, width=4, stem="stride2").train()
    x = torch.randn(2, 3, 2, 12, 12)
    before = {name: b.clone() for name, b in network.named_buffers()}
    with frozen_statistics(network):
        frozen = network(x)
    assert all(torch.equal(b, before[name]) for name, b in network.named_buffers())
    torch.testing.assert_close(network(x), frozen)
    assert any(not torch.equal(b, before[name]) for name, b in network.named_buffers())


@pytest.mark.usefixtures("each_way")
def test_running_statistics_are_those_of_the_oracle():
    plain, used = pair("S-NC S-RC T-NC T-RC")
    x = torch.randn(2, 3, 4, 28, 28, dtype=torch.float64)
    for _ in range(2):
        plain(x), used(x)
    oracle, found = dict(plain.named_buffers()), dict(used.named_buffers())
    own = [name for name in found if name in oracle and "running" in name]
    assert len(own) > 200
    for name in own:
        torch.testing.assert_close(found[name], oracle[name], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(used.eval()(x), plain.eval()(x), rtol=1e-9, atol=1e-11)


def test_bfloat16_autocast_is_near_fp32():
    torch.manual_seed(0)
    network = Supernet(4, width=8, stem="stride2").train()
    x = torch.randn(2, 3, 2, 16, 16)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x)
    assert (rough.float() - exact).abs().max() < 0.25 * exact.abs().max() + 0.05


def test_bfloat16_gradients_point_where_fp32_ones_do():
    torch.manual_seed(0)
    network = Supernet(4, width=8, stem="stride2", initial_std=0.5).train()
    x, labels = torch.randn(4, 3, 2, 24, 24), torch.arange(4)
    parameters = dict(network.named_parameters())
    exact = torch.autograd.grad(F.cross_entropy(network(x), labels), list(parameters.values()))
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(x)
    rough = torch.autograd.grad(F.cross_entropy(scores.float(), labels), list(parameters.values()))
    for name, b in zip(parameters, rough, strict=True):
        assert b.dtype == torch.float32, name
        assert b.isfinite().all(), name
    flat = [torch.cat([g.flatten() for g in gradients]) for gradients in (exact, rough)]
    assert F.cosine_similarity(*flat, dim=0) > 0.95
    for name, a, b in zip(parameters, exact, rough, strict=True):
        if name.startswith("alphas."):
            assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9, name
