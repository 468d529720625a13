"""How far the cells that equal searches find agree, beside chance, and how far the trained networks lie apart.

    python benchmarks/agreement.py OUT RUN RUN [RUN ...]
    python benchmarks/agreement.py OUT --seeds 3 [--search-only] DATA [-- any option of `pvnas run`]

The first form compares run directories, the second makes them first, OUT/seed-0 and on: typed again after an
interruption it goes on where it was. Prints a table and writes OUT/agreement.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from common import command_line, describe_machine, in_one_line, now, pvnas
from pvnas.errors import UserError
from pvnas.space.genotype import Genotype, random_genotype
from pvnas.training.log import read_metrics

KINDS = ("edges", "operations")
DRAWS = 400  # groups of random genotypes: enough for two digits of what 95 % of them stay below


def agreement(first: Genotype, second: Genotype) -> dict[str, dict[str, float]]:
    """Return, by category and in ``total``, the share of equal edges and of equal (edge, operation) pairs.

    Of the edges that one of the two keeps: both keep as many. Raises UserError where the cells are of other categories.
    """
    if set(first.cells) != set(second.cells):
        here, there = (", ".join(genotype.cells) for genotype in (first, second))
        raise UserError(f"one run has cells of {here}, another of {there}; compare runs of one search.layout")
    shares = {}
    for name in (*first.cells, "total"):
        kept = [set(_kept(genotype, name)) for genotype in (first, second)]
        bare = [{place[:-1] for place in places} for places in kept]
        edges, operations = (len(a & b) / len(a) for a, b in (bare, kept))
        shares[name] = {"edges": edges, "operations": operations}
    return shares


def _kept(genotype: Genotype, name: str) -> Iterable[tuple[str, int, int, str]]:
    """Yield (category, node, predecessor, operation) of the edges of a category, or of all ("total")."""
    for category, node, edge in genotype.edges():
        if name in (category, "total"):
            yield category, node, edge.predecessor, edge.operation


def mean_agreement(genotypes: Sequence[Genotype]) -> dict[str, dict[str, float]]:
    """Return the mean of ``agreement`` over all pairs. Raises UserError where there is none."""
    pairs = [agreement(first, second) for first, second in combinations(genotypes, 2)]
    if not pairs:
        raise UserError("agreement is between two runs or more; name more run directories, or --seeds 3")
    return {name: {kind: statistics.fmean(pair[name][kind] for pair in pairs) for kind in KINDS} for name in pairs[0]}


def chance(categories: Sequence[str], runs: int, draws: int = DRAWS) -> dict[str, dict[str, dict[str, float]]]:
    """Return what so many genotypes drawn uniformly agree by: the mean, and what 95 % of such groups stay below.

    A derivation from alphas that are noise draws uniformly, too: no edge and no operation is before another.
    """
    groups = []
    for draw in range(draws):
        seeds = range(draw * runs, (draw + 1) * runs)
        groups.append(mean_agreement([random_genotype(seed, categories=tuple(categories)) for seed in seeds]))
    by_name: dict[str, dict[str, dict[str, float]]] = {}
    for name in groups[0]:
        by_name[name] = {}
        for kind in KINDS:
            values = sorted(group[name][kind] for group in groups)
            high = values[math.ceil(0.95 * draws) - 1]
            by_name[name][kind] = {"mean": statistics.fmean(values), "of_95_percent": high}
    return by_name


def read_run(run_dir: Path) -> dict[str, Any]:
    """Return a run's genotype, and its accuracies in percent as far as it was trained and tested."""
    path = run_dir / "genotype.json"
    if not path.is_file():
        raise UserError(f"{run_dir} holds no genotype; finish it: pvnas search DATA --dir {run_dir}")
    trained = [line for line in read_metrics(run_dir / "metrics.jsonl") if line["stage"] == "train"]
    results = run_dir / "results.json"
    return {
        "run": str(run_dir),
        "genotype": Genotype.load(path),
        "validation_top1": trained[-1].get("val_top1") if trained else None,
        "test_top1": json.loads(results.read_bytes()).get("top1") if results.is_file() else None,
    }


def agreement_by_epoch(folders: Sequence[Path]) -> dict[int, dict[str, float]]:
    """Return the mean agreement of all cells after each epoch whose genotypes all of the runs kept.

    It says whether longer searches would agree more.
    """
    kept = [{path.name: path for path in (folder / "genotypes").glob("epoch_*.json")} for folder in folders]
    shared = sorted(set.intersection(*map(set, kept)))
    return {
        int(name.removeprefix("epoch_").removesuffix(".json")): mean_agreement(
            [Genotype.load(of_run[name]) for of_run in kept]
        )["total"]
        for name in shared
    }


def spread(values: Iterable[float | None]) -> dict[str, Any]:
    """Return number, mean and standard deviation of those values that there are."""
    known = [value for value in values if value is not None]
    return {
        "runs": len(known),
        "mean": statistics.fmean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,
    }


def compare(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return all measures of some runs of ``read_run``."""
    genotypes = [run["genotype"] for run in runs]
    found = {"agreement": mean_agreement(genotypes)}
    names = list(found["agreement"])
    counts = [genotype.parameter_free() for genotype in genotypes]
    entropies = [genotype.about.get("collapse", {}).get("alpha_entropy", {}) for genotype in genotypes]
    return found | {
        "chance": chance(names[:-1], len(runs)),
        "parameter_free": {name: spread(count[name] for count in counts) for name in names},
        "alpha_entropy": {
            name: spread(entropy.get("mean" if name == "total" else name) for entropy in entropies) for name in names
        },
        "validation_top1": spread(run["validation_top1"] for run in runs),
        "test_top1": spread(run["test_top1"] for run in runs),
        "runs": [{**run, "genotype": json.loads(run["genotype"].to_json())["cells"]} for run in runs],
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the measures as lines for a person."""
    runs = len(found["runs"])
    lines = [
        f"{runs} runs, mean over {runs * (runs - 1) // 2} pairs; in brackets the mean of random cells and what 95 % of "
        "such groups stay below",
        f"{'cells':6} {'equal edges':>24} {'edges and operations':>24} {'without parameters':>19} {'entropy':>8}",
    ]
    for name in found["agreement"]:
        shares = [_share(found["agreement"][name][kind], found["chance"][name][kind]) for kind in KINDS]
        free, entropy = found["parameter_free"][name], found["alpha_entropy"][name]
        lines.append(f"{name:6} {shares[0]:>24} {shares[1]:>24} {_number(free):>19} {_number(entropy):>8}")
    for name in ("validation_top1", "test_top1"):
        if found[name]["runs"]:
            deviation = "–" if found[name]["sd"] is None else f"{found[name]['sd']:.2f}"
            lines.append(f"{name}: mean {found[name]['mean']:.2f} %, sd {deviation}, {found[name]['runs']} runs")
    if found["by_epoch"]:
        shares = (f"{epoch}: {100 * total['operations']:.1f} %" for epoch, total in found["by_epoch"].items())
        lines.append(f"edges and operations by epoch of the search: {', '.join(shares)}")
    return "\n".join(lines)


def _share(value: float, random: Mapping[str, float]) -> str:
    return f"{100 * value:.1f} % ({100 * random['mean']:.0f}, {100 * random['of_95_percent']:.0f} %)"


def _number(values: Mapping[str, Any]) -> str:
    return "–" if values["mean"] is None else f"{values['mean']:.2f}"


def make_runs(out: Path, data: str, seeds: int, options: Sequence[str], *, search_only: bool) -> list[Path]:
    """Run (or only search) with each seed and return the run directories; what is finished is kept.

    Raises SystemExit with the code of a run that fails.
    """
    folders = [out / f"seed-{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        command = ["search" if search_only else "run", data, "--dir", str(folder), "--seed", str(seed), *options]
        if code := pvnas(command):
            raise SystemExit(code)
    return folders


def main() -> None:
    """Make the runs, if asked for, compare them, print and write."""
    words, options = sys.argv[1:], []
    if "--" in words:
        words, options = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for agreement.json, and for the runs that are made")
    parser.add_argument("paths", nargs="+", help="run directories; with --seeds the videos")
    parser.add_argument("--seeds", type=int, default=0, help="make so many runs first")
    parser.add_argument("--search-only", action="store_true", help="search, and train nothing")
    args = parser.parse_args(words)
    if (options or args.search_only) and not args.seeds:
        raise UserError("options of runs are for runs to make; add --seeds 3, or leave them out")
    if args.seeds and (args.seeds < 2 or len(args.paths) > 1):
        raise UserError("--seeds takes 2 or more, and beside it one folder or list of videos")
    folders = [Path(path) for path in args.paths]
    if args.seeds:
        folders = make_runs(args.out, args.paths[0], args.seeds, options, search_only=args.search_only)
    found = compare([read_run(folder) for folder in folders]) | {"by_epoch": agreement_by_epoch(folders)}
    about = {"command": command_line(), "date": now(), "machine": describe_machine()}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "agreement.json").write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    in_one_line(main)
