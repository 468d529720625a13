"""What `pvnas bench search` measures: one search step as the search makes it, beside the plain supernet's.

Each supernet runs in a process of its own, so that its peak of memory is its own; they take turns.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pvnas.bench.roofline import Machine, Work, count_bytes, count_macs, measure_machine, timed
from pvnas.config import BatchConfig, RunConfig
from pvnas.data.catalog import Catalog
from pvnas.data.loader import Batch
from pvnas.data.source import VideoSource
from pvnas.data.table import Video
from pvnas.data.transforms import normalise
from pvnas.errors import UserError
from pvnas.runtime.device import describe_machine
from pvnas.runtime.progress import Progress
from pvnas.runtime.scalars import ScalarLog
from pvnas.search.run import SearchStage, StepBatches
from pvnas.training.log import EpochLog

WARM_UP = 2
# In multiply-accumulates: forward twice, the gradient of the inputs twice, that of the weights once.
FORWARDS_OF_A_STEP = 5
SUPERNETS = ("fast", "plain")


@dataclass(frozen=True)
class Shape:
    """One setting of the benchmark."""

    width: int = 16
    batch: int = 4
    """Clips of a step, in one shard."""
    frames: int = 8
    height: int = 64
    side: int = 64
    """Width of a frame, in pixels."""
    classes: int = 20
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1


def bench_search(shape: Shape, *, steps: int, rounds: int, plain: bool = True) -> dict[str, Any]:
    """Return seconds, clips/s, peak memory, MACs, bytes and the share of the roofline of a search step.

    Raises UserError where a supernet does not get through, for want of memory most likely.
    """
    names = SUPERNETS if plain else SUPERNETS[:1]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            found[name].append(_in_a_process(name, shape, steps, count=number == 0))
    result: dict[str, Any] = {"shape": asdict(shape), "steps": steps, "rounds": rounds}
    result |= {name: _merged(runs, shape) for name, runs in found.items()}
    if plain:
        result["speedup"] = round(result["fast"]["clips_per_s"] / result["plain"]["clips_per_s"], 3)
        result["memory_share"] = round(result["fast"]["peak_bytes"] / result["plain"]["peak_bytes"], 3)
    return result | {"machine": describe_machine()}


def _in_a_process(name: str, shape: Shape, steps: int, count: bool) -> dict[str, Any]:
    """Measure one supernet in a process of its own."""
    arguments = json.dumps({"name": name, "shape": asdict(shape), "steps": steps, "count": count})
    command = [sys.executable, "-m", "pvnas.bench.search", arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"the {name} supernet does not get through ({why}); try another --clip, --batch or --width")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _merged(runs: list[dict[str, Any]], shape: Shape) -> dict[str, Any]:
    """Return the medians over the rounds, and what was counted in the first."""
    seconds = median(run["seconds_per_step"] for run in runs)
    work, machine = Work(**runs[0]["work"]), Machine(*runs[0]["machine"])
    least = machine.seconds_of(work)
    return {
        "seconds_per_step": round(seconds, 5),
        "clips_per_s": round(shape.batch / seconds, 3),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "gmacs_per_clip": round(work.macs / shape.batch / 1e9, 4),
        "bytes_per_clip": work.bytes // shape.batch,
        "roofline": {
            "gmacs_per_s": round(machine.macs_per_s / 1e9, 2),
            "gigabytes_per_s": round(machine.bytes_per_s / 1e9, 2),
            "least_seconds_per_step": round(least, 5),
            "share": round(least / seconds, 4),
        },
    }


def make_stage(shape: Shape, *, plain: bool) -> SearchStage:
    """Return the search's own stage, on videos that are never read."""
    config = RunConfig()
    config.precision, config.search.width = shape.precision, shape.width  # type: ignore[assignment]
    config.search.batch = BatchConfig(shards=1, clips_per_shard=shape.batch)
    classes = [f"class {n}" for n in range(shape.classes)]
    videos = [Video(f"{n}.mp4", n % shape.classes, "train") for n in range(shape.batch)]
    source = VideoSource(Catalog.of(Path("."), classes, videos), config.data, shape.height)
    log = EpochLog(Path("."), Progress(), ScalarLog(Path("."), False))
    return SearchStage(config, source, source, Path("."), torch.device(shape.device), log, plain=plain)


def make_batch(shape: Shape) -> StepBatches:
    """Return a batch of random clips, as the loader would give it."""
    draw = torch.Generator().manual_seed(0)
    size = (shape.batch, shape.frames, shape.height, shape.side, 3)
    clips_NCTHW = torch.randint(0, 256, size, dtype=torch.uint8, generator=draw).permute(0, 4, 1, 2, 3)
    batch = Batch(clips_NCTHW, torch.arange(shape.batch) % shape.classes, ("",) * shape.batch)
    return StepBatches(batch, batch)


def measure(name: str, shape: Shape, steps: int, count: bool) -> dict[str, Any]:
    """Measure one supernet in this process: median seconds of a step, peak memory, and its work if asked for."""
    torch.set_num_threads(shape.threads)
    device = torch.device(shape.device)
    stage, batch = make_stage(shape, plain=name == "plain"), make_batch(shape)

    def step() -> None:
        stage.step(0, 0, batch)

    for _ in range(WARM_UP):
        step()
    seconds = median(timed(step, device) for _ in range(steps))
    answer: dict[str, Any] = {"seconds_per_step": seconds, "peak_bytes": _peak_bytes(device)}
    if count:
        dtype = torch.bfloat16 if shape.precision == "bf16" else torch.float32
        machine = measure_machine(device, dtype)
        clips_NCTHW = normalise(batch.weight.clips_NCTHW.to(device))
        macs = FORWARDS_OF_A_STEP * count_macs(lambda: stage.network(clips_NCTHW))
        answer |= {"work": asdict(Work(macs, count_bytes(step)))}
        answer |= {"machine": (machine.macs_per_s, machine.bytes_per_s)}
    return answer


def _peak_bytes(device: torch.device) -> int:
    """Return the largest memory so far: the GPU's, or this whole process's, interpreter included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(measure(asked["name"], Shape(**asked["shape"]), asked["steps"], asked["count"])))
