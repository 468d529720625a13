"""An optimiser that was saved, loaded and restored makes the same bits as one that went on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pvnas.config import BatchConfig, NetworkConfig, ScheduleConfig, WeightOptimizerConfig
from pvnas.errors import UserError
from pvnas.runtime.checkpoint import digest, load_checkpoint, save_checkpoint
from pvnas.runtime.optimizers import SGD, Adam, ScheduledOptimizer, weight_optimizer
from pvnas.runtime.random import generator
from pvnas.space.genotype import random_genotype
from pvnas.space.network import PVNASNetwork

MAKERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4),
    "nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "plain sgd": lambda p: SGD(p, lr=0.1),
    "adam of the paper": lambda p: Adam(p, lr=1e-3, betas=(0.0, 0.999)),
    "adam": lambda p: Adam(p, lr=1e-3, betas=(0.5, 0.999), weight_decay=1e-3, amsgrad=True),
    "adamw": lambda p: AdamW(p, lr=1e-3),
    "two groups": lambda p: SGD([{"params": p[:1], "weight_decay": 0.1}, {"params": p[1:]}], lr=0.1, momentum=0.9),
}
NAMES = ["conv.weight", "deep/bias", "scale"]


def parameters() -> list[nn.Parameter]:
    """Return parameters of several shapes, one of them in channels-last memory, the last without a gradient."""
    random = generator(1, "parameters")
    conv = torch.randn(4, 3, 3, 3, generator=random).to(memory_format=torch.channels_last)
    return [nn.Parameter(conv), nn.Parameter(torch.randn(5, generator=random)), nn.Parameter(torch.tensor(0.5))]


def scheduled(optimizer: Optimizer) -> ScheduledOptimizer:
    """Return the optimiser with names for its parameters."""
    return ScheduledOptimizer(optimizer, NAMES, ScheduleConfig())


def step(optimizer: Optimizer, weights: list[nn.Parameter], number: int) -> None:
    """Make a step with gradients that depend on its number, and another learning rate each time."""
    for index, weight in enumerate(weights[:2]):
        noise = torch.randn(weight.shape, generator=generator(2, number, index))
        weight.grad = noise.contiguous(memory_format=torch.preserve_format) + weight.detach() ** 2
    for group in optimizer.param_groups:
        group["lr"] *= 0.9
    optimizer.step()


def state_digest(optimizer: Optimizer, weights: list[nn.Parameter]) -> str:
    """Return the digest of weights and the optimiser's tensors."""
    tensors: dict[str, Tensor] = dict(zip(NAMES, weights, strict=True))
    return digest(tensors | {f"state/{k}": v for k, v in scheduled(optimizer).tensors().items()}, None)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_restored_optimizer_makes_the_same_bits(tmp_path: Path, kind: str, stop: int) -> None:
    weights = parameters()
    optimizer = MAKERS[kind](weights)
    for number in range(stop):
        step(optimizer, weights, number)
    tensors, settings = scheduled(optimizer).tensors(), scheduled(optimizer).settings()
    saved = tensors | {f"network:{n}": w for n, w in zip(NAMES, weights, strict=True)}
    save_checkpoint(tmp_path, "x", saved, settings)
    for number in range(stop, 6):
        step(optimizer, weights, number)

    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    others = parameters()
    restored = MAKERS[kind](others)
    with torch.no_grad():
        for name, weight in zip(NAMES, others, strict=True):
            weight.copy_(checkpoint.tensors.pop(f"network:{name}"))
    untouched = digest(checkpoint.tensors, None)
    scheduled(restored).restore(checkpoint.tensors, checkpoint.state)
    assert len(restored.state) == len(optimizer.state) * (stop > 0)
    for number in range(stop, 6):
        step(restored, others, number)
    assert state_digest(restored, others) == state_digest(optimizer, weights)
    assert digest(checkpoint.tensors, None) == untouched  # copies, not the checkpoint's own memory
    ours, theirs = (
        [{k: v for k, v in g.items() if k != "params"} for g in o.param_groups] for o in (optimizer, restored)
    )
    assert ours == theirs


def test_momentum_keeps_the_memory_format_of_its_weight() -> None:
    weights = parameters()
    optimizer = MAKERS["sgd"](weights)
    step(optimizer, weights, 0)
    tensors, settings = scheduled(optimizer).tensors(), scheduled(optimizer).settings()
    contiguous = {name: t.clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    others = parameters()
    restored = MAKERS["sgd"](others)
    scheduled(restored).restore(contiguous, settings)
    assert restored.state[others[0]]["momentum_buffer"].stride() == others[0].stride()


def test_looking_adds_nothing_to_the_optimizer() -> None:
    optimizer = MAKERS["adam"](parameters())
    assert scheduled(optimizer).tensors() == {}
    assert len(optimizer.state) == 0


def test_the_state_of_another_network_is_refused() -> None:
    weights = parameters()
    optimizer = MAKERS["sgd"](weights)
    step(optimizer, weights, 0)
    tensors, settings = scheduled(optimizer).tensors(), scheduled(optimizer).settings()
    for wrong in ({"other/momentum_buffer": torch.zeros(5)}, {"scale/momentum_buffer": torch.zeros(5)}):
        with pytest.raises(UserError, match="belongs to another network"):
            scheduled(optimizer).restore(tensors | wrong, settings)
    with pytest.raises(UserError, match="groups"):
        scheduled(optimizer).restore(tensors, {**settings, "groups": []})


@pytest.mark.parametrize("ours, torchs", [(SGD, torch.optim.SGD), (Adam, torch.optim.Adam)])
def test_optimisers_without_the_compiler_make_the_same_bits(ours: type[Optimizer], torchs: type[Optimizer]) -> None:
    options = {"momentum": 0.9} if ours is SGD else {"betas": (0.5, 0.9)}
    results = []
    for kind in (ours, torchs):
        weights = parameters()
        optimizer = kind(weights, lr=0.1, weight_decay=1e-3, **options)  # type: ignore[call-arg]
        for number in range(3):
            step(optimizer, weights, number)
        results.append(digest({name: w.detach() for name, w in zip(NAMES, weights, strict=True)}, None))
        assert all(weight.grad_fn is None for weight in weights)
    assert results[0] == results[1]


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from pvnas.runtime.optimizers import SGD, Adam\n"
        "for kind in (SGD, Adam):\n"
        "    p = torch.nn.Parameter(torch.ones(2)); o = kind([p], lr=0.1); p.grad = torch.ones(2)\n"
        "    o.step(); o.zero_grad(); o.load_state_dict(o.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("largest, scale", [(0.0, 1.0), (1.0, 0.1), (20.0, 1.0)])
def test_gradients_are_clipped_by_their_common_norm(largest: float, scale: float) -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))]
    optimizer = ScheduledOptimizer(SGD(weights, lr=1.0), ["a", "b"], ScheduleConfig(), clip_gradient=largest)
    optimizer.step([torch.tensor([6.0, 0.0]), torch.tensor(8.0)])  # of norm 10
    torch.testing.assert_close(weights[0].detach(), torch.tensor([-6.0 * scale, 0.0]))
    torch.testing.assert_close(weights[1].detach(), torch.tensor(-8.0 * scale))
    assert all(weight.grad is None for weight in weights)


def test_the_rate_follows_the_schedule() -> None:
    schedule = ScheduleConfig(kind="step", step_epochs=2, step_factor=0.5)
    optimizer = ScheduledOptimizer(SGD([nn.Parameter(torch.zeros(1))], lr=0.4), ["a"], schedule)
    rates = []
    for epoch in (0, 1.9, 2, 4.5):
        optimizer.set_epoch(epoch, 6)
        rates.append(optimizer.lr)
    assert rates == pytest.approx([0.4, 0.4, 0.2, 0.1])


def decaying(decay_on: str, clip_gradient: float = 0.0) -> WeightOptimizerConfig:
    """Return settings whose first step is plain: w - 0.5 (gradient + 0.1 w) where w decays."""
    return WeightOptimizerConfig(lr=0.5, lr_clips=4, weight_decay=0.1, decay_on=decay_on, clip_gradient=clip_gradient)  # type: ignore[arg-type]


def test_decay_on_kernels_leaves_biases_and_batch_norms_alone() -> None:
    network = PVNASNetwork(random_genotype(1), NetworkConfig(layout="S-NC T-RC", width=2), num_classes=3)
    parameters = dict(network.named_parameters())
    optimizer = weight_optimizer(parameters, decaying("kernels"), BatchConfig(clips_per_shard=4))
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.fill_(2.0)
    optimizer.step([torch.full_like(p, 1.0) for p in optimizer.parameters])
    decayed = {name for name, p in parameters.items() if torch.equal(p, torch.full_like(p, 2.0 - 0.5 * 1.2))}
    others = {name for name, p in parameters.items() if torch.equal(p, torch.full_like(p, 2.0 - 0.5 * 1.0))}
    layers = dict(network.named_modules())
    norms = {n for n in parameters if isinstance(layers[n.rpartition(".")[0]], nn.BatchNorm3d)}
    assert others == norms | {"classifier.bias"}
    assert decayed == set(parameters) - others
    assert {"classifier.weight", "stem.0.weight"} <= decayed
    assert {"stem.1.weight", "stem.1.bias"} <= others


def test_decay_on_all_is_one_group_and_two_are_clipped_and_scheduled_together() -> None:
    weights = {"kernel": nn.Parameter(torch.zeros(1, 2)), "bias": nn.Parameter(torch.zeros(2))}
    batch = BatchConfig(clips_per_shard=4)
    assert len(weight_optimizer(weights, decaying("all"), batch).settings()["groups"]) == 1
    # In the other order than the groups have: names and gradients go with their parameters.
    both = weight_optimizer(dict(reversed(weights.items())), decaying("kernels", clip_gradient=1.0), batch)
    both.set_epoch(20, 80)  # after the first drop of the steps
    assert [group["lr"] for group in both.settings()["groups"]] == pytest.approx([0.05, 0.05])
    assert [group["weight_decay"] for group in both.settings()["groups"]] == [0.1, 0.0]
    both.step([torch.tensor([[6.0, 0.0]]), torch.tensor([0.0, 8.0])])  # of norm 10
    torch.testing.assert_close(weights["kernel"].detach(), torch.tensor([[-0.03, 0.0]]))
    torch.testing.assert_close(weights["bias"].detach(), torch.tensor([0.0, -0.04]))
    torch.testing.assert_close(both.tensors()["bias/momentum_buffer"], torch.tensor([0.0, 0.8]))
    with pytest.raises(UserError, match="2 groups of parameters"):
        weight_optimizer(weights, decaying("all"), batch).restore(both.tensors(), both.settings())
