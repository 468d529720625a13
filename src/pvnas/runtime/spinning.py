"""How long threads that wait for each other spin before they sleep: long on a quiet machine, hardly on a crowded one.

GCC's OpenMP runtime (libgomp), which PyTorch brings on Linux, lets a thread that waits at a barrier spin for some
milliseconds. With a core for each thread that is fastest. Beside other busy processes it takes the core from the very
thread that is waited for, and a step takes twenty times as long. The runtime spins for microseconds while it
manages more threads than this process has cores (config/linux/wait.h of libgomp). So as long as threads are seen to
queue for a core, idle ones are kept beside them, which count and cost nothing.
"""

import ctypes
import os
import sys
import threading
import time
from contextlib import suppress
from functools import cache

import torch

from pvnas.runtime.device import usable_cores

SECONDS_BETWEEN_LOOKS = 0.2  # each takes microseconds for a thread
# Seconds that all threads together queue for a core, in a second. Where nothing else runs it is up to 0.1;
# beside one busy loop on two cores it is 0.4 and more, however the threads wait.
CROWDED, QUIET = 0.25, 0.1


@cache
def adapt_spinning() -> bool:
    """Watch from now on how crowded the machine is, and let OpenMP's threads wait accordingly.

    Returns whether that can be done: on Linux with GCC's runtime, unless GOMP_SPINCOUNT or OMP_WAIT_POLICY in the
    environment already says how threads wait. Asked again, it does nothing more.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys() or not _has_gcc_runtime() or not queued_seconds():
        return False
    threading.Thread(target=_watch, name="pvnas-spinning", daemon=True).start()
    return True


def _watch() -> None:
    crowding, idle = Crowding(), None
    while True:
        crowded = crowding.look(queued_seconds(), time.monotonic())
        if crowded and idle is None:
            idle = IdleThreads()
        elif not crowded and idle is not None:
            idle.end()
            idle = None
        time.sleep(SECONDS_BETWEEN_LOOKS)


class Crowding:
    """Whether this process's threads have to queue for cores."""

    def __init__(self) -> None:
        self.crowded = False
        self._queued: dict[str, float] = {}
        self._looked = 0.0

    def look(self, queued: dict[str, float], now: float) -> bool:
        """Return whether the machine is crowded, from ``queued_seconds`` and the time (seconds) since the last look."""
        seconds = sum(queued[thread] - self._queued[thread] for thread in queued.keys() & self._queued.keys())
        share = seconds / (now - self._looked)
        self._queued, self._looked = queued, now
        self.crowded = share > (QUIET if self.crowded else CROWDED)
        return self.crowded


class IdleThreads:
    """One thread more than there are cores, asleep, in a team of the OpenMP runtime's, until the end is asked for."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pvnas-idle", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        # A parallel region in which every thread calls free(NULL), which does nothing. Its team lives as long as the
        # thread that has begun it.
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)
        _torch_library().GOMP_parallel(nothing, None, usable_cores() + 1, 0)
        self._end.wait()

    def end(self) -> None:
        """Let them go."""
        self._end.set()
        self._thread.join()


def queued_seconds() -> dict[str, float]:
    """Return for each thread of this process how long it has queued for a core (s); empty where nobody counts that."""
    seconds = {}
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError, ValueError, IndexError), open(f"/proc/self/task/{thread}/schedstat") as numbers:
                seconds[thread] = int(numbers.read().split()[1]) / 1e9
    return seconds


@cache
def _torch_library() -> ctypes.CDLL:
    """PyTorch's library; functions of what it depends on are found through it, too."""
    return ctypes.CDLL(torch._C.__file__)


def _has_gcc_runtime() -> bool:
    # LLVM's and Intel's runtime has functions of these names as well, but others of its own beside them.
    return (
        sys.platform == "linux"
        and hasattr(_torch_library(), "GOMP_parallel")
        and not hasattr(_torch_library(), "__kmpc_fork_call")
    )
