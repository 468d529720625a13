"""``pvnas report`` and ``digest``: what is made of a finished run directory."""

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


@command("digest", RUN, example="pvnas digest runs/demo/run")
def digest(args: Namespace) -> None:
    """Print the SHA-256 over weights, alphas, optimisers and genotype: equal runs, equal digests."""
    run_dir = run_directory(args.run)
    from pvnas import pipeline

    print(pipeline.run_digest(run_dir))
