"""Random kills and random numbers of processes, for as long as you like: does a run still end in the same bits?

    python benchmarks/soak.py OUT [--minutes 20] [--seed 0]

A small search and training on generated videos is made once in a single process. Then, until the time is up, the same
run is begun again and again: on 1, 2 or 4 processes drawn anew at each start, of which one, or the command that has
started them, gets SIGKILL, SIGTERM, SIGINT or SIGUSR1 at a random time, until the run ends by itself. Each must end in
the digest of the first. Writes OUT/soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import command_line, describe_machine, now
from pvnas.data.shapes import write_shapes
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from pvnas.session import run_digest

OPTIONS = (
    *("--preset", "tiny", "--threads", "1", "--tensorboard", "false", "--checkpoint_minutes", "0.02"),
    *("--search.epochs", "6", "--train.epochs", "24", "--train.ema", "0.9", "--train.balance", "batches"),
    *("--clip.input", "motion", "--train.augment.brightness", "0.3", "--train.augment.rotate", "10"),
    *("--search.batch.shards", "4", "--search.batch.clips_per_shard", "2"),
    *("--train.batch.shards", "4", "--train.batch.clips_per_shard", "2"),
)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

CODES = (0, 69, 75, 130)
"""Of a run that is done, lost a process, was stopped, or was left by Ctrl-C before there was anything to save."""


def main() -> None:
    """Soak, and print how many faults and runs it were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder, draw, until = args.folder.absolute(), random.Random(args.seed), time.monotonic() + 60 * args.minutes
    videos = folder / "videos"
    write_shapes(videos, videos_per_class=6)
    report: dict[str, Any] = {"machine": describe_machine(), "command": command_line(), "date": now(), "runs": []}
    shutil.rmtree(folder / "alone", ignore_errors=True)
    if start(videos, folder / "alone", 1).wait() != 0:
        raise UserError("the run that nothing interrupts has failed")
    report["digest"] = run_digest(folder / "alone")
    while time.monotonic() < until:
        run_dir = folder / "soaked"
        shutil.rmtree(run_dir, ignore_errors=True)
        starts = soaked(videos, run_dir, draw)
        digest = run_digest(run_dir)
        report["runs"].append({"starts": starts, "same": digest == report["digest"]})
        write_atomic(folder / "soak.json", json.dumps(report, indent=1) + "\n")
        faults = sum("signal" in start for run in report["runs"] for start in run["starts"])
        print(f"{len(report['runs'])} runs, {faults} faults, the same bits: {digest == report['digest']}", flush=True)
        if digest != report["digest"]:
            raise SystemExit(f"{run_dir} ended in other bits")


def soaked(videos: Path, run_dir: Path, draw: random.Random) -> list[dict[str, Any]]:
    """Make one run, disturbed at random, and return how each start of it went."""
    starts: list[dict[str, Any]] = []
    while not starts or starts[-1]["code"] != 0:
        processes, number, seconds = draw.choice((1, 2, 4)), draw.choice(SIGNALS), draw.uniform(3.0, 15.0)
        process = start(videos, run_dir, processes)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        whom = "nobody"
        if process.poll() is None:
            whom = disturb(process, processes, number, draw)
            process.wait(300)
        fault = {"signal": number.name, "seconds": round(seconds, 1)} if whom != "nobody" else {}
        starts.append({"processes": processes, "to": whom, **fault, "code": process.returncode})
        if process.returncode not in (*CODES, *(-number for number in SIGNALS)):
            raise SystemExit(f"exit code {process.returncode} after {starts[-1]}")
    return starts


def start(videos: Path, run_dir: Path, processes: int) -> subprocess.Popen[bytes]:
    """Start the run, in so many processes."""
    command = [sys.executable, "-m", "pvnas", "run", str(videos), "--dir", str(run_dir), *OPTIONS]
    return subprocess.Popen([*command, "--processes", str(processes)], stdout=subprocess.DEVNULL)


def disturb(process: subprocess.Popen[bytes], processes: int, number: signal.Signals, draw: random.Random) -> str:
    """Send a signal to one of the processes of a run, and return to whom."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() if processes > 1 else []
    whom = draw.choice([process.pid, *map(int, children)])
    with suppress(ProcessLookupError):
        os.kill(whom, number)
    return "the command" if whom == process.pid else "one of its processes"


if __name__ == "__main__":
    main()
