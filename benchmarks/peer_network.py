"""Measures a network of ``pvnas.peers`` in a process of its own, for ``model_speed.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from derived_network import measure_network
from pvnas.bench.roofline import answer
from pvnas.peers import PEERS


def measure(
    variant: str,
    batch: int,
    device: str,
    precision: str,
    threads: int,
    training: bool,
    repeats: int,
    count: bool,
    clip: Sequence[int] = (),
) -> dict[str, Any]:
    """Measure one network at its published clip, or another, as ``derived_network.py`` measures ours."""
    torch.set_num_threads(threads)
    peer = PEERS[variant]
    torch.manual_seed(0)
    network = peer.build(peer.width, num_classes=400).to(device)
    network.train(training)
    size = (batch, 3, *(clip or peer.clip))
    return measure_network(network, size, device, precision, training=training, repeats=repeats, count=count)


if __name__ == "__main__":
    answer(measure)
