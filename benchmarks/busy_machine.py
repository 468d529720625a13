"""What a busy machine costs: search, training and predictions beside other processes, by how waiting threads wait.

    python benchmarks/busy_machine.py OUT [--width 8] [--clips 16] [--clip 8 56 56] [--seconds 1] [--rounds 1]

A step of the search, a training step and a forward pass of predictions are timed on a quiet machine and beside one and
two busy processes: loops in pure Python, each in a session of its own, as another person's program would be. Each
setting of the threads (what the OpenMP runtime is told at its start, and how many threads) has a process of its own;
they take turns. Writes OUT/busy_machine.json and prints a table: clips/s, and in brackets the share of the quiet speed.
About six minutes on two cores. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from common import command_line, describe_machine, environment, in_one_line, now

# What the runtime is told: nothing, so many turns of spinning before a thread sleeps, or a policy of OpenMP's.
POLICIES = {
    "300000 (libgomp's own)": {"GOMP_SPINCOUNT": "300000"},
    "0": {"GOMP_SPINCOUNT": "0"},
    "100": {"GOMP_SPINCOUNT": "100"},
    "1000": {"GOMP_SPINCOUNT": "1000"},
    "10000": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "active": {"OMP_WAIT_POLICY": "active"},
    "default of pvnas": {},
}
WORKS = ("search", "training", "predictions")
BUSY_PROCESSES = (0, 1, 2)
CLASSES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=8, help="channels of the first cells")
    parser.add_argument("--clips", type=int, default=16, help="clips of a step")
    parser.add_argument("--clip", type=int, nargs=3, default=[8, 56, 56], help="frames, height and width")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--policies", nargs="*", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of a measurement; a step is never cut")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()

    # One thread waits for nobody: there the policy changes nothing, and one is enough.
    cases = [(policy, n) for n in args.threads for policy in (args.policies if n > 1 else ["default of pvnas"])]
    frames, height, side = args.clip
    shape = {"width": args.width, "batch": args.clips, "frames": frames, "height": height, "side": side}
    result: dict[str, Any] = {"date": now(), "command": command_line(), "machine": describe_machine(), "shape": shape}
    with ExitStack() as stack:
        workers = [stack.enter_context(measuring(shape | {"threads": n}, POLICIES[policy])) for policy, n in cases]
        seconds: dict[tuple[int, str, int], list[float]] = {}
        for _ in range(args.rounds):
            for busy in BUSY_PROCESSES:
                with busy_loops(busy):
                    for work in WORKS:
                        for number, ask in enumerate(workers):
                            seconds.setdefault((busy, work, number), []).extend(ask(work, args.seconds))
                            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    result["measurements"] = [
        {
            "work": work,
            "policy": cases[number][0],
            "threads": cases[number][1],
            "busy_processes": busy,
            "seconds": [round(s, 5) for s in times],
            "clips_per_s": round(args.clips / median(times), 3),
            "of_quiet": round(median(seconds[0, work, number]) / median(times), 3),
        }
        for (busy, work, number), times in seconds.items()
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "busy_machine.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result["measurements"])


@contextmanager
def measuring(shape: dict[str, int], policy: dict[str, str]) -> Iterator[Callable[[str, float], list[float]]]:
    """Yield a function that asks a process of its own for the seconds of each step of a work."""
    told = {name: value for name, value in environment().items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--measure", json.dumps(shape)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=told | policy, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(work: str, least_seconds: float) -> list[float]:
        process.send_signal(signal.SIGCONT)
        stdin.write(json.dumps([work, least_seconds]) + "\n")
        stdin.flush()
        answer: list[float] = json.loads(stdout.readline())
        process.send_signal(signal.SIGSTOP)  # or a thread that waits would spin on beside the next process
        return answer

    try:
        json.loads(stdout.readline())  # it is ready
        process.send_signal(signal.SIGSTOP)
        yield ask
    finally:
        process.kill()
        process.wait()


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep so many processes busy inside the block."""
    command = [sys.executable, "-c", "while True: pass"]
    loops: list[subprocess.Popen[bytes]] = []
    try:  # from the first on: whoever ends this early must leave none behind
        loops.extend(subprocess.Popen(command, start_new_session=True) for _ in range(number))
        time.sleep(0.5)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(shape: dict[str, int]) -> None:
    """Answer questions on stdin until it ends: what runs in a process of its own."""
    works = prepare(**shape)
    for step in works.values():  # compiles kernels, and takes memory
        step()
        step()
    print("[]", flush=True)
    for line in sys.stdin:
        work, least_seconds = json.loads(line)
        works[work]()  # what another process has pushed out of the caches
        times: list[float] = []
        while sum(times) < least_seconds:
            start = time.perf_counter()
            works[work]()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


def prepare(width: int, batch: int, frames: int, height: int, side: int, threads: int) -> dict[str, Callable[[], Any]]:
    """Return one step of each work."""
    import torch
    import torch.nn.functional as F

    import pvnas
    from pvnas.bench.search import Shape, make_batch, make_stage
    from pvnas.runtime.device import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    pvnas.adapt_spinning()
    searched = Shape(width=width, batch=batch, frames=frames, height=height, side=side, classes=CLASSES)
    stage, batches = make_stage(searched, plain=False), make_batch(searched)
    clips_NCTHW = torch.randn(batch, 3, frames, height, side)
    labels_N = torch.arange(batch) % CLASSES
    options: dict[str, Any] = {"genotype": pvnas.random_genotype(0), "num_classes": CLASSES, "width": width}
    trained = pvnas.create_model("pvnas_l", **options).train()
    predicting = pvnas.for_inference(pvnas.create_model("pvnas_l", **options))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9)

    def training_step() -> None:
        F.cross_entropy(trained(clips_NCTHW), labels_N).backward()
        optimizer.step()
        optimizer.zero_grad()

    def predict() -> None:
        with torch.no_grad():
            predicting(clips_NCTHW)

    return {"search": lambda: stage.step(0, 0, batches), "training": training_step, "predictions": predict}


def show(measurements: list[dict[str, Any]]) -> None:
    """Print clips/s by work and policy over the number of busy processes."""
    rows = {(m["work"], m["threads"], m["policy"]): {} for m in measurements}
    for m in measurements:
        cell = f"{m['clips_per_s']:.2f} ({m['of_quiet']:.2f})"
        rows[m["work"], m["threads"], m["policy"]][m["busy_processes"]] = cell
    print(f"{'':12}{'threads':>8}  {'policy':24}" + "".join(f"{n} busy".rjust(18) for n in BUSY_PROCESSES))
    for (work, threads, policy), cells in rows.items():
        print(f"{work:12}{threads:8}  {policy:24}" + "".join(cells[n].rjust(18) for n in BUSY_PROCESSES))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(json.loads(sys.argv[2]))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or its processes would be left behind
        in_one_line(main)
