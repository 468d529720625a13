"""``pvnas derive``: the cells of a finished search once more: within a budget, or of another epoch."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any, Literal

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import (
    JSON,
    RUN,
    checked_cost,
    checked_milliseconds,
    classes_of,
    print_json,
    print_table,
    run_directory,
)
from pvnas.errors import UserError
from pvnas.settings import CONFIG_NAME, load_config


@command(
    "derive",
    RUN,
    Argument("--budget.params", "most parameters, such as 3M", None, metavar="N", convert=checked_cost),
    Argument(
        "--budget.macs",
        "most multiply-accumulates of a view of the test, such as 0.3G",
        None,
        metavar="N",
        convert=checked_cost,
    ),
    Argument(
        "--budget.latency_ms",
        "most milliseconds for views of the test, measured here and now",
        None,
        metavar="MS",
        convert=checked_milliseconds,
    ),
    Argument("--batch", "views at once, for --budget.latency_ms [the run's budget.latency_batch]", None, int, "N", 1),
    Argument("--threads", "CPU threads, for --budget.latency_ms [the run's]", None, int, "N", 1),
    Argument("--device", "where to measure [the run's]", None, Literal["cpu", "cuda"], "cpu|cuda"),
    Argument("--width", "channels of the first cells [the run's]", None, kind=int, metavar="N", least=2),
    Argument("--epoch", "of the search [the one that the run took]", None, kind=int, metavar="N", least=1),
    Argument("--out", "write the genotype there", None, metavar="FILE"),
    JSON,
    example="pvnas derive runs/my_videos-1h --budget.macs 0.2G --out small.json\n"
    "pvnas train my_videos --config runs/my_videos-1h/config.yaml --genotype small.json --dir runs/small",
)
def derive(args: Namespace) -> None:
    """Derive the best cells within a budget from a finished search; nothing is searched again."""
    run_dir, asked = run_directory(args.run), vars(args)
    from pvnas.deploy.latency import clock_of
    from pvnas.runtime.checkpoint import load_tensors
    from pvnas.runtime.files import write_atomic
    from pvnas.search.budget import Limits
    from pvnas.search.history import HISTORY, genotype_of_epoch, price_table

    config = load_config(file=run_dir / CONFIG_NAME)
    history = run_dir / HISTORY
    if not history.is_file():
        raise UserError(f"{run_dir} holds no alphas of a search ({HISTORY}); search first: pvnas search DATA")
    alphas = load_tensors(history)
    config.train.width = args.width or config.train.width
    epoch = args.epoch or config.search.stop_epoch or config.search.epochs
    if epoch > config.search.epochs:
        raise UserError(f"--epoch {epoch}: the search of {run_dir} has epochs 1 to {config.search.epochs}")
    categories = tuple(dict.fromkeys(name.partition("/")[2] for name in alphas))
    limits, most_ms = Limits(asked["budget.params"], asked["budget.macs"]), asked["budget.latency_ms"] or 0.0
    classes, budget = classes_of(run_dir), config.budget
    budget.latency_batch = args.batch or budget.latency_batch
    budget.latency_threads = args.threads or budget.latency_threads
    budget.latency_device = args.device or budget.latency_device
    table, clock = price_table(config, classes), clock_of(config, classes) if most_ms > 0 else None
    genotype = genotype_of_epoch(config, epoch, alphas, categories, table, limits, most_ms, clock)
    free = genotype_of_epoch(config, epoch, alphas, categories)
    if args.out:
        write_atomic(Path(args.out), genotype.to_json())
    about: dict[str, Any] = {"epoch": epoch, "width": config.train.width, "cost": table.of(genotype)._asdict()}
    about |= {"cost_without": table.of(free)._asdict()} | genotype.about.get("budget", {})
    if args.json:
        print_json(about)
        return
    cost, before = about["cost"], about["cost_without"]
    rows = [("parameters", before["params"], cost["params"]), ("MACs of a view", before["macs"], cost["macs"])]
    if clock:
        rows += [(f"ms of {clock.where}", about["latency_without"]["median_ms"], about["latency"]["median_ms"])]
    print_table(["cost", "without a budget", "within it"], rows)
    before_edges = set(free.edges())
    if changes := [place for place in genotype.edges() if place not in before_edges]:
        lost = about["log_score_without"] - about["log_score"]
        print(f"{len(changes)} of {len(before_edges)} edges are others, at {lost:.4g} of the sum of log scores:")
        edges = [(category, str(node), str(edge.predecessor), edge.operation) for category, node, edge in changes]
        print_table(["cell", "node", "from", "operation"], edges)
    if args.out:
        same = shlex.join(["--config", str(run_dir / CONFIG_NAME), "--genotype", args.out])
        wide = f" --train.width {args.width}" if args.width else ""
        print(f"train it: pvnas train {shlex.quote(config.data.path)} {same}{wide} --dir NEW_RUN")
