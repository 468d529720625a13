"""Finds the commands: every module of ``pvnas.cli.commands`` is looked through, so that a new one needs no list."""

import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib import import_module

from pvnas.cli import commands
from pvnas.cli.command import Command
from pvnas.errors import UserError
from pvnas.presets import PRESETS
from pvnas.settings import all_fields, nearest, shown

FIRST_IN_HELP = ("stages", "predict", "digest", "genotype", "data")
"""Modules whose commands come first in the help; those of others follow by name."""


@cache
def all_commands() -> dict[str, Command]:
    """Every command by name, in the order of the help."""
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    ordered = dict.fromkeys([*(name for name in FIRST_IN_HELP if name in names), *names])
    modules = [import_module(f"{commands.__name__}.{name}") for name in ordered]
    listed = [value for module in modules for value in vars(module).values() if isinstance(value, Command)]
    return {command.name: command for command in listed}


def find_command(arguments: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    """The command and the arguments after its name; None for a group with ``--help``. UserError for an unknown one."""
    known, (first, *rest) = all_commands(), arguments
    if first in known:
        return known[first], rest
    if first.startswith("--") and first[2:].partition("=")[0] in (*all_fields(), "dir", "config", "hours"):
        raise UserError(f"options come after a command, such as pvnas run DATA {first}; see: pvnas --help")
    actions = [name.split()[1] for name in known if name.startswith(f"{first} ")]
    if not actions:
        names = dict.fromkeys(name.split()[0] for name in known)
        raise UserError(f"no command {shown(first)}{nearest(first, names)}; see: pvnas --help")
    if rest and rest[0] in ("-h", "--help"):
        return None, rest
    if not rest or rest[0] not in actions:
        wrong = f", not {shown(rest[0])}{nearest(rest[0], actions)}" if rest else ""
        raise UserError(f"pvnas {first} takes one of {', '.join(actions)}{wrong}; see: pvnas {first} --help")
    return known[f"{first} {rest[0]}"], rest[1:]


def print_overview(group: str = "") -> None:
    """Print the commands with one line each and where to start: all of them, or those of one group."""
    print(f"usage: pvnas {group or 'COMMAND'} ...   (pvnas COMMAND --help explains one)\n")
    if not group:
        print("Find, train and test a video-recognition network for your own folder of videos.\n")
    for name, command in all_commands().items():
        if not group or name.startswith(f"{group} "):
            print(f"  {name:<16} {command.summary}")
    if group:
        return
    print(
        "\nwhere to start:\n"
        "  pvnas demo                             the whole job on generated videos, about five minutes\n"
        "  pvnas data check MY_VIDEOS             are my videos readable? (folder: MY_VIDEOS/class/video.mp4)\n"
        "  pvnas run MY_VIDEOS --preset tiny      seconds, to see that everything works\n"
        "  pvnas run MY_VIDEOS --hours 1          the real thing, chosen for my videos and this machine\n"
        f"\npresets: {', '.join(PRESETS)} (pvnas config show PRESET explains every field)\n"
        "options: --help, --version"
    )
