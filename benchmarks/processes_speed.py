"""Clips per second of a training step on one process and on several, with sums in the tree's order, in any, and by DDP.

    python benchmarks/processes_speed.py OUT [--processes 1 2] [--threads 1] [--width 16] [--rounds 5] [--device cpu]

Every variant trains the same random genotype on the same clips that were made before, in `--rounds` turns after a first
that does not count; in each turn all variants come one after another. `strict` is what a run does, `fast` is
`--determinism fast`, `ddp` a plain loop with DistributedDataParallel around the same network, and `alone` one process
with as many threads as all others have together. Writes OUT/processes_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from common import command_line, describe_machine, now
from pvnas.config import RunConfig
from pvnas.data.clips.loader import Batch
from pvnas.data.clips.network_input import frames_read, network_input
from pvnas.fast.accelerate import accelerate_training
from pvnas.fast.flow import optical_flow
from pvnas.presets import laptop
from pvnas.runtime.device import choose_device, keep_freed_memory
from pvnas.runtime.distributed import joined_world
from pvnas.runtime.files import write_atomic
from pvnas.runtime.optimizers import weight_optimizer
from pvnas.space.genotype import random_genotype
from pvnas.training.stage import derived_network
from pvnas.training.step import loss_gradients

STEPS = 6
CLASSES = 21


def main() -> None:
    """Measure all variants in turn, each in processes of its own, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--clips", type=int, default=16, help="of a global batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measured(args.worker, args.width, args.clips, args.threads, args.device)), flush=True)
        return
    most = max(args.processes)
    variants = [("strict", n, args.threads) for n in args.processes]
    variants += [("fast", most, args.threads), ("ddp", most, args.threads), ("strict", 1, args.threads * most)]
    rates: dict[str, list[float]] = {}
    for turn in range(args.rounds + 1):
        for kind, processes, threads in variants:
            name = f"{kind}, {processes} of {threads} threads"
            rate = joined_rate(kind, processes, threads, args)
            if turn:
                rates.setdefault(name, []).append(rate)
    report: dict[str, Any] = {"machine": describe_machine(), "command": command_line(), "date": now(), "rates": rates}
    report["clips_per_s"] = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    args.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(args.folder / "processes_speed.json", json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["clips_per_s"], indent=1))


def joined_rate(kind: str, processes: int, threads: int, args: argparse.Namespace) -> float:
    """Start the processes of a variant, and return the clips per second of the slowest."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(args.folder), "--width", str(args.width), "--clips", str(args.clips), "--threads", str(threads)]
    command = [sys.executable, __file__, *words, "--device", args.device, "--worker", kind]
    place = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            command,
            env=os.environ | {k: str(v) for k, v in (place | {"RANK": rank, "LOCAL_RANK": rank}).items()},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    return min(float(json.loads(process.communicate()[0])) for process in started)


def measured(kind: str, width: int, clips: int, threads: int, device_name: str) -> float:
    """Return the clips per second of STEPS steps of this process and its like."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    config = laptop()
    config.train.width, config.determinism = width, "fast" if kind == "fast" else "strict"
    with joined_world(config) as world:
        device = choose_device(device_name, world.local_rank)
        config.train.batch.shards, config.train.batch.clips_per_shard = world.size, clips // world.size
        network = accelerate_training(derived_network(config, random_genotype(1), CLASSES)).to(device)
        draw = torch.Generator().manual_seed(world.rank)
        size = (clips // world.size, config.clip.colours, frames_read(config.clip), config.train.augment.crop)
        frames_NCTHW = torch.randint(0, 256, (*size, size[-1]), dtype=torch.uint8, generator=draw)
        labels_N = torch.randint(0, CLASSES, (size[0],), generator=draw)
        batch = Batch(frames_NCTHW, labels_N, ("",) * size[0]).to(device)
        step = ddp_step(network, batch, config) if kind == "ddp" and world.size > 1 else ours(network, batch, config)
        step(world)
        world.any(True)
        started = time.perf_counter()
        for _ in range(STEPS):
            step(world)
        world.any(True)
        return STEPS * clips / (time.perf_counter() - started)


def ours(network: torch.nn.Module, batch: Batch, config: RunConfig) -> Any:
    """Return the step of a run."""
    optimizer = weight_optimizer(dict(network.named_parameters()), config.train.weights, config.train.batch)

    def step(world: Any) -> None:
        gradients, _ = loss_gradients(
            network,
            optimizer.parameters,
            batch.clips_NCTHW,
            batch.labels_N,
            config.clip,
            shards=world.size,
            seed=0,
            world=world,
        )
        optimizer.step(gradients)

    return step


def ddp_step(network: torch.nn.Module, batch: Batch, config: RunConfig) -> Any:
    """Return a step as it is usually written: DistributedDataParallel, which reduces gradients as they come."""
    wrapped = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.01, momentum=0.9)

    def step(_: Any) -> None:
        optimizer.zero_grad()
        scores_NK = wrapped(network_input(batch.clips_NCTHW, config.clip, None, optical_flow))
        F.cross_entropy(scores_NK, batch.labels_N).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
