"""``pvnas faults``: what a run survives, and where that is proved."""

from argparse import Namespace

from pvnas.cli.command import command
from pvnas.cli.shared import JSON, print_json, print_table


@command("faults", JSON, example="pvnas faults")
def faults(args: Namespace) -> None:
    """Print what may happen to a run, what holds then, and the tests that make it happen."""
    from pvnas.faults import CARD

    if args.json:
        print_json([fault._asdict() for fault in CARD])
        return
    print_table(["fault", "what holds", "tests"], [(f.what, f.promise, "\n".join(f.tests)) for f in CARD])
