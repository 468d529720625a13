"""Where the time of a whole run goes, of several checkouts in turn: the state before a change beside the state after.

    python benchmarks/end_to_end.py OUT DATA NAME=CHECKOUT[,option=value,...] ... [--rounds 1] [options of `pvnas run`]

Each NAME is run with the options that all share and its own, in a process of its own, in turn; nothing else should run.
The first round begins with one search step of each, which is not counted, so that kernels are compiled and files in the
page cache for all alike. Writes OUT/end_to_end.json: seconds by stage and of the whole, accuracy, versions.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import command_line, describe_machine, now

FIRST = ("--search.epochs=1", "--search.alphas.start_epoch=0", "--search.validate=false")


def main() -> None:
    """Run all in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("variants", nargs="+", metavar="NAME=CHECKOUT[,option=value]")
    parser.add_argument("--rounds", type=int, default=1)
    args, shared = parser.parse_known_args()
    variants = dict(variant.split("=", 1) for variant in args.variants)
    args.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": describe_machine(), "date": now(), "command": command_line(), "runs": []}
    for number in range(-1, args.rounds):
        for name, variant in variants.items():
            checkout, *own = variant.split(",")
            options = [*shared, *(f"--{option}" for option in own)]
            run_dir = args.out / name
            shutil.rmtree(run_dir, ignore_errors=True)
            if number < 0:
                run(checkout, "search", args.data, run_dir, [*options, *FIRST])
                continue
            seconds = run(checkout, "run", args.data, run_dir, options)
            results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
            found = {"name": name, "commit": commit_of(checkout), "options": options, "seconds": round(seconds, 1)}
            found |= {"by_stage": results["seconds"], "top1": results["top1"], "macs": results["macs_per_view"]}
            report["runs"].append(found)
            (args.out / "end_to_end.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            print(name, found["seconds"], found["by_stage"], found["top1"], flush=True)


def run(checkout: str, command: str, data: str, run_dir: Path, options: list[str]) -> float:
    """Run a command of a checkout and return the seconds that it took."""
    words = [sys.executable, "-m", "pvnas", command, data, "--dir", str(run_dir), *options]
    started = time.monotonic()
    subprocess.run(words, env=os.environ | {"PYTHONPATH": str(Path(checkout).resolve() / "src")}, check=True)
    return time.monotonic() - started


def commit_of(checkout: str) -> str:
    """The commit of a checkout."""
    command = ["git", "-C", checkout, "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
