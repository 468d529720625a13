"""How long a network takes to answer, measured as it will be used: made ready for predictions, in a fresh process.

A process that has trained holds memory and threads that one which only predicts does not have.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from pvnas.config import NetworkConfig, RunConfig
from pvnas.errors import UserError
from pvnas.fast.inference import for_inference
from pvnas.runtime.device import choose_device, set_threads, usable_cores
from pvnas.runtime.signals import end_with_parent, ends_waits
from pvnas.search.latency import Timing
from pvnas.space.genotype import Genotype
from pvnas.space.network import PVNASNetwork
from pvnas.space.operations import BUILT_IN, registered_operations

WARM_UP = 3


@dataclass(frozen=True)
class Use:
    """How a network will be used: of what clips and classes, and where."""

    network: NetworkConfig
    clip: tuple[int, int, int]
    """Frames, height, width."""
    classes: int
    device: str
    threads: int
    batch: int
    """Clips at once."""

    @property
    def where(self) -> str:
        """The machine in words."""
        clips = "a clip" if self.batch == 1 else f"{self.batch} clips at once"
        threads = "one thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{clips} on the {'GPU' if self.device == 'cuda' else f'CPU, {threads}'}"


def clock_of(config: RunConfig, classes: int) -> ProcessClock:
    """Return what measures networks as a config's budget says they will be used. UserError where no such device is."""
    budget = config.budget
    device = choose_device(config.device if budget.latency_device == "run" else budget.latency_device).type
    threads = budget.latency_threads or config.threads or usable_cores()
    return ProcessClock(Use(config.network, config.view, classes, device, threads, budget.latency_batch))


@dataclass(frozen=True)
class ProcessClock:
    """Measures networks in a fresh process each time; those of operations of your own in this one."""

    use: Use

    @property
    def where(self) -> str:
        """The use in words."""
        return self.use.where

    def __call__(self, genotypes: Sequence[Genotype], runs: int) -> list[Timing]:
        """Measure the networks of genotypes, each so many times."""
        return _in_a_process(self.use, genotypes, runs)


def _in_a_process(use: Use, genotypes: Sequence[Genotype], runs: int) -> list[Timing]:
    if set(registered_operations()) - BUILT_IN:  # which another process does not know
        threads = torch.get_num_threads()
        try:
            return _measured(use, genotypes, runs)
        finally:
            torch.set_num_threads(threads)
    asked = json.dumps({"use": asdict(use), "genotypes": [each.to_json() for each in genotypes], "runs": runs})
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            with ends_waits():
                out, errors = process.communicate(asked)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        why = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise UserError(f"how long a network takes cannot be measured ({why[:200]}); leave budget.latency_ms away")
    return [Timing(*each) for each in json.loads(out)]


def _measured(use: Use, genotypes: Sequence[Genotype], runs: int) -> list[Timing]:
    """Measure each network in this process."""
    set_threads(use.threads)
    device = torch.device(use.device)
    timings = []
    for genotype in genotypes:
        network = PVNASNetwork(genotype, use.network, num_classes=use.classes).to(device)
        timings.append(time_network(for_inference(network), use.network.in_channels, use.clip, use.batch, runs))
    return timings


def time_network(
    network: nn.Module, channels: int, clip: tuple[int, int, int], batch: int = 1, runs: int = 30
) -> Timing:
    """Measure so many forward passes of a network in evaluation mode, on its device, in this process."""
    device = next(network.parameters()).device
    clips_NCTHW = torch.rand(batch, channels, *clip, device=device)
    times: list[float] = []
    network.eval()
    with torch.inference_mode():
        for _ in range(WARM_UP + runs):
            started = time.perf_counter()
            scores_NK = network(clips_NCTHW)
            scores_NK.cpu()  # waits for a GPU
            times.append(1000 * (time.perf_counter() - started))
    median, p95 = np.percentile(times[WARM_UP:], [50, 95])
    return Timing(round(float(median), 3), round(float(p95), 3), runs)


def main() -> None:
    """Measure what stdin asks for, and answer on stdout."""
    end_with_parent()
    asked = json.load(sys.stdin)
    use = asked["use"]
    use = Use(**{**use, "network": NetworkConfig(**use["network"]), "clip": tuple(use["clip"])})
    print(json.dumps(_measured(use, [Genotype.from_json(text) for text in asked["genotypes"]], asked["runs"])))


if __name__ == "__main__":
    main()
