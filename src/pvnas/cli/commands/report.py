"""``pvnas report``: the page of a run, made again."""

from __future__ import annotations

from argparse import Namespace

from pvnas.cli.arguments import RUN, run_directory
from pvnas.cli.command import command


@command("report", RUN, example="pvnas report runs/demo/run")
def report(args: Namespace) -> None:
    """Write report.html and the figures again."""
    run_dir = run_directory(args.run)
    from pvnas.report.page import write_report

    print(write_report(run_dir))
