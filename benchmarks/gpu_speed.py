"""Everything about speed that waits for a GPU, in one run: search step, networks beside their peers, estimate.

    python benchmarks/gpu_speed.py OUT [--price X]
    python benchmarks/gpu_speed.py OUT --small        (the same on the CPU at sizes that mean nothing: does it run?)

The paper's search configuration (width 64, 32 clips of 8x112x112, 400 classes) in bf16 and in fp32 with TF32, fast and
plain; whether fast and plain agree there; PV-NAS-L beside R(2+1)D-18, SlowOnly-R50 and X3D-M; hours for the paper's
search and retrainings. Writes OUT/gpu_speed.json after every part, so that a run that is cut off has not been in vain.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from common import command_line, describe_machine, environment
from estimate import Plan, estimate
from pvnas.bench.search import Shape, bench_search, make_batch, make_stage
from pvnas.config import ClipConfig
from pvnas.data.clips.network_input import network_input
from pvnas.training.step import autocast

PAPER = Shape(width=64, batch=32, frames=8, height=112, side=112, classes=400, device="cuda", precision="bf16")
MOST = 60
"""Kernels that are listed."""
SMALL = Shape(width=4, batch=2, frames=2, height=48, side=48, classes=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="on the CPU, to see that it runs")
    parser.add_argument("--price", type=float, help="money for one GPU for an hour")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True

    shape = SMALL if args.small else PAPER
    result: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe_machine()}
    result["command"] = command_line()
    for name, part in parts(args, shape).items():
        print(name, file=sys.stderr, flush=True)
        try:
            result[name] = part()
        except Exception as error:  # the parts after it are worth having
            result[name] = {"failed": f"{type(error).__name__}: {error}"}
        (args.out / "gpu_speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parts(args: argparse.Namespace, shape: Shape) -> dict[str, Callable[[], Any]]:
    """Return what to measure, the most wanted first."""
    runs = {"steps": 1, "rounds": 1} if args.small else {"steps": 10, "rounds": 2}
    return {
        "agreement": lambda: agreement(shape),
        "search, bf16": lambda: bench_search(shape, **runs),
        "kernels of a step": lambda: kernels_of_a_step(shape),
        "search, fp32": lambda: bench_search(replace(shape, precision="fp32"), **runs),
        "search, twice the clips": lambda: bench_search(replace(shape, batch=2 * shape.batch), **runs, plain=False),
        "models": lambda: models(args, shape),
        "estimate": lambda: estimated(args, shape),
    }


def agreement(shape: Shape) -> dict[str, float]:
    """Return how far the scores of both supernets lie apart, of the largest score, at equal weights."""
    fast, plain = (make_stage(shape, plain=plain) for plain in (False, True))
    fast.network.load_state_dict(plain.network.state_dict(), strict=False)  # buffers of shared poolings have no other
    clips_NCTHW = network_input(make_batch(shape).weight.clips_NCTHW.to(shape.device), ClipConfig())
    with torch.no_grad():
        exact = plain.network(clips_NCTHW)
        same = fast.network(clips_NCTHW)
        with autocast(shape.precision, clips_NCTHW.device):
            rough = fast.network(clips_NCTHW).float()
    largest = exact.abs().max()
    return {
        "fp32": float((same - exact).abs().max() / largest),
        shape.precision + " of fast": float((rough - exact).abs().max() / largest),
    }


def kernels_of_a_step(shape: Shape) -> list[dict[str, Any]]:
    """Return the kernels of a recorded step by the time that all calls take, the longest first."""
    stage, batch = make_stage(shape, plain=False), make_batch(shape)
    for _ in range(3):  # as it is, recorded, replayed
        stage.step(0, 0, batch)
    on_gpu = shape.device == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        stage.step(0, 0, batch)
        if on_gpu:
            torch.cuda.synchronize()
    times: dict[str, list[float]] = defaultdict(list)
    for event in found.events() or []:
        times[event.name].append(event.self_device_time_total if on_gpu else event.self_cpu_time_total)
    rows = [{"kernel": name[:120], "ms": round(sum(us) / 1000, 3), "calls": len(us)} for name, us in times.items()]
    return sorted(rows, key=lambda row: -row["ms"])[:MOST]


def models(args: argparse.Namespace, shape: Shape) -> dict[str, Any]:
    """Run model_speed.py beside this script."""
    script, out = Path(__file__).with_name("model_speed.py"), args.out / "models"
    options = (
        ["--batches", "1", "--training-batch", "1", "--repeats", "1", "--rounds", "1", "--clip", "2", "96", "96"]
        if args.small
        else []
    )
    options += ["--device", shape.device, "--precision", shape.precision]
    if not args.small:
        options += ["--batches", "1", "8", "32", "--training-batch", "8", "--repeats", "10"]
    subprocess.run([sys.executable, str(script), str(out), *options], env=environment(), check=True)
    found: dict[str, Any] = json.loads((out / "model_speed.json").read_text(encoding="utf-8"))
    return found


def estimated(args: argparse.Namespace, shape: Shape) -> dict[str, Any]:
    """Return hours and money on this machine."""
    sizes = {"width": shape.width, "search_batch": shape.batch, "train_batch": 2 if args.small else 8}
    clips = {"search_clip": (2, 48, 48), "train_clip": (2, 96, 96)} if args.small else {}
    plan = Plan(device=shape.device, precision=shape.precision, workers=16, price=args.price, **sizes, **clips)
    return estimate(plan, repeats=1 if args.small else 10, reading_clips=16)


if __name__ == "__main__":
    main()
