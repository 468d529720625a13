"""``pvnas digest``: did two runs end in the same bits?"""

from argparse import Namespace

from pvnas.cli.command import command
from pvnas.cli.shared import RUN, run_directory


@command("digest", RUN, example="pvnas digest runs/demo/run")
def digest(args: Namespace) -> None:
    """Print the SHA-256 over weights, alphas, optimisers and genotype: equal runs, equal digests."""
    run_dir = run_directory(args.run)
    from pvnas import session

    print(session.run_digest(run_dir))
