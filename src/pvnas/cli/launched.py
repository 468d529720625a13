"""A process that ``--processes`` has started, and the one that has started it. Nothing here imports torch."""

import os
import signal

from pvnas.runtime.signals import end_with_parent

STARTED_BY = "PVNAS_STARTED_BY"
"""Holds the number of the process that has started this one, in the environment."""


def end_with_launcher() -> None:
    """Let this process end with the one that has started it for ``--processes``; on Linux alone."""
    parent = os.environ.pop(STARTED_BY, "")
    if parent:
        end_with_parent()
        if os.getppid() != int(parent):  # it has ended before
            os.kill(os.getpid(), signal.SIGKILL)
