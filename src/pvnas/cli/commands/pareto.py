"""``pvnas pareto``: what cells of any cost a finished search has to offer."""

from argparse import Namespace
from pathlib import Path

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import JSON, RUN, classes_of, print_json, print_table, run_directory
from pvnas.errors import UserError
from pvnas.settings import CONFIG_NAME, load_config

SHOWN = 12


@command(
    "pareto",
    RUN,
    Argument("--out", "write all of them there as csv", None, metavar="FILE"),
    JSON,
    example="pvnas pareto runs/my_videos-1h --out front.csv",
)
def pareto(args: Namespace) -> None:
    """List the cells that no others beat in parameters, multiply-accumulates and log score."""
    run_dir = run_directory(args.run)
    from pvnas.runtime.files import write_atomic
    from pvnas.search.budget import pareto_front
    from pvnas.search.history import HISTORY, final_alphas, price_table
    from pvnas.space.genotype import Genotype

    config, found = load_config(file=run_dir / CONFIG_NAME), run_dir / "genotype.json"
    if not (run_dir / HISTORY).is_file() or not found.is_file():
        raise UserError(f"{run_dir} holds no finished search; go on with it: pvnas search DATA --dir {run_dir}")
    genotype = Genotype.load(found)
    points = pareto_front(final_alphas(config, run_dir), price_table(config, classes_of(run_dir)))
    rows = [(p.price.macs, p.price.params, round(p.log_score, 4), p.genotype == genotype) for p in points]
    columns = ["MACs of a view", "parameters", "log score", "chosen"]
    if args.out:
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        write_atomic(Path(args.out), "\n".join(lines) + "\n")
    if args.json:
        print_json([dict(zip(("macs", "params", "log_score", "chosen"), row, strict=True)) for row in rows])
        return
    step = max(1, len(rows) // SHOWN)
    shown = [row for number, row in enumerate(rows) if number % step == 0 or number == len(rows) - 1 or row[3]]
    print_table(columns, [(*row[:3], "*" if row[3] else "") for row in shown])
    if not any(row[3] for row in rows):
        print("the run's own cells are not among them: they were chosen by time, or are beaten by others")
    print(f"{len(rows)} in all" + (f", in {args.out}" if args.out else "; with --out FILE all of them"))
