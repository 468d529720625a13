"""``pvnas study``: the paper's experiments, each one command, on any videos."""

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import Literal

from pvnas.api import config_of, default_run_dir
from pvnas.cli.command import Argument, command
from pvnas.cli.shared import CONFIG, HOURS, PRESET, part_of
from pvnas.config import HARMLESS_FIELDS, LOCATION_FIELDS
from pvnas.errors import UserError
from pvnas.settings import plain

NAMES = Literal["schedules", "stops", "widths", "random", "budgets", "peers", "transfer", "all"]


@command(
    "study",
    Argument("name", "which one, or all of the paper's", kind=NAMES, metavar="NAME"),
    Argument("folder", "folder of labelled videos", metavar="DATA"),
    Argument("--dir", "folder of the study; what is done there is kept", None, metavar="DIR"),
    Argument("--seeds", "runs of each kind, from --seed on", 3, least=1),
    Argument("--searched-on", "another set of videos, for transfer", None, metavar="DATA"),
    PRESET,
    CONFIG,
    HOURS,
    Argument("--jobs", "runs at a time, of one thread each unless --threads says more, or of a GPU each", 1, least=1),
    Argument(
        "--part",
        "every Nth run from the Kth, and what they need, beside other workers",
        None,
        metavar="K/N",
        convert=part_of,
    ),
    Argument(
        "--only", "runs whose names fit such patterns, and what they need", None, kind=str, metavar="NAME", many=True
    ),
    Argument("--list", "print one command for each run, and run nothing", False),
    takes_config=True,
    example="pvnas study random my_videos --seeds 5 --hours 0.5 --jobs 2\n"
    "pvnas study all my_videos --searched-on other_videos --list",
)
def study(args: Namespace) -> None:
    """Make one of the paper's experiments: train what it compares, and say what the numbers do and do not show."""
    if args.name == "transfer" and not args.searched_on:
        raise UserError("transfer searches on another set, too: name it, with --searched-on OTHER_VIDEOS")
    if args.part and args.only:
        raise UserError("--part and --only both choose runs: type one of them")
    what = f"study-{args.hours:g}h" if args.hours else f"study-{args.preset or 'laptop'}"
    first = config_of(args.folder, None, None, {n: v for n, v in args.overrides.items() if n.startswith("data.")})
    folder = (Path(args.dir) if args.dir else default_run_dir(first, what)).absolute()
    args.folder = first.data.path
    args.searched_on = config_of(args.searched_on).data.path if args.searched_on else None
    args.config = os.path.abspath(args.config) if args.config else None
    from pvnas.studies.experiments import Setting
    from pvnas.studies.make import ALL, Wish, begin, make, parts_of, studies_of

    config = begin(folder, Wish(args.folder, args.preset, args.config, args.overrides, args.hours, args.searched_on))
    seeds = tuple(range(config.seed, config.seed + args.seeds))
    harmless, moved = (
        {name: value for name, value in args.overrides.items() if name in fields and name != "data.path"}
        for fields in (HARMLESS_FIELDS, LOCATION_FIELDS)
    )
    setting = Setting(folder, config, seeds, args.searched_on, harmless, moved)
    studies = studies_of(args.name, setting)
    parts = parts_of(studies, args.only or (), args.part)
    if args.list:
        for part in parts:
            print(shlex.join([*_typed(args, is_shown=False), "--dir", str(folder), "--only", part.name]))
        return
    if args.name == ALL and not args.searched_on:
        print("note: without --searched-on OTHER_VIDEOS there is no transfer", file=sys.stderr)
    for page in make(studies, parts, folder, args.jobs, shlex.join(_typed(args, is_shown=True))):
        print(page.read_text(encoding="utf-8"))
        print(f"page: {page}")


def _typed(args: Namespace, *, is_shown: bool) -> list[str]:
    """Return the words that make a study what it is; ``is_shown``: with names in place of this machine's paths."""

    from pvnas.studies.experiments import in_a_line

    def path(text: str) -> str:
        return in_a_line(Path(text).name) if is_shown else text

    words = ["pvnas", "study", args.name, path(args.folder), "--seeds", str(args.seeds)]
    words += ["--searched-on", path(args.searched_on)] if args.searched_on else []
    words += ["--preset", args.preset] if args.preset else []
    words += ["--config", path(args.config)] if args.config else []
    words += ["--hours", plain(args.hours)] if args.hours else []
    for name, value in args.overrides.items():
        words += [f"--{name}", path(plain(value)) if name in LOCATION_FIELDS else plain(value)]
    return words
