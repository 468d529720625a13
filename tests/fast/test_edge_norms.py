"""BN of several edges side by side against PyTorch's own layers, one an edge."""

import pytest
import torch

from pvnas.fast.edge_norms import BatchStatistics, EdgeNorms, batch_norm_grad
from pvnas.fast.kernels import pytorch
from pvnas.space.layers import BatchNorm


def layers_of(k, channels=6, dtype=torch.float64):
    return [BatchNorm(channels, affine=False).to(dtype) for _ in range(k)]


def pictures(k, size, channels=6):
    torch.manual_seed(0)
    x = torch.randn(8, channels * k, *size, dtype=torch.float64) * 3 + 1
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("size", [(5, 4), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_norms_side_by_side_are_each_norm_alone(k, size, training):
    x, alone, gathered = pictures(k, size), layers_of(k), BatchStatistics()
    norms = EdgeNorms(layers_of(k), gathered)
    for norm in (*norms.layers, *alone):
        norm.running_mean.fill_(0.3)
        norm.train(training)
    direction = torch.randn_like(x)
    parts = [norm(part.unsqueeze(2)).squeeze(2) for norm, part in zip(alone, x.chunk(k, 1), strict=True)]
    with torch.no_grad():
        normed = norms.of(pytorch, x)
        grad, _ = batch_norm_grad(pytorch, direction, normed, of_batch=training)
        torch.testing.assert_close(pytorch.normalise(normed), torch.cat(parts, 1), rtol=1e-9, atol=1e-12)
    (expected,) = torch.autograd.grad(torch.cat(parts, 1), x, direction)
    torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
    gathered.move_running()
    for norm, single in zip(norms.layers, alone, strict=True):
        torch.testing.assert_close(norm.running_mean, single.running_mean)
        torch.testing.assert_close(norm.running_var, single.running_var)


def test_statistics_of_several_passes_move_together():
    gathered = BatchStatistics()
    first, second = EdgeNorms(layers_of(2), gathered), EdgeNorms(layers_of(1), gathered)
    x, y = pictures(2, (4, 4)).detach(), pictures(1, (3, 3)).detach()
    for norms, values in ((first, x), (second, y)):
        norms.of(pytorch, values)
    assert all(not norm.running_mean.any() for norm in (*first.layers, *second.layers))
    gathered.move_running()
    for norms, values in ((first, x), (second, y)):
        for norm, part in zip(norms.layers, values.chunk(len(norms.layers), 1), strict=True):
            torch.testing.assert_close(norm.running_mean, 0.1 * part.mean((0, 2, 3)))
            torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * part.var((0, 2, 3)))
    gathered.move_running()  # nothing is left to move
    torch.testing.assert_close(second.layers[0].running_mean, 0.1 * y.mean((0, 2, 3)))


def test_where_nothing_is_gathered_running_statistics_stay():
    norms, x = EdgeNorms(layers_of(1), None), pictures(1, (2, 2)).detach()
    torch.testing.assert_close(norms.of(pytorch, x).mean, x.mean((0, 2, 3)))
    assert not norms.layers[0].running_mean.any()


def test_statistics_of_bfloat16_are_fp32():
    x = pictures(1, (6, 6)).detach()
    normed = EdgeNorms(layers_of(1, dtype=torch.float32), BatchStatistics()).of(pytorch, x.bfloat16())
    assert normed.mean.dtype == torch.float32
    torch.testing.assert_close(normed.mean, x.bfloat16().float().mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
