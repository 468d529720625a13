"""Is a budget of milliseconds kept? Ten derivations, and each network measured again, by others than it was chosen by.

    python benchmarks/latency_budget.py RUN OUT.json [--tries 10] [--threads 1] [--device cuda]

RUN: a finished run. Each try draws alphas (those of RUN with noise, so that each has other cells to begin with) and a
limit of 0.6 to 0.9 of what the network without one takes, derives, and then measures the network in a process of its
own. Writes every try, how many were kept, and how far off the fits were.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch

from common import command_line, describe_machine, now
from pvnas.deploy.latency import clock_of
from pvnas.runtime.files import write_atomic
from pvnas.search.budget import Limits, Scores
from pvnas.search.derive import derive
from pvnas.search.history import final_alphas, price_table
from pvnas.search.latency import RUNS, derive_in_time
from pvnas.settings import CONFIG_NAME, load_config

NOISE = 0.1  # of alphas, beside a spread of some 0.1 to 0.3 that a search gives them


def main() -> None:
    """Try, and print how many were kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    config = load_config(file=args.run / CONFIG_NAME)
    config.budget.latency_threads, config.budget.latency_device = args.threads, args.device
    classes = len(json.loads((args.run / "catalog.json").read_bytes())["classes"])
    searched, table, draw = final_alphas(config, args.run), price_table(config, classes), random.Random(0)
    report: dict[str, Any] = {"machine": describe_machine(), "command": command_line(), "date": now(), "tries": []}
    for number in range(args.tries):
        noise = torch.Generator().manual_seed(number)
        alphas = {name: a + NOISE * torch.randn(a.shape, generator=noise) for name, a in searched.items()}
        free, started = derive(alphas), time.monotonic()
        config.budget.latency_ms = round(
            draw.uniform(0.6, 0.9) * clock_of(config, classes)([free], RUNS)[0].median_ms, 2
        )
        clock = clock_of(config, classes)
        found, about = derive_in_time(alphas, table, Limits(), clock)
        seconds, [again] = time.monotonic() - started, clock([found], RUNS)
        scores = Scores(alphas)
        report["tries"].append(
            about
            | {"again": again._asdict(), "kept": again.median_ms <= clock.most_ms, "seconds": round(seconds, 1)}
            | {"cost": table.of(found)._asdict(), "cost_without": table.of(free)._asdict()}
            | {"log_score_lost": round(scores.of(free) - scores.of(found), 3)}
        )
        report["kept"] = sum(each["kept"] for each in report["tries"])
        write_atomic(args.out, json.dumps(report, indent=1) + "\n")
        print(
            f"{clock.most_ms} ms: {again.median_ms} ms when measured again, {report['kept']} of {number + 1}",
            flush=True,
        )


if __name__ == "__main__":
    main()
