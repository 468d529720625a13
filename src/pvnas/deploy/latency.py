"""How long a network takes to answer, measured as it will be used: made ready for predictions, in a fresh process.

A process that has trained holds memory and threads that one which only predicts does not have.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pvnas.config import ClipConfig, NetworkConfig, RunConfig
from pvnas.data.clips.network_input import frames_read
from pvnas.errors import UserError
from pvnas.fast.inference import for_inference
from pvnas.runtime.device import choose_device, set_threads, usable_cores
from pvnas.runtime.signals import end_with_parent, ends_waits
from pvnas.search.latency import Timing
from pvnas.space.genotype import Genotype
from pvnas.space.network import PVNASNetwork
from pvnas.space.operations import BUILT_IN, registered_operations
from pvnas.training.step import scores_of

WARM_UP = 3


@dataclass(frozen=True)
class Use:
    """How a network will be used: of what clips and classes, and where."""

    network: NetworkConfig
    clip: ClipConfig
    crop: tuple[int, int]
    """Height and width."""
    classes: int
    device: str
    threads: int
    batch: int
    """Clips at once."""
    precision: str = "fp32"

    @property
    def where(self) -> str:
        """The machine in words."""
        clips = "a clip" if self.batch == 1 else f"{self.batch} clips at once"
        threads = "one thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{clips} on the {'GPU' if self.device == 'cuda' else f'CPU, {threads}'}"


ALLOW_MORE = "allow more, or take a smaller --train.width or --test.crop"


@dataclass(frozen=True)
class ProcessClock:
    """Measures networks in a fresh process each time; those of operations of your own in this one."""

    use: Use
    most_ms: float = math.inf
    advice: str = ALLOW_MORE

    @property
    def where(self) -> str:
        """The use in words."""
        return self.use.where

    def __call__(self, genotypes: Sequence[Genotype], runs: int) -> list[Timing]:
        """Measure the networks of genotypes, each so many times. UserError where that cannot be done."""
        with ends_waits():
            if set(registered_operations()) - BUILT_IN:  # which another process does not know
                threads = torch.get_num_threads()
                try:
                    return _measured(self.use, genotypes, runs)
                finally:
                    torch.set_num_threads(threads)
            return _in_a_process(self.use, genotypes, runs)


def clock_of(config: RunConfig, classes: int, threads: int = 0, advice: str = ALLOW_MORE) -> ProcessClock:
    """Return what measures networks as a config's budget says they will be used.

    ``threads``: those of the run, where the config names none. Raises UserError where there is no such device.
    """
    budget, view = config.budget, config.view
    name = config.device if budget.latency_device == "run" else budget.latency_device
    threads = budget.latency_threads or config.threads or threads or usable_cores()
    use = Use(config.network, config.clip, view[1:], classes, choose_device(name).type, threads, budget.latency_batch)
    return ProcessClock(replace(use, precision=config.precision), budget.latency_ms or math.inf, advice)


def _in_a_process(use: Use, genotypes: Sequence[Genotype], runs: int) -> list[Timing]:
    asked = json.dumps({"use": asdict(use), "genotypes": [each.to_json() for each in genotypes], "runs": runs})
    pipe, words = subprocess.PIPE, [sys.executable, "-m", __name__]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace") as process:
        try:
            out, errors = process.communicate(asked)
        except BaseException:
            process.kill()
            raise
    try:
        return [Timing(*each) for each in json.loads(out.splitlines()[-1])]
    except (ValueError, TypeError, IndexError):
        why = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise UserError(f"how long a network takes cannot be measured: {why[:300]}") from None


def _measured(use: Use, genotypes: Sequence[Genotype], runs: int) -> list[Timing]:
    """Measure each network in this process, from the pixels of its clips on: their motion or flow is a part of it."""
    set_threads(use.threads)
    device, timings = torch.device(use.device), list[Timing]()
    shape = (use.batch, use.clip.colours, frames_read(use.clip), *use.crop)
    clips_NCTHW = torch.randint(256, shape, dtype=torch.uint8, device=device)
    for genotype in genotypes:
        network = PVNASNetwork(genotype, use.network, num_classes=use.classes).to(device)
        timings.append(time_network(for_inference(network.eval()), clips_NCTHW, use.clip, use.precision, runs))
    return timings


def time_network(
    network: nn.Module, clips_NCTHW: Tensor, clip: ClipConfig, precision: str = "fp32", runs: int = 30
) -> Timing:
    """Measure so many passes of uint8 clips through a network in evaluation mode, on its device, in this process."""
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(WARM_UP + runs):
            started = time.perf_counter()
            scores_NK = scores_of(network, clips_NCTHW, precision, clip)
            scores_NK.cpu()  # waits for a GPU
            times.append(1000 * (time.perf_counter() - started))
    median, p95 = np.percentile(times[WARM_UP:], [50, 95])
    return Timing(round(float(median), 3), round(float(p95), 3), runs)


def main() -> None:
    """Measure what stdin asks for, and answer on stdout."""
    end_with_parent()
    asked = json.load(sys.stdin)
    use = asked["use"]
    network, clip = NetworkConfig(**use["network"]), ClipConfig(**use["clip"])
    use = Use(**{**use, "network": network, "clip": clip, "crop": tuple(use["crop"])})
    print(json.dumps(_measured(use, [Genotype.from_json(text) for text in asked["genotypes"]], asked["runs"])))


if __name__ == "__main__":
    main()
