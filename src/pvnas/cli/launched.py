"""A process that ``--processes`` or a study has started ends with that. Nothing here imports torch."""

import os
import signal

from pvnas.runtime.signals import STARTED_BY, end_with_parent


def end_with_launcher() -> None:
    """Let this process end with the one that has started it; on Linux alone."""
    parent = os.environ.pop(STARTED_BY, "")
    if parent:
        end_with_parent()
        if os.getppid() != int(parent):  # it has ended before
            os.kill(os.getpid(), signal.SIGKILL)
