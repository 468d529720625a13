"""``pvnas doctor``: is this machine fit for a run?"""

from argparse import Namespace
from pathlib import Path

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import JSON, print_json, print_table


@command(
    "doctor",
    Argument("folder", "where runs will lie", "runs", metavar="DIR"),
    JSON,
    example="pvnas doctor\npvnas doctor /mnt/shared/runs",
)
def doctor(args: Namespace) -> int:
    """Try what a run needs on this machine, and say what would make one not repeatable; ends with 1 at a problem."""
    from pvnas.doctor import examine

    findings = list(examine(Path(args.folder)))
    if args.json:
        print_json([finding._asdict() for finding in findings])
    else:
        print_table(["", "found", "problem"], findings)
    return int(any(finding.problem for finding in findings))
