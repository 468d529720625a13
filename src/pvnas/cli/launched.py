"""A process that ``--processes`` has started, and the one that has started it. Nothing here imports torch."""

import ctypes
import os
import signal
import sys

STARTED_BY = "PVNAS_STARTED_BY"
"""Holds the number of the process that has started this one, in the environment."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_launcher() -> None:
    """Let the kernel kill this process when the one that has started it ends, however that does; on Linux alone."""
    parent = os.environ.pop(STARTED_BY, "")
    if parent and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it has ended before
            os.kill(os.getpid(), signal.SIGKILL)
