"""Several variants of one piece of work, each measured in processes of its own that take turns."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pvnas.bench.roofline import Machine, Work, measure_machine, timed
from pvnas.errors import UserError

WARM_UP = 2


def measure_variants(
    program: str | Path, variants: Sequence[str], settings: dict[str, Any], *, clips: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return what a program measures for each variant: the medians over the rounds.

    ``program``: a module, or a script's path, that ends in ``answer``. It is run with the settings as its argument, in
    a process of its own, so that the peak of memory is its own. Raises UserError where a variant does not get through.
    """
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for number in range(rounds):
        for variant in variants:
            runs[variant].append(_in_a_process(program, settings | {"variant": variant, "count": number == 0}))
    return {variant: _summary(of_variant, clips) for variant, of_variant in runs.items()}


def compare(fast: dict[str, Any], plain: dict[str, Any]) -> dict[str, float]:
    """Return how many times the clips/s, and what share of the memory."""
    return {
        "speedup": round(fast["clips_per_s"] / plain["clips_per_s"], 3),
        "memory_share": round(fast["peak_bytes"] / plain["peak_bytes"], 3),
    }


def measure_work(
    work: Callable[[], Any],
    count: Callable[[], Work] | None,
    device: torch.device,
    precision: str,
    *,
    repeats: int,
) -> dict[str, Any]:
    """Measure in this process: seconds, peak memory and, where there is a count, that and the machine's limits."""
    for _ in range(WARM_UP):
        work()
    seconds = median(timed(work, device) for _ in range(repeats))
    measured: dict[str, Any] = {"seconds": seconds, "peak_bytes": _peak_bytes(device)}
    if count is not None:
        machine = measure_machine(device, torch.bfloat16 if precision == "bf16" else torch.float32)
        measured |= {"work": asdict(count()), "machine": (machine.macs_per_s, machine.bytes_per_s)}
    return measured


def answer(measure: Callable[..., dict[str, Any]]) -> None:
    """Print as JSON what ``measure`` returns for the settings on the command line: the end of a measuring program."""
    print(json.dumps(measure(**json.loads(sys.argv[1]))))


def _in_a_process(program: str | Path, settings: dict[str, Any]) -> dict[str, Any]:
    what_to_run = [str(program)] if isinstance(program, Path) else ["-m", program]
    command = [sys.executable, *what_to_run, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        what = f"{settings['variant']} does not get through ({why})"
        raise UserError(f"{what}; try another --clip, --batch or --width")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _summary(runs: list[dict[str, Any]], clips: int) -> dict[str, Any]:
    """Return the medians over the rounds, and what was counted in the first."""
    seconds = median(run["seconds"] for run in runs)
    work, machine = Work(**runs[0]["work"]), Machine(*runs[0]["machine"])
    least = machine.seconds_of(work)
    return {
        "seconds": round(seconds, 5),
        "clips_per_s": round(clips / seconds, 3),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "gmacs_per_clip": round(work.macs / clips / 1e9, 4),
        "bytes_per_clip": work.bytes // clips,
        "roofline": {
            "gmacs_per_s": round(machine.macs_per_s / 1e9, 2),
            "gigabytes_per_s": round(machine.bytes_per_s / 1e9, 2),
            "least_seconds": round(least, 5),
            "share": round(least / seconds, 4),
        },
    }


def _peak_bytes(device: torch.device) -> int:
    """Return the largest memory so far: the GPU's, or this whole process's, interpreter included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
