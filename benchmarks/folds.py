"""Recipes compared on folds: whole films held out of train and validation; the test videos are never touched.

    python benchmarks/folds.py DATA OUT --recipes recipes.yaml [--folds 3] [--seeds 0 1] [--out FILE.json]

recipes.yaml names recipes, each the words of a command without DATA and --dir; the first is what others are compared
with. A recipe is a search and a training (run), or the training of a genotype or of a network to compare with (train):

    rgb:     train --genotype g.json --preset laptop --train.epochs 15
    motion:  train --genotype g.json --preset laptop --train.epochs 15 --clip.input motion
    control: train --peer residual --macs 0.29e9 --preset laptop --train.epochs 15 --clip.input motion

Every fold's films are the test of networks trained on all other folds (no validation: its films would be missed).
Each run has a directory, OUT/runs/RECIPE/fold-F-seed-S, with what it said in log.txt; at most --at-once run, one
thread each. Whatever stops it, the same command goes on; --table prints what is finished and runs nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import command_line, describe_machine, environment, in_one_line, now
from paired import Right, clustered_mean, difference, error_over_runs, mean_over_seeds
from pvnas.data.check.results import inert
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from pvnas.settings import read_yaml
from video_lists import Listed, list_options, listed_videos, write_list

COMMANDS = ("run", "train")
COMMAND_FILE, LOG = "command.txt", "log.txt"


class Run(NamedTuple):
    """One training: a recipe on a fold with a seed."""

    recipe: str
    fold: int
    seed: int
    folder: Path
    command: list[str]


def main() -> None:
    """Write the folds, run what is not finished, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of videos with a list that names groups")
    parser.add_argument("folder", type=Path, metavar="OUT", help="where folds and run directories go")
    parser.add_argument("--recipes", type=Path, required=True, help="YAML file, name: words of a command")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--fold-seed", type=int, default=0, help="which of many ways to cut the folds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--at-once", type=int, choices=(1, 2), default=2, help="trainings at a time, one thread each")
    parser.add_argument("--table", action="store_true", help="print what is finished; run nothing")
    parser.add_argument("--out", type=Path, help="also write table, machine and commands as JSON")
    args = parser.parse_args()
    recipes, data = read_recipes(args.recipes), args.data.absolute()
    videos = [video for video in listed_videos(data) if video.split != "test"]
    fold_of = make_folds(videos, args.folds, args.fold_seed)
    lists = [write_fold(args.folder, videos, fold_of, fold) for fold in range(args.folds)]
    runs = [
        make_run(args.folder, data, recipe, words, lists[fold], fold, seed)
        for seed in args.seeds
        for fold in range(args.folds)
        for recipe, words in recipes.items()
    ]
    code = 0 if args.table else run_all([run for run in runs if not is_finished(run)], args.at_once)
    finished = [run for run in runs if is_finished(run)]
    report = compare(list(recipes), finished, {inert(video.name): video.group for video in videos})
    print(table(report))
    if args.out:
        about = {"machine": describe_machine(), "command": command_line(), "date": now(), "recipes": recipes}
        about |= {"folds": args.folds, "fold_seed": args.fold_seed, "seeds": args.seeds}
        write_atomic(args.out, json.dumps(about | report, indent=1) + "\n")
    raise SystemExit(code)


def read_recipes(path: Path) -> dict[str, str]:
    """Return the recipes by name. Raises UserError for a file that holds anything else."""
    recipes = read_yaml(path)
    if not isinstance(recipes, dict) or not recipes:
        raise UserError(f"{path} holds no recipes; write lines such as `motion: train --genotype g.json ...`")
    for name, words in recipes.items():
        if not isinstance(words, str) or words.split(" ")[0] not in COMMANDS or "/" in str(name):
            raise UserError(f"{path}: {name} is no recipe; its words begin with one of {', '.join(COMMANDS)}")
    return {str(name): words for name, words in recipes.items()}


# ---- folds


def make_folds(videos: Sequence[Listed], folds: int, seed: int) -> dict[str, int]:
    """Return the fold of every group: classes are spread evenly, groups never cut.

    Groups go one after another, the largest first and equal ones in an order by ``seed``, to the fold in which the
    classes' shares then differ least from fold to fold; of equal ones to that with the fewest videos.
    """
    labels, groups = sorted({v.label for v in videos}), sorted({v.group for v in videos})
    if len(groups) < folds:
        raise UserError(f"{folds} folds need as many groups (films), and there are {len(groups)}; set --folds")
    counts_GK = np.zeros((len(groups), len(labels)))
    for video in videos:
        counts_GK[groups.index(video.group), labels.index(video.label)] += 1
    shares_GK = counts_GK / counts_GK.sum(0)
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(-counts_GK[order].sum(1), kind="stable")]
    shares_FK, sizes_F, fold_of = np.zeros((folds, len(labels))), np.zeros(folds), dict[str, int]()
    for g in order.tolist():

        def spread(fold: int, g: int = g) -> tuple[float, float]:
            after_FK = shares_FK.copy()
            after_FK[fold] += shares_GK[g]
            return round(float(after_FK.var(0).sum()), 12), sizes_F.item(fold)

        best = min(range(folds), key=spread)
        shares_FK[best] += shares_GK[g]
        sizes_F[best] += counts_GK[g].sum()
        fold_of[groups[g]] = best
    return fold_of


def fold_list(videos: Sequence[Listed], fold_of: dict[str, int], fold: int) -> list[Listed]:
    """Return the videos with the fold's as the test and all others as training videos."""
    return [
        Listed(v.path, v.label, "test" if fold_of[v.group] == fold else "train", v.group, v.start, v.end)
        for v in videos
    ]


def write_fold(folder: Path, videos: Sequence[Listed], fold_of: dict[str, int], fold: int) -> Path:
    """Write a fold's list. Raises UserError where another one lies there: its runs would be mixed."""
    place = folder / "folds" / f"fold-{fold}"
    before = (place / "split.csv").read_text() if (place / "split.csv").exists() else None
    path = write_list(place, fold_list(videos, fold_of, fold))
    if before is not None and before != path.read_text():
        write_atomic(path, before)
        raise UserError(f"{path} holds another fold; type the same --folds and --fold-seed, or name another OUT")
    return path.absolute()


# ---- runs


def make_run(folder: Path, data: Path, recipe: str, words: str, path: Path, fold: int, seed: int) -> Run:
    """Return the training of a recipe on a fold."""
    run_dir = folder / "runs" / recipe / f"fold-{fold}-seed-{seed}"
    kind, *options = shlex.split(words)
    ours = ["--seed", str(seed), "--threads", "1", *list_options(path)]
    return Run(recipe, fold, seed, run_dir, ["-m", "pvnas", kind, str(data), "--dir", str(run_dir), *options, *ours])


def is_finished(run: Run) -> bool:
    """Return whether a run was tested. Raises UserError where its directory holds another recipe's."""
    said = run.folder / COMMAND_FILE
    if said.exists() and said.read_text() != shlex.join(run.command) + "\n":
        raise UserError(f"{run.folder} holds another recipe (see {COMMAND_FILE}); name this one otherwise")
    return (run.folder / "results.json").exists()


def run_all(runs: Sequence[Run], at_once: int) -> int:
    """Run all, ``at_once`` at a time; 0, or the exit code of the first that fails. A signal stops and keeps them."""
    waiting, running, done = deque(runs), list[tuple[Run, subprocess.Popen[bytes]]](), 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append((waiting[0], start(waiting.popleft())))
            time.sleep(0.5)
            for run, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((run, process))
                if process.returncode:
                    print(f"{run.folder} ended with {process.returncode}; see {run.folder / LOG}", file=sys.stderr)
                    return process.returncode
                done += 1
                print(f"{done} of {len(runs)} finished: {run.folder}", file=sys.stderr, flush=True)
    finally:
        for _, process in running:
            process.terminate()  # it saves a checkpoint and ends
        for _, process in running:
            process.wait()
    return 0


def start(run: Run) -> subprocess.Popen[bytes]:
    """Start a run in a process with one thread."""
    run.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(run.folder / COMMAND_FILE, shlex.join(run.command) + "\n")
    with (run.folder / LOG).open("ab") as log:
        one_thread = environment() | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, *run.command], env=one_thread, stdout=log, stderr=log)


def right_of(run: Run) -> dict[str, float]:
    """Return by video whether a run's network named it rightly."""
    with (run.folder / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return {row["path"]: float(row["correct"]) for row in csv.DictReader(stream)}


# ---- what they say


def compare(recipes: Sequence[str], finished: Sequence[Run], group_of: dict[str, str]) -> dict[str, Any]:
    """Return each recipe's accuracy over all its runs, and its difference to the first over the runs that both have."""
    right: dict[str, dict[tuple[int, int], Right]] = {name: {} for name in recipes}
    for run in finished:
        right[run.recipe][run.fold, run.seed] = right_of(run)
    first, rows = right[recipes[0]], []
    for name in recipes:
        own = right[name]
        row: dict[str, Any] = {"recipe": name, "runs": len(own), **_of_networks(name, finished)}
        row["by_run"] = {f"fold {f} seed {s}": round(_percent(each), 2) for (f, s), each in sorted(own.items())}
        if own:
            row["top1"] = clustered_mean(mean_over_seeds(list(own.values())), group_of)
        both = sorted(own.keys() & first.keys())
        if both and name != recipes[0]:
            ours, theirs = ([of[pair] for pair in both] for of in (own, first))
            paired = difference(mean_over_seeds(ours), mean_over_seeds(theirs))
            row["difference"] = clustered_mean(paired, group_of)
            row["difference_runs"] = len(both)
            gains = [_percent(a) - _percent(b) for a, b in zip(ours, theirs, strict=True)]
            row["difference_error_over_runs"] = error_over_runs(gains) if len(gains) > 1 else None
        rows.append(row)
    return {"rows": rows}


def _percent(right: Right) -> float:
    return 100 * sum(right.values()) / len(right)


def _of_networks(recipe: str, finished: Sequence[Run]) -> dict[str, float]:
    """Return means over a recipe's networks of cost, training accuracy and seconds."""
    runs = [run for run in finished if run.recipe == recipe]
    values: dict[str, list[float]] = {}
    for run in runs:
        results = json.loads((run.folder / "results.json").read_bytes())
        last = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
        seconds = sum(results["seconds"].values())
        for name, value in {**results, "train_top1": last["top1"], "all_seconds": seconds}.items():
            if name in ("params", "macs_per_view", "train_top1", "all_seconds"):
                values.setdefault(name, []).append(float(value))
    return {name: round(float(np.mean(each)), 1) for name, each in values.items()}


def table(report: dict[str, Any]) -> str:
    """Return the comparison as a table of Markdown, the first recipe first, then accuracy by fold and seed."""
    head = "| recipe | runs | top-1 ± films | minus the first ± films (± runs) | training top-1 | M params | GMACs |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in report["rows"]:
        top1 = "{:.1f} ± {:.1f}".format(*row["top1"]) if "top1" in row else "–"
        gain = "–"
        if "difference" in row:
            over_runs = row["difference_error_over_runs"]
            gain = "{:+.1f} ± {:.1f}".format(*row["difference"]) + (
                f" ({over_runs:.1f})" if over_runs is not None else ""
            )
        train, params, macs = (row.get(name, np.nan) for name in ("train_top1", "params", "macs_per_view"))
        costs = f"{train:.1f} | {params / 1e6:.2f} | {macs / 1e9:.3f}"
        lines.append(f"| {row['recipe']} | {row['runs']} | {top1} | {gain} | {costs} |")
    pairs = sorted({pair for row in report["rows"] for pair in row["by_run"]})
    lines += ["", "| recipe | " + " | ".join(pairs) + " |", "|---" * (1 + len(pairs)) + "|"]
    for row in report["rows"]:
        cells = [f"{row['by_run'][pair]:.1f}" if pair in row["by_run"] else "–" for pair in pairs]
        lines.append(f"| {row['recipe']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    in_one_line(main)
