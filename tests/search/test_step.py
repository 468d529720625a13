"""Algorithm 1 on a small supernet and random clips, in float64, against the same written by hand on the plain one.

Both as in the paper and with what a search on few videos may do otherwise.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from pvnas.config import AlphaOptimizerConfig, BatchConfig, ClipConfig, SearchConfig, WeightOptimizerConfig
from pvnas.data.clips.loader import Batch, Extras
from pvnas.data.clips.network_input import network_input
from pvnas.fast.accelerate import accelerate
from pvnas.runtime.optimizers import alpha_optimizer, weight_optimizer
from pvnas.runtime.random import generator
from pvnas.search.relaxation import drop_factors
from pvnas.search.step import StepBatches, SupernetGradient, search_step
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.supernet import Supernet

CLIPS = 4
BATCH = BatchConfig(shards=1, clips_per_shard=CLIPS)
WEIGHTS = WeightOptimizerConfig(lr=0.05, lr_clips=CLIPS, weight_decay=0.01, decay_on="kernels")
ALPHAS = AlphaOptimizerConfig(lr=0.1)


class WrittenOut(Supernet):
    """The plain supernet, its mixing weights written out."""

    temperature, factors = 1.0, None

    def forward(self, x):
        before = last = self.stem(x)
        for number, (category, cell) in enumerate(zip(self.categories, self.cells, strict=True)):
            share = (self.alphas[category] / self.temperature).exp()
            weights = share / share.sum(-1, keepdim=True)
            weights = weights if self.factors is None else weights * self.factors[number]
            before, last = last, cell(before, last, weights)
        return self.classifier(last.mean((2, 3, 4)))


def supernet(plain: bool) -> Supernet:
    torch.manual_seed(3)
    kind, layers = (WrittenOut, PLAIN) if plain else (Supernet, FOLDED)
    network = kind(5, width=4, layout="S-NC T-RC", stem="stride2", initial_std=0.7, layers=layers).double()
    network = network if plain else accelerate(network)
    network.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return network.train()


def batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    clips = torch.randint(256, (CLIPS, 3, 2, 16, 16), dtype=torch.uint8, generator=draw)
    return Batch(clips, torch.randint(5, (CLIPS,), generator=draw), ("",) * CLIPS)


def loss_of(network: Supernet, batch: Batch, parameters: dict | None = None) -> torch.Tensor:
    return F.cross_entropy(
        functional_call(network, parameters or {}, network_input(batch.clips_NCTHW, ClipConfig())), batch.labels_N
    )


def decay_of(w: torch.Tensor) -> float:
    return 0.01 if w.dim() > 1 else 0.0


class ByHand:
    """Adam (betas 0 and 0.999) on alpha, SGD with momentum on w."""

    def __init__(self, network: Supernet) -> None:
        self.network, self.steps = network, 0
        self.squares = [torch.zeros_like(a) for a in network.alphas.values()]
        self.velocity = [torch.zeros_like(w) for w in network.weight_parameters().values()]

    def alpha_gradients(self, batches: StepBatches, objective: str) -> tuple[torch.Tensor, ...]:
        network = deepcopy(self.network)  # whose running statistics may move
        alphas, weights = list(network.alphas.values()), network.weight_parameters()
        if objective != "bilevel-second":
            return torch.autograd.grad(loss_of(network, batches.alpha), alphas)
        steps = torch.autograd.grad(loss_of(network, batches.weight), list(weights.values()), create_graph=True)
        moved = {
            name: w - WEIGHTS.lr * (step + decay_of(w) * w + 0.9 * v)
            for (name, w), step, v in zip(weights.items(), steps, self.velocity, strict=True)
        }
        return torch.autograd.grad(loss_of(network, batches.alpha, moved), alphas)

    def step(self, batches: StepBatches, objective: str, half_steps: str, factors: list | None = None) -> None:
        """``factors``: on the cells' mixing weights in the weights' half-step, so in a joint one for alpha, too."""
        alphas = list(self.network.alphas.values())
        self.network.factors = factors if half_steps == "joint" else None
        alpha_gradients = self.alpha_gradients(batches, objective)
        if half_steps == "joint":
            weight_gradients = self.weight_gradients(batches)
        self.steps += 1
        with torch.no_grad():
            for a, square, g in zip(alphas, self.squares, alpha_gradients, strict=True):
                square.mul_(0.999).add_(0.001 * g**2)
                a.sub_(ALPHAS.lr * g / ((square / (1 - 0.999**self.steps)).sqrt() + 1e-8))
        if half_steps != "joint":
            self.network.factors = factors
            weight_gradients = self.weight_gradients(batches)
        self.move_weights(weight_gradients)

    def weight_gradients(self, batches: StepBatches) -> tuple[torch.Tensor, ...]:
        weights = self.network.weight_parameters().values()
        return torch.autograd.grad(loss_of(self.network, batches.weight), list(weights))

    def move_weights(self, gradients: tuple[torch.Tensor, ...]) -> None:
        weights = self.network.weight_parameters().values()
        with torch.no_grad():
            for w, v, g in zip(weights, self.velocity, gradients, strict=True):
                v.mul_(0.9).add_(g + decay_of(w) * w)
                w.sub_(WEIGHTS.lr * v)


def of_few_videos(alphas: AlphaOptimizerConfig) -> dict:
    """Those options of a search of two epochs that change a step."""
    alphas = replace(alphas, temperature=4.0, final_temperature=0.25)
    return {"epochs": 2, "drop_path": 0.4, "alphas": alphas}


TEMPERATURES = (4.0, 1.0)  # of them, after no epoch and after half of them


@pytest.mark.parametrize(
    "objective, half_steps, tolerance, few_videos",
    [
        ("one-level", "same", 1e-8, False),
        ("one-level", "next", 1e-8, False),
        ("one-level", "joint", 1e-8, False),
        ("bilevel-first", "same", 1e-8, False),
        ("bilevel-second", "same", 1e-5, False),  # a finite difference, of so small a step
        ("one-level", "same", 1e-8, True),
        ("one-level", "joint", 1e-8, True),
        ("bilevel-second", "same", 1e-5, True),
    ],
)
def test_a_step_is_algorithm_1(objective, half_steps, tolerance, few_videos, monkeypatch):
    monkeypatch.setattr("pvnas.search.step.FINITE_DIFFERENCE", 1e-6)
    network, expected = supernet(plain=False), supernet(plain=True)
    expected.load_state_dict(dict(network.named_parameters()), strict=False)  # the buffers' names differ
    by_hand = ByHand(expected)
    options = of_few_videos(ALPHAS) if few_videos else {}
    config = SearchConfig(objective=objective, half_steps=half_steps, batch=BATCH, **options)
    weights = weight_optimizer(network.weight_parameters(), WEIGHTS, BATCH)
    alphas = alpha_optimizer(network.architecture_parameters(), ALPHAS)
    for step in range(2):
        same = objective == "one-level" and half_steps != "next"
        batches = StepBatches(batch(2 * step), batch(2 * step + 1))
        batches = StepBatches(batches.weight, batches.weight) if same else batches
        before = {name: a.detach().clone() for name, a in network.alphas.items()}
        measures = search_step(network, weights, alphas, batches, config, ClipConfig(), epoch=step, seed=step)
        expected.temperature = TEMPERATURES[step] if few_videos else 1.0
        by_hand.step(batches, objective, half_steps, factors_of(step) if few_videos else None)
        for name, a in expected.alphas.items():
            assert (network.alphas[name] - before[name]).abs().min() > 1e-6
            torch.testing.assert_close(network.alphas[name], a, rtol=tolerance, atol=tolerance)
    assert_equal_states(network, expected, tolerance)
    assert float(measures["clips"]) == CLIPS
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def factors_of(seed: int) -> list[torch.Tensor]:
    draw = generator(seed, "drop-path")
    return [drop_factors(category, 0.4, draw) for category in ("S-NC", "T-RC")]


def assert_equal_states(network: Supernet, expected: Supernet, tolerance: float) -> None:
    found = network.state_dict()
    compared = {n: x for n, x in expected.state_dict().items() if n in found and x.is_floating_point()}
    assert {"stem.1.running_mean", "cells.1.input0.2.running_var", "classifier.weight"} <= set(compared)
    for name, tensor in compared.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "objective, half_steps",
    [
        ("one-level", "same"),
        ("one-level", "joint"),
        ("bilevel-second", "same"),
    ],
)
def test_before_its_start_epoch_alpha_keeps_its_bits_and_adam_has_no_state(objective, half_steps):
    network, expected = supernet(plain=False), supernet(plain=True)
    expected.load_state_dict(dict(network.named_parameters()), strict=False)
    by_hand = ByHand(expected)
    waiting = replace(ALPHAS, start_epoch=1.0, beta1=0.5)
    config = SearchConfig(objective=objective, half_steps=half_steps, batch=BATCH, epochs=2, alphas=waiting)
    weights = weight_optimizer(network.weight_parameters(), WEIGHTS, BATCH)
    alphas = alpha_optimizer(network.architecture_parameters(), waiting)
    before = {name: a.detach().clone() for name, a in network.alphas.items()}
    for step in range(2):
        batches = StepBatches(batch(step), batch(step))
        search_step(network, weights, alphas, batches, config, ClipConfig(), epoch=step / 2)
        by_hand.move_weights(by_hand.weight_gradients(batches))
    assert all(torch.equal(a, before[name]) for name, a in network.alphas.items())
    assert not alphas.tensors()
    assert_equal_states(network, expected, 1e-8)
    search_step(network, weights, alphas, StepBatches(batch(3), batch(3)), config, ClipConfig(), epoch=1.0)
    assert all((a - before[name]).abs().min() > 1e-5 for name, a in network.alphas.items())
    assert {float(tensor) for name, tensor in alphas.tensors().items() if name.endswith("/step")} == {1.0}


class Recorder:
    """What a GPU's graphs do, without one: only the tensors of a call are new in it."""

    def __init__(self) -> None:
        self.functions: dict = {}

    def call(self, name: object, function: object, tensors: tuple[torch.Tensor, ...]) -> object:
        return self.functions.setdefault(name, function)(*tensors)


def test_mixed_clips_have_both_losses_in_the_search_too_and_in_what_is_recorded() -> None:
    network, shares = supernet(plain=False), torch.tensor([0.0, 0.25, 0.5, 1.0])
    alphas = list(network.alphas.values())
    gradient = SupernetGradient(network, alphas, ClipConfig(), 1, "fp32", 0, Recorder())  # type: ignore[arg-type]
    for seed in range(2):
        plain = batch(seed)
        mixed = replace(plain, extras=Extras(plain.labels_N.flip(0), shares))
        losses = [
            F.cross_entropy(network(network_input(plain.clips_NCTHW, ClipConfig())), labels_N, reduction="none")
            for labels_N in (plain.labels_N, plain.labels_N.flip(0))
        ]
        expected = torch.autograd.grad(((1 - shares) * losses[0] + shares * losses[1]).mean(), alphas)
        found, measures = gradient(alphas, mixed, update_statistics=False)
        torch.testing.assert_close(found, list(expected))
        assert float(measures["clips"]) == CLIPS
