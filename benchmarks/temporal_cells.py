"""What temporal cells are for: the demo's recipe as it is, and with every temporal cell replaced by a spatial one.

    python benchmarks/temporal_cells.py OUT_FOLDER [--seeds 0 1 2] [--layouts spatial_only] [any option of `pvnas run`]

Each pair of classes of the generated set is a motion and its reverse, so a network that looks at single frames and
averages over them is right on at most half of the videos. Writes OUT_FOLDER/temporal_cells.json: hardware, versions,
date, commands and results. Run again after an interruption: what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import describe_machine, now, pvnas

LAYOUTS = {
    "temporal": {},
    "spatial_only": {
        "search.layout": "S-NC S-RC S-NC S-RC",
        "train.layout": "S-NC*K S-RC S-NC*K S-RC S-NC*K S-RC S-NC*K",
    },
}


def main() -> int:
    """Run every layout with every seed on one generated set; 0, or a run's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the videos, the run directories and temporal_cells.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--videos", type=Path, help="the generated set, where it exists already")
    args, more = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    videos = args.videos or args.out / "videos"
    code = 0 if args.videos else pvnas(["data", "shapes", str(videos)])
    report: dict[str, Any] = {"machine": describe_machine(), "command": sys.argv, "date": now(), "runs": []}
    for seed in args.seeds:
        for name in args.layouts:
            fields = LAYOUTS[name]
            run_dir = args.out / f"{name}-{seed}"
            options = [f"--{field}={value}" for field, value in fields.items()]
            command = [
                "run",
                str(videos),
                "--preset",
                "demo",
                "--dir",
                str(run_dir),
                "--seed",
                str(seed),
                *options,
                *more,
            ]
            code = code or pvnas(command)
            if code:
                return code
            results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
            report["runs"].append({"layout": name, "seed": seed, "command": command, "results": results})
            report["top1"] = summary(report["runs"])
            (args.out / "temporal_cells.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["top1"], indent=1))
    return 0


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Top-1 by layout: mean, standard deviation and number of seeds."""
    table = {}
    for name in LAYOUTS:
        values = [run["results"]["top1"] for run in runs if run["layout"] == name]
        if values:
            deviation = round(statistics.stdev(values), 2) if len(values) > 1 else None
            table[name] = {"mean": round(statistics.mean(values), 2), "sd": deviation, "seeds": len(values)}
    return table


if __name__ == "__main__":
    sys.exit(main())
