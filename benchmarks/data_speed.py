"""Clips per second from files, packs and memory, beside PyAV, torchcodec and decord: `pvnas bench data` for the record.

    python benchmarks/data_speed.py OUT [--footage VIDEO] [--clips 48] [--workers 2]

Writes OUT/data_speed.json: generated videos, and (--footage) a real one encoded the same way. torchcodec and decord are
measured where they are installed; give them an environment of their own, they are no dependencies.
About three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import describe_machine, environment, now


def measure(arguments: list[str]) -> dict[str, Any]:
    """Run the command once and return what it prints."""
    command = [sys.executable, "-m", "pvnas", "bench", "data", "--json", *arguments]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--footage", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shared = ["--clips", str(args.clips), "--workers", str(args.workers)]
    record = {"date": now(), "machine": describe_machine(), "generated": measure(shared)}
    if args.footage:
        record["footage"] = measure([*shared, "--footage", str(args.footage)])
        record["footage"]["footage"] = args.footage.name  # a path of this machine tells nobody anything
    (args.out / "data_speed.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
