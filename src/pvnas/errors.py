"""The errors of a run that are no mistake of the program: each is shown as a single line, never as a traceback."""


class UserError(Exception):
    """What a person can mend: what is wrong, where, and what to type next, in one line. Exit code 2."""

    said_elsewhere: bool | None = None
    """Whether another process of the run, which has raised it too, says it; None before processes have joined."""


class DivergedError(UserError):
    """A stage whose numbers are none any more."""


class TooLargeError(UserError):
    """A stage whose step asks for more memory than there is."""


class LostProcessError(Exception):
    """One of the processes that make a run together has died or hangs: which one, in one line. Exit code 69."""

    exit_code = 69  # EX_UNAVAILABLE of sysexits.h: the same command goes on from the last checkpoint
    said_elsewhere = False


NOT_ON_WINDOWS = "pvnas runs on Linux and macOS, not on Windows; use the Windows Subsystem for Linux (WSL 2)"


MISTAKE = "pvnas: error: "
"""What the line of a UserError begins with on stderr."""
