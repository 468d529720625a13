"""What a command of ``pvnas`` is: its arguments and its action side by side, made a command by a decorator.

A module of ``pvnas.cli.commands`` with such a function (``digest`` is the shortest) is all that a new command needs.
Every mistake in what is typed is a UserError of one line. Nothing here imports torch.
"""

import argparse
import re
import textwrap
from argparse import SUPPRESS, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pvnas import settings
from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.presets import PRESETS
from pvnas.settings import DEFAULT_PRESET, Field, all_fields

# Shown before the rest in the help of commands that take a config.
MAIN_FIELDS = (
    "search.epochs search.width train.epochs train.width train.repeat train.batch.clips_per_shard clip.short_videos "
    "seed device data.cache data.workers"
)

REQUIRED: Any = object()


@dataclass(frozen=True)
class Argument:
    """An option (its name begins with ``--``) or a positional argument."""

    name: str
    help: str
    default: Any = REQUIRED
    kind: Any = None
    """int, float, bool, str or a Literal; without it that of the default, where False makes a switch."""
    metavar: str = ""
    least: int | None = None
    """The smallest number that it takes."""
    many: bool = False
    """Whether it takes one value or more, as a list."""
    convert: Callable[[str], Any] | None = None
    """Makes a value of a text, in place of a kind."""

    @property
    def is_option(self) -> bool:
        return self.name.startswith("--")

    @property
    def is_switch(self) -> bool:
        return self.default is False and self.kind is None

    @property
    def field(self) -> Field:
        """The argument as a setting, which says what it takes."""
        example = self.default[0] if isinstance(self.default, list) else self.default
        return Field(self.name, self.kind or (type(example) if isinstance(example, int | float) else str), self.help)

    @property
    def shown(self) -> str:
        """What stands for its value in the help: ``N``, ``FILE``."""
        words = {int: "N", float: "X", bool: "true|false", str: "TEXT"}
        return self.metavar or words.get(self.field.kind) or "|".join(get_args(self.field.kind))

    @property
    def usage(self) -> str:
        """How it is typed: ``[--top N]``, ``VIDEO ...``."""
        words = [self.name] if self.is_option else []
        words += [] if self.is_switch else [self.shown]
        line = " ".join([*words, *(["..."] if self.many else [])])
        return line if self.default is REQUIRED else f"[{line}]"

    def value(self, text: str) -> Any:
        """The value that a text stands for. UserError for a wrong one."""
        if self.convert:
            return self.convert(text)
        value: Any = settings.checked(self.field, text)
        if self.least is not None and value < self.least:
            raise UserError(f"{self.name} must be at least {self.least}, not {value}")
        return value

    def add_to(self, parser: argparse._ActionsContainer, **options: Any) -> None:
        """Add it to a parser or a group of one."""
        if self.is_switch:
            parser.add_argument(self.name, action="store_true", help=self.help)
            return
        default = None if self.default is REQUIRED else self.default
        text = self.help if default is None else f"{self.help} [{_plain(default)}]"
        options = {"default": default, "metavar": self.shown, "help": text.replace("%", "%%")} | options
        nargs = "+" if self.many else None if self.is_option or self.default is REQUIRED else "?"
        action = parser.add_argument(self.name, type=self.value, nargs=nargs, **options)
        action.required = False  # what is lacking is said once all is parsed, after what is unknown


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return "x".join(map(str, value)) if isinstance(value, tuple) else settings.plain(value) or "none"  # a tuple: a clip


@dataclass(frozen=True)
class Command:
    """One command of ``pvnas``."""

    name: str
    """One word, or a group and a word (``data list``)."""
    arguments: tuple[Argument, ...]
    example: str
    """One command line, or several."""
    takes_config: bool
    """Whether every field of the config is an option; ``args.overrides`` then holds those that were typed."""
    run: Callable[[Namespace], int | None]
    """Its action; it returns an exit code where that is not 0."""

    @property
    def summary(self) -> str:
        """One line: the first of the function's docstring."""
        return (self.run.__doc__ or "").partition("\n")[0]

    def in_its_options(self, text: str) -> str:
        """A message about videos with this command's own names of options.

        What reads videos names the fields of the config, as run and train take them (``--data.allow_outside``);
        ``pvnas data list`` has ``--allow-outside`` for it.
        """
        own = {f"--data.{o.name.removeprefix('--').replace('-', '_')}": o.name for o in self.arguments if o.is_option}
        return re.sub(r"--data\.\w+", lambda match: own.get(match[0], match[0]), text)

    @property
    def usage(self) -> str:
        """How it is typed, on lines of a terminal's width."""
        arguments = sorted(self.arguments, key=lambda argument: argument.is_option)
        words = [f"pvnas {self.name}", *(argument.usage for argument in arguments)]
        words += ["[--FIELD VALUE ...]"] if self.takes_config else []
        line = " ".join(word.replace(" ", "\xa0") for word in words)  # an option and its value stay on one line
        return textwrap.fill(line, 112, subsequent_indent=" " * 9, break_on_hyphens=False).replace("\xa0", " ")


def command(
    name: str, *arguments: Argument, example: str, takes_config: bool = False
) -> Callable[[Callable[[Namespace], int | None]], Command]:
    """Make a command of a function that takes the parsed arguments; its docstring is what the help says of it."""
    return lambda run: Command(name, arguments, example, takes_config, run)


def parse(command: Command, words: Sequence[str]) -> Namespace | None:
    """The parsed arguments, or None when help was printed. UserError for any mistake."""

    def mistake(text: str) -> UserError:
        return UserError(f"pvnas {command.name}{text}; see: pvnas {command.name} --help")

    parser = build_parser(command, _preset_typed(words))
    try:
        parsed, unknown = parser.parse_known_args(words)
    except SystemExit:
        return None
    except argparse.ArgumentError as error:
        raise mistake(f": {error.argument_name}: {error.message}") from None
    except UserError as error:
        raise mistake(f": {error}") from None
    if unknown:
        raise mistake(f": {_unknown(command, unknown[0].partition('=')[0])}")
    values = vars(parsed)
    required = [argument for argument in command.arguments if argument.default is REQUIRED]
    lacking = [argument for argument in required if values[argument.name.removeprefix("--")] is None]
    if lacking:
        raise mistake(f" needs {' and '.join(argument.usage.removesuffix(' ...') for argument in lacking)}")
    parsed.overrides = {name: values[name] for name in all_fields() if name in values and name != "preset"}
    return parsed


def without_option(words: Sequence[str], name: str) -> list[str]:
    """Return the words of a command line without an option and its value."""
    left, skip = [], False
    for word in words:
        if not skip and word != name and not word.startswith(name + "="):
            left.append(word)
        skip = word == name and not skip
    return left


def _unknown(command: Command, word: str) -> str:
    if not word.startswith("-"):
        return f"one argument too many, {settings.shown(word)}"
    known = [argument.name.removeprefix("--") for argument in command.arguments if argument.is_option]
    hint = settings.nearest(word.removeprefix("--"), ["help", *known, *(all_fields() if command.takes_config else ())])
    return f"no option {settings.shown(word)}{hint.replace('did you mean ', 'did you mean --')}"


def _preset_typed(words: Sequence[str]) -> str:
    """The preset as typed, before anything is parsed: only the defaults that the help shows hang on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    preset = parser.parse_known_args(words)[0].preset
    return preset if preset in PRESETS else DEFAULT_PRESET


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(message)  # in place of the usage and the end of the process


def build_parser(command: Command, preset: str = DEFAULT_PRESET) -> argparse.ArgumentParser:
    """The parser of one command; the defaults shown for the fields of a config are the preset's."""
    parser = _Parser(
        prog=f"pvnas {command.name}",
        usage=command.usage,
        description=command.summary,
        epilog="example:\n" + textwrap.indent(command.example, "  "),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34),
        exit_on_error=False,
        allow_abbrev=False,
    )
    for argument in command.arguments:
        argument.add_to(parser)
    if command.takes_config:
        _add_fields(parser, settings.preset_config(preset))
    return parser


def _add_fields(parser: argparse.ArgumentParser, defaults: RunConfig) -> None:
    """Add each field as ``--its.name``: the main ones first, then part after part."""
    main = MAIN_FIELDS.split()
    groups = {f"main fields (defaults are those of --preset {defaults.preset})": ("", main)}
    for name, field in all_fields().items():
        if name not in (*main, "preset"):  # preset is an option of its own
            title = f"fields of {field.section}" if field.section else "other fields of the run"
            groups.setdefault(title, (settings.section_help(field.section), []))[1].append(name)
    for title, (text, names) in groups.items():
        group = parser.add_argument_group(title, text or None)
        for name in names:
            field = all_fields()[name]
            option = Argument(f"--{name}", field.help, settings.get_field(defaults, name), field.kind)
            option.add_to(group, default=SUPPRESS)  # what was not typed is left to preset and file
