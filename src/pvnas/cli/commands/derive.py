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
from pvnas.settings import CONFIG_NAME, ENVIRONMENT_NAME, differences, get_field, load_config, plain, set_field


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
    from pvnas.runtime.drift import read_environment
    from pvnas.runtime.files import write_atomic
    from pvnas.search.history import final_epoch, genotype_of_epoch, limits_of, price_table, read_history

    config = load_config(file=run_dir / CONFIG_NAME)
    alphas, categories = read_history(run_dir)
    config.train.width = args.width or config.train.width
    epoch = args.epoch or final_epoch(config)
    if epoch > config.search.epochs:
        raise UserError(f"--epoch {epoch}: the search of {run_dir} has epochs 1 to {config.search.epochs}")
    limits = {name: asked[f"budget.{name}"] or 0 for name in ("params", "macs", "latency_ms")}
    how = {"latency_batch": args.batch, "latency_threads": args.threads, "latency_device": args.device}
    typed = limits | {name: value for name, value in how.items() if value} | {"width": "given", "pressure": False}
    for name, value in typed.items():
        set_field(config, f"budget.{name}", value)
    classes, advice = classes_of(run_dir), "allow more, or take a smaller --width"
    table = price_table(config, classes)
    threads = read_environment(run_dir / ENVIRONMENT_NAME).get("threads", 0)
    clock = clock_of(config, classes, threads, advice) if config.budget.latency_ms else None
    genotype = genotype_of_epoch(config, epoch, alphas, categories, table, limits_of(config), clock)
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
        others = differences(load_config(file=run_dir / CONFIG_NAME), config)
        words = [config.data.path, "--config", str(run_dir / CONFIG_NAME), "--genotype", args.out]
        words += [f"--{name}={plain(get_field(config, name))}" for name in others]
        print(f"train it: pvnas train {shlex.join(words)} --dir NEW_RUN")
