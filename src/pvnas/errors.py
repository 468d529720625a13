"""The one error that a person can mend: shown as a single line, exit code 2, never a traceback."""


class UserError(Exception):
    """What is wrong, where, and what to type next, in one line."""


NOT_ON_WINDOWS = "pvnas runs on Linux and macOS, not on Windows; use the Windows Subsystem for Linux (WSL 2)"
