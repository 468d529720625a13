"""Measures a derived network's forward pass or training step: the part of ``model_speed.py`` and ``estimate.py`` that
runs in a process of its own, as ``pvnas train``, ``pvnas test`` and ``pvnas predict`` run it or with PyTorch's own 3-D
layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pvnas.bench.roofline import Work, answer, count_bytes, count_macs, measure_work
from pvnas.config import NetworkConfig, StemKind
from pvnas.fast.accelerate import accelerate_training
from pvnas.fast.inference import folded, for_inference
from pvnas.fast.kernels.choice import by_pytorch
from pvnas.runtime.device import keep_freed_memory
from pvnas.runtime.optimizers import SGD
from pvnas.space.genotype import Genotype
from pvnas.space.layers import FOLDED, PLAIN
from pvnas.space.network import PVNASNetwork
from pvnas.training.step import autocast

FORWARDS_OF_A_STEP = 3  # in multiply-accumulates: forward, the gradient of the inputs, that of the weights


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A network, and the clips that go through it."""

    genotype: str
    """A genotype as JSON."""
    width: int = 64
    repeat: int = 1
    stem: StemKind = "stride4"
    classes: int = 400
    channels: int = 3
    """Of a clip."""
    batch: int = 1
    frames: int = 8
    height: int = 224
    side: int = 224
    """Width of a frame, in pixels."""
    training: bool = False
    """A training step in place of a forward pass."""
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1


def measure(variant: str, shape: dict[str, Any], repeats: int, count: bool) -> dict[str, Any]:
    """Measure one variant in this process: fast, plain, or what torch.compile makes of the fast one (compiled).

    A training step also as autograd makes it of the layers in which time is folded into the batch (folded).
    """
    setting = ModelShape(**shape)
    torch.set_num_threads(setting.threads)
    if variant != "plain":  # which is PyTorch as it comes
        keep_freed_memory()
    torch.manual_seed(0)
    derived = PVNASNetwork(
        Genotype.from_json(setting.genotype),
        NetworkConfig(width=setting.width, repeat=setting.repeat, stem=setting.stem, in_channels=setting.channels),
        num_classes=setting.classes,
        layers=PLAIN if variant == "plain" else FOLDED,
    ).to(setting.device)
    network: nn.Module = derived
    if setting.training and variant == "fast":
        network = accelerate_training(derived)
    elif not setting.training:
        forms = {"plain": nn.Module.eval, "fast": for_inference, "compiled": folded}
        network = forms[variant](derived)
    size = (setting.batch, setting.channels, setting.frames, setting.height, setting.side)
    return measure_network(
        network,
        size,
        setting.device,
        setting.precision,
        training=setting.training,
        repeats=repeats,
        count=count,
        compile_it=variant == "compiled",
    )


def measure_network(
    network: nn.Module,
    size: tuple[int, ...],
    device: str,
    precision: str,
    *,
    training: bool,
    repeats: int,
    count: bool = True,
    compile_it: bool = False,
) -> dict[str, Any]:
    """Measure the forward pass or the training step of any network on clips of this size (N, C, T, H, W).

    What torch.compile makes of it does the same work; its MACs and bytes are counted as those of the network itself.
    """
    where = torch.device(device)
    clips_NCTHW = torch.randn(size, device=where)
    forward = _forward(network, clips_NCTHW, precision)
    counted = _training_step(network, clips_NCTHW, precision) if training else forward
    timed = counted
    if compile_it:
        compiled = torch.compile(network, dynamic=False, options={"freezing": True})
        timed = _forward(compiled, clips_NCTHW, precision)

    def work_of_it() -> Work:
        with by_pytorch():  # PyTorch does not count the arithmetic of kernels of our own
            macs = (FORWARDS_OF_A_STEP if training else 1) * count_macs(forward)
        return Work(macs, count_bytes(counted))

    return measure_work(timed, work_of_it if count else None, where, precision, repeats=repeats)


def _forward(network: nn.Module, clips_NCTHW: torch.Tensor, precision: str) -> Callable[[], Any]:
    def forward() -> torch.Tensor:
        with torch.no_grad(), autocast(precision, clips_NCTHW.device):
            scores_NK: torch.Tensor = network(clips_NCTHW)
        return scores_NK

    return forward


def _training_step(network: nn.Module, clips_NCTHW: torch.Tensor, precision: str) -> Callable[[], Any]:
    network.train()
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    labels_N = torch.zeros(len(clips_NCTHW), dtype=torch.long, device=clips_NCTHW.device)

    def step() -> None:
        with autocast(precision, clips_NCTHW.device):
            scores_NK = network(clips_NCTHW)
        F.cross_entropy(scores_NK.float(), labels_N).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    answer(measure)
