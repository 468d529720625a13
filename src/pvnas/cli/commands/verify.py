"""``pvnas verify``: does a run end in the same bits when its last stretch is made again?"""

from argparse import Namespace

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import JSON, RUN, print_json, run_directory, speaks
from pvnas.errors import UserError


@command(
    "verify",
    RUN,
    Argument("--processes", "processes that share the replay; the bits must be those of any other number", 1, least=1),
    JSON,
    example="pvnas verify runs/demo/run",
)
def verify(args: Namespace) -> int:
    """Replay the last stretch of a run's search and training, and compare the bits with what was saved."""
    run_dir = run_directory(args.run)
    from pvnas.replay import verify as replay

    replayed = replay(run_dir)
    if not speaks():
        return 0
    if args.json:
        print_json([stretch._asdict() for stretch in replayed])
    for stretch in () if args.json else replayed:
        what = f"{stretch.stage}: from {stretch.begin} to {stretch.end}"
        print(f"{what}: the same digest, {stretch.digest}" if not stretch.differing else f"{what}: other bits")
    if differing := [name for stretch in replayed for name in stretch.differing]:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"{run_dir}: {', '.join(differing[:3])}{more} differ: this machine, or what runs on it, does not repeat "
            "itself, or the run was made under other conditions (environment.json); ask: pvnas doctor"
        )
    return 0
