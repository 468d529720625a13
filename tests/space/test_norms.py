"""BN of several edges side by side against PyTorch's own layers, one an edge."""

import pytest
import torch

from pvnas.space.layers import BatchNorm
from pvnas.space.norms import Moments, Norms, norm_backward, normalise


def norms_of(k, channels=6, dtype=torch.float64):
    return [BatchNorm(channels, affine=False).to(dtype) for _ in range(k)]


def clips(k, size, channels=6):
    torch.manual_seed(0)
    x = torch.randn(8, channels * k, *size, dtype=torch.float64) * 3 + 1
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("size", [(5, 4), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_norms_side_by_side_are_each_norm_alone_times_its_scale(k, size, training):
    x, alone, moments = clips(k, size), norms_of(k), Moments()
    norms = Norms(norms_of(k), moments)
    for norm in (*norms.layers, *alone):
        norm.running_mean.fill_(0.3)
        norm.train(training)
    scale_kC = torch.rand(k, dtype=torch.float64).repeat_interleave(6).requires_grad_()
    direction = torch.randn_like(x)
    parts = [norm(part.unsqueeze(2)).squeeze(2) for norm, part in zip(alone, x.chunk(k, 1), strict=True)]
    expected = scale_kC.view(-1, 1, 1) * torch.cat(parts, 1)
    with torch.no_grad():
        state = norms.state(x)
        gradients = norm_backward(direction, x, state, scale_kC, (True, True))
        torch.testing.assert_close(normalise(x, state), torch.cat(parts, 1), rtol=1e-9, atol=1e-12)
    for a, b in zip(gradients, torch.autograd.grad(expected, (x, scale_kC), direction), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    moments.move()
    for norm, single in zip(norms.layers, alone, strict=True):
        torch.testing.assert_close(norm.running_mean, single.running_mean)
        torch.testing.assert_close(norm.running_var, single.running_var)


def test_statistics_of_several_passes_move_together():
    moments = Moments()
    first, second = Norms(norms_of(2), moments), Norms(norms_of(1), moments)
    x, y = clips(2, (4, 4)).detach(), clips(1, (3, 3)).detach()
    for norms, values in ((first, x), (second, y)):
        norms.state(values)
    assert all(not norm.running_mean.any() for norm in (*first.layers, *second.layers))
    moments.move()
    for norms, values in ((first, x), (second, y)):
        for norm, part in zip(norms.layers, values.chunk(len(norms.layers), 1), strict=True):
            torch.testing.assert_close(norm.running_mean, 0.1 * part.mean((0, 2, 3)))
            torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * part.var((0, 2, 3)))
    moments.move()  # nothing is left to move
    torch.testing.assert_close(second.layers[0].running_mean, 0.1 * y.mean((0, 2, 3)))


def test_without_moments_nothing_is_remembered():
    norms = Norms(norms_of(1), None)
    torch.testing.assert_close(norms.state(clips(1, (2, 2)).detach()).mean, clips(1, (2, 2)).detach().mean((0, 2, 3)))
    assert not norms.layers[0].running_mean.any()


def test_statistics_of_bfloat16_are_fp32():
    x = clips(1, (6, 6)).detach()
    norms = Norms(norms_of(1, dtype=torch.float32), Moments())
    state = norms.state(x.bfloat16())
    assert state.mean.dtype == torch.float32
    torch.testing.assert_close(state.mean, x.bfloat16().float().mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
