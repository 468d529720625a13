"""Forward, loss and backward: the mean over shards with their own batch statistics and random streams."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pvnas.config import ClipConfig
from pvnas.data.clips.loader import Extras
from pvnas.data.clips.network_input import network_input
from pvnas.runtime.random import key, seed_all
from pvnas.training.step import loss_and_sums, loss_gradients, scores_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(3, 4, 1, bias=False), nn.BatchNorm3d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 3)
    )


def data(n):
    draw = torch.Generator().manual_seed(1)
    clips = torch.randint(256, (n, 3, 2, 2, 2), dtype=torch.uint8, generator=draw)
    return clips, torch.randint(3, (n,), generator=draw)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_the_mean_over_shards_and_statistics_belong_to_the_shard(smoothing):
    net, (clips, labels) = network(), data(8)
    parameters = list(net.parameters())
    gradients, measures = loss_gradients(
        net, parameters, clips, labels, ClipConfig(), shards=4, seed=7, label_smoothing=smoothing
    )

    reference, expected, means, losses = network(), [torch.zeros_like(p) for p in parameters], [], []
    start = {k: v.clone() for k, v in reference.state_dict().items()}
    for shard in range(4):
        reference.load_state_dict(start)
        part = slice(2 * shard, 2 * shard + 2)
        with seed_all(key(7, shard)):
            scores = reference(network_input(clips[part], ClipConfig()))
        loss = F.cross_entropy(scores, labels[part], label_smoothing=smoothing)
        for total, g in zip(expected, torch.autograd.grad(loss, list(reference.parameters())), strict=True):
            total += g / 4
        losses.append(2 * loss.item())
        means.append(reference[1].running_mean.clone())
    for got, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(net[1].running_mean, torch.stack(means).mean(0))
    assert float(measures["clips"]) == 8
    assert float(measures["loss"]) == pytest.approx(sum(losses), rel=1e-6)
    assert measures["class_clips"].tolist() == labels.bincount(minlength=3).tolist()


def test_shards_of_one_batch_are_not_one_large_batch():
    clips, labels = data(8)
    losses = []
    for shards in (1, 4):
        net = network()
        _, measures = loss_gradients(net, list(net.parameters()), clips, labels, ClipConfig(), shards=shards, seed=7)
        losses.append(float(measures["loss"]))
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_the_random_stream_leaves_no_trace():
    net, (clips, labels) = network(), data(4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loss_gradients(net, list(net.parameters()), clips, labels, ClipConfig(), shards=2, seed=7)
    assert torch.equal(torch.rand(3), expected)


class Strided(torch.autograd.Function):
    """As some kernels do, returns a gradient that lies in other memory than its parameter."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.t().contiguous().t()


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 24))

    def forward(self, x):
        return x.flatten(1) @ Strided.apply(self.weight).t()


@pytest.mark.parametrize("shards", [1, 2])
def test_gradients_lie_as_their_parameters(shards):
    net, (clips, labels) = Product(), data(4)
    (gradient,), _ = loss_gradients(net, [net.weight], clips, labels, ClipConfig(), shards=shards)
    assert gradient.stride() == net.weight.stride()


def test_scores_are_float32_whatever_the_precision():
    net, (clips, _) = network().eval(), data(4)
    exact = scores_of(net, clips, "fp32", ClipConfig())
    rounded = scores_of(net, clips, "bf16", ClipConfig())
    assert exact.dtype == rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)


def test_flow_is_made_in_float32_whatever_the_precision():
    draw = torch.Generator().manual_seed(2)
    clips = torch.randint(256, (2, 1, 4, 20, 20), dtype=torch.uint8, generator=draw)
    clip, seen = ClipConfig(input="flow", frames=2), []
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 2 * 20 * 20, 3))
    net[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for precision in ("fp32", "bf16"):
        scores_of(net, clips, precision, clip)
    assert torch.equal(*seen)
    torch.testing.assert_close(seen[0], network_input(clips, clip), rtol=1e-3, atol=1e-4)


def test_weights_of_classes_weigh_the_gradient_and_no_measure():
    net, (clips, labels) = nn.Sequential(nn.Flatten(), nn.Linear(24, 3)), data(4)
    weights_K = torch.tensor([0.5, 2.0, 1.0])
    gradients, measures = loss_gradients(
        net, list(net.parameters()), clips, labels, ClipConfig(), shards=2, class_weights_K=weights_K
    )
    losses_N = F.cross_entropy(net(network_input(clips, ClipConfig())), labels, reduction="none")
    expected = torch.autograd.grad((losses_N * weights_K[labels]).mean(), list(net.parameters()))
    torch.testing.assert_close(gradients, list(expected))
    assert float(measures["loss"]) == pytest.approx(losses_N.sum().item(), rel=1e-6)
    ones = loss_gradients(net, list(net.parameters()), clips, labels, ClipConfig(), class_weights_K=torch.ones(3))[0]
    plain = loss_gradients(net, list(net.parameters()), clips, labels, ClipConfig())[0]
    assert all(torch.equal(a, b) for a, b in zip(ones, plain, strict=True))


def test_a_mixed_clip_has_both_losses_by_its_shares_and_is_as_right_as_what_is_said() -> None:
    scores = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    labels, others, shares = torch.tensor([0, 1]), torch.tensor([2, 1]), torch.tensor([0.25, 0.5])
    losses = -torch.log_softmax(scores, 1)
    expected = (0.75 * losses[0, 0] + 0.25 * losses[0, 2] + losses[1, 1]) / 2
    loss, sums = loss_and_sums(scores, labels, Extras(others, shares), 0.0, None)
    assert float(loss) == pytest.approx(float(expected))
    assert float(sums["loss"]) == pytest.approx(2 * float(expected))
    assert float(sums["correct"]) == pytest.approx(1.75)
    assert float(sums["clips"]) == 2
    assert sums["class_clips"].tolist() == pytest.approx([0.75, 1.0, 0.25])
    weighted, _ = loss_and_sums(scores, labels, Extras(others, shares), 0.0, torch.tensor([1.0, 0.0, 2.0]))
    assert float(weighted) == pytest.approx(float(0.75 * losses[0, 0] + 0.5 * losses[0, 2]) / 2)
    assert float(loss_and_sums(scores, labels, Extras(others, shares * 0), 0.0, None)[0]) == pytest.approx(
        float(loss_and_sums(scores, labels, Extras(), 0.0, None)[0])
    )


def test_each_shard_gets_its_own_extras() -> None:
    extras = Extras(torch.arange(4), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    first, second = extras.chunk(2)
    assert first.other_labels_N.tolist() == [0, 1]  # type: ignore[union-attr]
    assert second.other_shares_N.tolist() == pytest.approx([0.3, 0.4])  # type: ignore[union-attr]
    assert second.keeps_rgb_N is None


def test_a_clip_without_colours_is_seen_by_its_motion_alone() -> None:
    clip = ClipConfig(input="both", frames=2)
    clips = torch.randint(256, (2, 3, 4, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    plain, dropped = network_input(clips, clip), network_input(clips, clip, torch.tensor([1.0, 0.0]))
    assert torch.equal(dropped[0], plain[0])
    assert torch.equal(dropped[1, :3], plain[1, :3])
    assert not dropped[1, 3:].any()
