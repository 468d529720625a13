"""Shards: the mean over micro-batches with their own batch statistics and random streams, in a fixed order."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pvnas.runtime.random import key, seed_all
from pvnas.runtime.shards import TreeSum, shard_gradients


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(3, 4, 1, bias=False), nn.BatchNorm3d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 3)
    )


def data(n):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 2, 2, 2, generator=draw), torch.randint(3, (n,), generator=draw)


def loss_of(net):
    def loss(clips, labels):
        value = F.cross_entropy(net(clips), labels)
        return value, {"loss": value.detach() * len(labels), "clips": torch.tensor(float(len(labels)))}

    return loss


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_tree_sums_in_the_order_of_a_binary_tree(n):
    values = [torch.tensor([10.0 ** (k % 7)]) for k in range(n)]
    tree = TreeSum()
    for value in values:
        tree.add([value])

    def expected(low, high):
        if high - low == 1:
            return values[low]
        half = 1 << ((high - low - 1).bit_length() - 1)
        return expected(low, low + half) + expected(low + half, high)

    assert torch.equal(tree.total()[0], expected(0, n))


def test_gradients_are_the_mean_over_shards_and_statistics_belong_to_the_shard():
    net, (clips, labels) = network(), data(8)
    parameters = list(net.parameters())
    gradients, measures = shard_gradients(net, parameters, 4, clips, labels, loss_of(net), random_key=7)

    reference, expected, means = network(), [torch.zeros_like(p) for p in parameters], []
    start = {k: v.clone() for k, v in reference.state_dict().items()}
    for shard in range(4):
        reference.load_state_dict(start)
        with seed_all(key(7, shard)):
            loss = F.cross_entropy(reference(clips[2 * shard : 2 * shard + 2]), labels[2 * shard : 2 * shard + 2])
        for total, g in zip(expected, torch.autograd.grad(loss, list(reference.parameters())), strict=True):
            total += g / 4
        means.append(reference[1].running_mean.clone())
    for got, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(net[1].running_mean, torch.stack(means).mean(0))
    assert float(measures["clips"]) == 8


def test_shards_of_one_batch_are_not_one_large_batch():
    clips, labels = data(8)
    losses = []
    for shards in (1, 4):
        net = network()
        losses.append(
            float(shard_gradients(net, list(net.parameters()), shards, clips, labels, loss_of(net), 7)[1]["loss"])
        )
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_the_random_stream_leaves_no_trace():
    net, (clips, labels) = network(), data(4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    shard_gradients(net, list(net.parameters()), 2, clips, labels, loss_of(net), 7)
    assert torch.equal(torch.rand(3), expected)


class Strided(torch.autograd.Function):
    """As some kernels do, returns a gradient that lies in other memory than its parameter."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.t().contiguous().t()


@pytest.mark.parametrize("shards", [1, 2])
def test_gradients_lie_as_their_parameters(shards):
    weight = nn.Parameter(torch.randn(3, 4))

    def loss(clips, labels):
        return F.cross_entropy(clips @ Strided.apply(weight).t(), labels), {}

    (gradient,), _ = shard_gradients(
        nn.Module(), [weight], shards, torch.randn(4, 4), torch.arange(4) % 3, loss, random_key=0
    )
    assert gradient.stride() == weight.stride()
