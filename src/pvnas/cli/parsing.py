"""Finds the command in a command line and parses its arguments; every mistake becomes a UserError of one line.

Only the parser of the command that was typed is built. Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace

from pvnas.config import PRESETS, RunConfig
from pvnas.errors import UserError
from pvnas.settings import (
    DEFAULT_PRESET,
    Field,
    all_fields,
    get_field,
    nearest,
    preset_config,
    section_help,
    shown,
    wrong_value,
)

# Shown before the rest in the help of commands that take a config.
MAIN_FIELDS = (
    "search.epochs",
    "search.width",
    "train.epochs",
    "train.width",
    "train.repeat",
    "train.batch.clips_per_shard",
    "clip.short_videos",
    "seed",
    "device",
    "data.cache",
    "data.workers",
)


@dataclass(frozen=True)
class Command:
    """One command of ``pvnas``: its texts, its arguments and what it does."""

    name: str
    """One word, or a group and a word (``data list``)."""
    usage: str
    """What follows the name."""
    summary: str
    """One line."""
    example: str
    """One command line, or several."""
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    takes_config: bool = False
    """Whether every field of the config is an option."""


def find_command(arguments: list[str]) -> tuple[Command | None, list[str]]:
    """The command and the arguments after its name; None for a group with ``--help``.

    UserError with the nearest name for an unknown command.
    """
    from pvnas.cli.table import COMMANDS

    first, rest = arguments[0], arguments[1:]
    if first in COMMANDS:
        return COMMANDS[first], rest
    actions = [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]
    if not actions:
        known = dict.fromkeys(name.split()[0] for name in COMMANDS)
        raise UserError(f"no command {shown(first)}{nearest(first, known)}; see: pvnas --help")
    if rest and rest[0] in ("-h", "--help"):
        return None, rest
    if not rest or rest[0] not in actions:
        wrong = f", not {shown(rest[0])}{nearest(rest[0], actions)}" if rest else ""
        raise UserError(f"pvnas {first} takes one of {', '.join(actions)}{wrong}; see: pvnas {first} --help")
    return COMMANDS[f"{first} {rest[0]}"], rest[1:]


def parse_arguments(command: Command, arguments: list[str]) -> Namespace | None:
    """The parsed arguments, or None when help was printed.

    With a config, ``overrides`` holds the fields that were typed by dotted name, checked. UserError for any mistake.
    """
    parser = build_parser(command, _preset_typed(arguments))
    try:
        parsed = parser.parse_args(arguments)
        typed = parser.parse_args(arguments, defaults=False) if command.takes_config else Namespace()
    except SystemExit:
        return None
    except argparse.ArgumentError as error:
        raise _reworded(error, command, parser) from None
    parsed.overrides = {name: typed[name] for name in all_fields() if name in typed and name != "preset"}
    return parsed


def build_parser(command: Command, preset: str = DEFAULT_PRESET) -> ArgumentParser:
    """The parser of one command; the defaults shown for the fields of a config are the preset's."""
    parser = ArgumentParser(
        prog=f"pvnas {command.name}",
        usage=f"pvnas {command.name} {command.usage}".rstrip(),
        description=command.summary,
        epilog="example:\n" + "\n".join(f"  {line}" for line in command.example.splitlines()),
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        default_env=False,
    )
    command.add_arguments(parser)
    if command.takes_config:
        _add_fields(parser, PRESETS.get(preset, PRESETS[DEFAULT_PRESET])())
    return parser


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)


def _add_fields(parser: ArgumentParser, defaults: RunConfig) -> None:
    """Adds each field as ``--its.name``: the main ones first, then part after part."""
    taken = {"preset"}  # an option of its own
    rest = [name for name in all_fields() if name not in MAIN_FIELDS]
    sections = dict.fromkeys(all_fields()[name].section for name in rest)
    main_title = f"main fields (defaults are those of --preset {defaults.preset})"
    groups = [(main_title, "", list(MAIN_FIELDS))]
    for section in sections:
        title = f"fields of {section}" if section else "other fields of the run"
        groups.append((title, section_help(section), [name for name in rest if all_fields()[name].section == section]))
    for title, text, names in groups:
        group = parser.add_argument_group(title, text or None)
        for name in names:
            if name not in taken:
                field = all_fields()[name]
                default = get_field(defaults, name)
                group.add_argument(
                    f"--{name}", type=field.kind, default=default, metavar=_metavar(field), help=_help(field, default)
                )


def _metavar(field: Field) -> str:
    words = {int: "N", float: "X", bool: "true|false", str: "TEXT"}
    return words.get(field.kind) or "|".join(field.takes.removeprefix("one of ").split(", "))


def _help(field: Field, default: object) -> str:
    value = str(default).lower() if isinstance(default, bool) else (str(default) or "none")
    return f"{field.help} [{value}]".replace("%", "%%")


def _preset_typed(arguments: list[str]) -> str:
    """The preset as typed, before anything is parsed: only the defaults that the help shows hang on it."""
    for index, word in enumerate(arguments):
        if word == "--preset" and index + 1 < len(arguments):
            return arguments[index + 1]
        if word.startswith("--preset="):
            return word.removeprefix("--preset=")
    return DEFAULT_PRESET


def _reworded(error: argparse.ArgumentError, command: Command, parser: ArgumentParser) -> UserError:
    """One line that a person understands, out of a parser's error."""
    text = " ".join(str(error).split())
    see = f"see: pvnas {command.name} --help"
    unknown = re.search(r"(?i)unrecognized arguments: (\S+)", text)
    if unknown:
        option, _, _ = unknown[1].partition("=")
        known = [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]
        hint = nearest(option.removeprefix("--"), known) if option.startswith("-") else ""
        hint = hint.replace("did you mean ", "did you mean --")
        what = f"no option {shown(option)}" if option.startswith("-") else f"one argument too many, {shown(option)}"
        return UserError(f"pvnas {command.name}: {what}{hint}; {see}")
    wrong = re.search(r'Parser key "([^"]+)": .*Got value: ?(.*)', text)
    if wrong:
        name, value = wrong.groups()
        if command.takes_config and name in all_fields():
            return wrong_value(all_fields()[name], value)
        action = next(action for action in parser._actions if action.dest == name)
        option = Field(action.option_strings[0], getattr(action, "_typehint", str), "")
        return UserError(f"pvnas {command.name}: {wrong_value(option, value)}; {see}")
    lacking = re.search(r"the following arguments are required: (.*)", text)
    if lacking:
        names = {action.dest: " ".join([*action.option_strings, str(action.metavar)]) for action in parser._actions}
        words = [names[name] for name in lacking[1].split(", ")]
        return UserError(f"pvnas {command.name} needs {' and '.join(words)}; {see}")
    return UserError(f"pvnas {command.name}: {text.removeprefix('argument ')}; {see}")


def print_overview(group: str = "") -> None:
    """Prints the commands with one line each and where to start: all of them, or those of one group."""
    from pvnas.cli.table import COMMANDS

    print(f"usage: pvnas {group or 'COMMAND'} ...   (pvnas COMMAND --help explains one)\n")
    if not group:
        print("Find, train and test a video-recognition network for your own folder of videos.\n")
    for name, command in COMMANDS.items():
        if not group or name.startswith(f"{group} "):
            print(f"  {name:<16} {command.summary}")
    if group:
        return
    print(
        "\nwhere to start:\n"
        "  pvnas demo                             the whole job on generated videos, about ten minutes\n"
        "  pvnas data check MY_VIDEOS             are my videos readable? (folder: MY_VIDEOS/class/video.mp4)\n"
        "  pvnas run MY_VIDEOS --preset tiny      seconds, to see that everything works\n"
        "  pvnas run MY_VIDEOS --preset laptop    the real thing on a CPU\n"
        f"\npresets: {', '.join(PRESETS)} (pvnas config show PRESET explains every field)\n"
        "options: --help, --version"
    )


def print_version() -> None:
    """Prints the version."""
    from pvnas import __version__

    print(f"pvnas {__version__}")


def checked_preset(name: str | None) -> str | None:
    """The name if it is a preset's, None as it is; UserError otherwise."""
    if name is not None:
        preset_config(name)
    return name


def clip_shape(text: str) -> tuple[int, int, int]:
    """Frames, height and width out of a text such as 8x224x224. UserError for any other."""
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(size.isascii() and size.isdigit() and 0 < len(size) < 6 for size in sizes):
        raise UserError(f"--clip takes frames x height x width, for example 8x224x224, not {shown(text)}")
    frames, height, width = (int(size) for size in sizes)
    return frames, height, width
