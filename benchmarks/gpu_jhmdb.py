"""The main job on JHMDB (real video, 21 classes) at 112 pixels on a GPU: one search, then one network per width.

    python benchmarks/gpu_jhmdb.py JHMDB_FOLDER OUT_FOLDER [--widths 32 64] [any option of `pvnas run` ...]

Runs from a checkout without installation (needs torch, numpy, av, safetensors, PyYAML, rich and matplotlib; GPU.md says
how to carry those that a machine lacks). Writes
OUT_FOLDER/gpu_jhmdb.json after each width: hardware, versions, date, command, settings and results. Run again with the
same arguments after an interruption: what is finished is kept. Later options win, so `--train.epochs 4` makes a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from common import describe_machine, now, pvnas

# Over the preset `laptop`: crops of 112 pixels. JHMDB's videos are 170 x 128 pixels.
FIELDS = {
    "search.width": "16",
    "search.augment.short_side_min": "112",
    "search.augment.short_side_max": "160",
    "search.augment.crop": "112",
    "train.augment.short_side_min": "112",
    "train.augment.short_side_max": "160",
    "train.augment.crop": "112",
    "test.temporal_views": "10",
    "test.short_side": "128",
    "test.crop": "112",
}


def main() -> int:
    """Search and train at the first width, then train the same genotype at the others; 0, or a run's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of JHMDB, with its split.csv")
    parser.add_argument("out", type=Path, help="folder for run directories and gpu_jhmdb.json")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64], help="channels of the first cells")
    args, more = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": describe_machine(), "command": sys.argv, "date": now(), "runs": []}
    first = args.out / f"width-{args.widths[0]}"
    for width in args.widths:
        run_dir = args.out / f"width-{width}"
        stage = ["run"] if run_dir == first else ["train", "--genotype", str(first / "genotype.json")]
        options = [f"--{name}={value}" for name, value in fields_for_machine().items()]
        command = [*stage, str(args.data), "--dir", str(run_dir), *options, f"--train.width={width}", *more]
        started = time.monotonic()
        code = pvnas(command)
        report["runs"].append(describe_run(run_dir, width, command, code, time.monotonic() - started))
        (args.out / "gpu_jhmdb.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if code:
            return code
    return 0


def fields_for_machine() -> dict[str, str]:
    """FIELDS, in bfloat16 where a GPU is there, and with processes that decode where cores are free for them."""
    import torch

    workers = max(0, min(12, (os.cpu_count() or 1) - 2))
    precision = "bf16" if torch.cuda.is_available() else "fp32"
    return FIELDS | {"precision": precision, "data.workers": str(workers)}


def describe_run(run_dir: Path, width: int, command: list[str], code: int, seconds: float) -> dict[str, Any]:
    """One row of the report: what was run, how it ended, and the run's results."""
    results = run_dir / "results.json"
    return {
        "width": width,
        "command": command,
        "exit_code": code,
        "seconds_of_this_call": round(seconds, 1),
        "date": now(),
        "results": json.loads(results.read_text(encoding="utf-8")) if code == 0 and results.exists() else None,
    }


if __name__ == "__main__":
    sys.exit(main())
