"""The ``pvnas`` command: finds the command, parses its arguments, runs it, and turns errors into one line.

Exit codes: 0 done, 1 done and what was asked about is not in order (a check that found broken videos), 2 a mistake that
a person can mend, 75 interrupted and resumable, 130 stopped at once.
Nothing slow is imported before the command is known and its arguments are right.
"""

import io
import os
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

from pvnas.cli.launched import end_with_launcher
from pvnas.errors import MISTAKE, NOT_ON_WINDOWS, LostProcessError, UserError
from pvnas.runtime.progress import clean
from pvnas.runtime.signals import EXIT_INTERRUPTED, note_interrupts

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
SECONDS_FOR_THE_FIRST = 1.0
"""What a process of several leaves the one that speaks: whoever has started them ends all when the first has ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    if argv is None and sys.getfilesystemencoding() != "utf-8":
        # Where Python takes file names for ASCII or Latin-1, those of lists are others than those on the disk.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})
    end_with_launcher()
    note_interrupts()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what the console's encoding lacks is shown as '?'
        sys.stdout.reconfigure(errors="replace")
    if sys.platform == "win32":
        return _fail(NOT_ON_WINDOWS)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = _run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        if not _is_said_elsewhere(error):
            return _fail(str(error))
        time.sleep(SECONDS_FOR_THE_FIRST)
        return EXIT_USER_ERROR
    except LostProcessError as lost:
        if not lost.said_elsewhere:
            _fail(f"{lost}; the same command goes on from the last checkpoint")
        return lost.exit_code
    except BrokenPipeError:
        # Python flushes stdout once more at its end: give it somewhere to write to.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        print("\npvnas: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        if os.environ.get("PVNAS_TRACEBACK"):
            raise
        file = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{file}")


def _run(arguments: list[str]) -> int:
    from pvnas.cli.command import parse, without_option
    from pvnas.cli.overview import find_command, print_overview
    from pvnas.runtime.signals import Interrupted

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print_overview()
        return 0
    if arguments[0] == "--version":
        from pvnas.version import __version__

        print(f"pvnas {__version__}")
        return 0
    command, rest = find_command(arguments)
    if command is None:  # the help of a group such as `pvnas data --help`
        print_overview(arguments[0])
        return 0
    parsed = parse(command, rest)
    if parsed is None:  # help was asked for
        return 0
    processes = getattr(parsed, "processes", 1)
    if processes > 1:
        from pvnas.cli.launch import launch

        return launch(processes, without_option(arguments, "--processes"))
    try:
        return command.run(parsed) or 0
    except Interrupted as stop:
        if stop.said_elsewhere:
            time.sleep(SECONDS_FOR_THE_FIRST)
            return stop.exit_code
        same = "pvnas " + shlex.join(arguments)
        reason = clean(stop) or "stopped"
        print(f"pvnas: {reason}; to go on from here type the same command: {same}", file=sys.stderr)
        return stop.exit_code
    except UserError as error:
        error.args = (command.in_its_options(str(error)),)
        raise


def _is_said_elsewhere(error: UserError) -> bool:
    """Return whether another process says it: before they have joined, all on a host make the same mistakes."""
    if error.said_elsewhere is not None:
        return error.said_elsewhere
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) != "0"


def _fail(text: str) -> int:
    print(f"{MISTAKE}{clean(text)}", file=sys.stderr)
    return EXIT_USER_ERROR


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"pvnas: warning: {clean(message)}", file=sys.stderr)
