"""Accelerated supernets against the supernet as the paper writes it, and in half precision."""

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast.accelerate import accelerate
from pvnas.space.layers import PLAIN
from pvnas.space.supernet import Supernet, frozen


def pair(layout, width=6):
    """The two implementations with the same parameters, in float64, alphas far from uniform."""
    options = {"width": width, "layout": layout, "stem": "stride2", "initial_std": 0.7}
    torch.manual_seed(3)
    plain = Supernet(5, layers=PLAIN, **options).double()
    torch.manual_seed(3)
    used = accelerate(Supernet(5, **options)).double()
    parameters = dict(plain.named_parameters())
    assert set(parameters) == {name for name, _ in used.named_parameters()}
    assert all(torch.equal(parameters[name], parameter) for name, parameter in used.named_parameters())
    return plain, used


def gradients_of(network, parameters, others, x, labels):
    with frozen(others):
        return torch.autograd.grad(F.cross_entropy(network(x), labels), parameters)


@pytest.mark.usefixtures("each_set")
def test_each_half_step_has_its_part_of_the_whole_gradient():
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


@pytest.mark.usefixtures("each_set")
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


@pytest.mark.usefixtures("each_set")
def test_a_second_backward_pass_says_what_to_do():
    _, network = pair("S-NC", width=4)
    loss = network(torch.randn(1, 3, 2, 8, 8, dtype=torch.float64)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the forward pass again"):
        loss.backward()


@pytest.mark.usefixtures("each_set")
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
    network = accelerate(Supernet(4, width=8, stem="stride2")).train()
    x = torch.randn(2, 3, 2, 16, 16)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x)
    assert (rough.float() - exact).abs().max() < 0.25 * exact.abs().max() + 0.05


def test_bfloat16_gradients_point_where_fp32_ones_do():
    torch.manual_seed(0)
    network = accelerate(Supernet(4, width=8, stem="stride2", initial_std=0.5)).train()
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
