"""What runs in a process that decodes files for the check: its end, its limit of memory, and the verdict under it."""

from __future__ import annotations

import ctypes
import gc
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

from pvnas.data.check.examine import judge
from pvnas.data.check.results import MEMORY, CheckResult

PR_SET_PDEATHSIG = 1


def begin(memory: int) -> None:
    """Prepare the process: it ends when it is told to or its parent is gone, and may take so many bytes more."""
    import av  # noqa: F401 - what decoding needs belongs to the idle process

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform != "linux":  # elsewhere no limit counts what malloc takes
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # RLIMIT_DATA counts what is written to; RLIMIT_AS would count room that is only reserved, too.
    idle = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if idle is not None:
        _limit_data((int(idle[1]) << 10) + memory)


def judge_within_limits(file: str | Path, memory: int) -> CheckResult:
    """Return the verdict on a file, refused where it needs more memory than the process may take (in bytes).

    FFmpeg takes memory that it does not get for damage of the video, and goes on: what seems damaged is read once more
    with twice the memory. What is damaged is so again; what was short of memory gets further.
    """
    verdict = judge(file)
    if sys.platform != "linux" or verdict.verdict in ("ok", "refused"):
        return verdict
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit < 0:
        return verdict
    _limit_data(limit + memory)
    try:
        again = judge(file)
    finally:
        gc.collect()
        with suppress(AttributeError):  # not every C library has it
            ctypes.CDLL(None).malloc_trim(0)  # what is kept would be missing under the old limit
        _limit_data(limit)
    if again == verdict:
        return verdict
    return CheckResult("", "refused", f"{MEMORY}: decoding it takes more than is allowed")


def _limit_data(limit: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
