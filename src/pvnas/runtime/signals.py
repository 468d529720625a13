"""A stop that loses nothing: a signal asks, the loop answers at its next step, and a wait ends at once."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar, Self

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
EXIT_INTERRUPTED = 130  # as shells have it: 128 and the number of SIGINT
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on later
STARTED_BY = "PVNAS_STARTED_BY"
"""Of the environment: the process with which one that it has started is to end."""


class Interrupted(BaseException):
    """A stage stopped because it was asked to, with a checkpoint behind it; the command line exits with 75.

    No Exception: it comes out of whatever waits, and what takes errors for damage must not take it for one.
    """

    exit_code = EXIT_CODE
    said_elsewhere = False
    """Whether another process of the run, which has stopped too, says it."""


class StopRequest:
    """Inside the block SIGINT, SIGTERM and SIGUSR1 set ``requested``; a second SIGINT ends the process at once.

    SIGUSR1 is what schedulers send ahead of a time limit. Outside the main thread signals cannot be caught: the block
    then only holds the flag.
    """

    missed: ClassVar[bool] = False
    """Whether Ctrl-C came before anything listened, see ``note_interrupts``."""
    listening: ClassVar[list["StopRequest"]] = []
    """Those whose blocks the main thread is in, the innermost last."""

    def __init__(self, *, speaks: bool = True) -> None:
        """``speaks``: whether a line tells of a signal; of several processes one does."""
        self.speaks = speaks
        self.requested = False
        self.waiting = False  # whether a signal raises Interrupted where the main thread is
        self._previous: dict[int, Any] = {}
        self._owner = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.requested, StopRequest.missed = StopRequest.missed, False
            self._owner = os.getpid()
            for number in STOPS:
                self._previous[number] = signal.signal(number, self._note)
            self.listening.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous:
            self.listening.remove(self)
            if self.requested and self.listening:  # it may have come too late for what was done inside
                self.listening[-1].requested = True
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            # A forked decoder worker inherits this handler. Ctrl-C reaches the whole group and is its parent's
            # business; SIGTERM, which is how its parent ends it, must end it.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        self.requested = True
        if number == signal.SIGINT:
            # The kernel's own handler: the second Ctrl-C works in the middle of a long call, too.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Not through sys.stderr's buffer: a signal may come in the middle of a write to it.
        with suppress(OSError, ValueError, AttributeError):
            if self.speaks:
                os.write(sys.stderr.fileno(), b"\nstopping after this step; Ctrl-C again leaves at once\n")
        if self.waiting:
            self.waiting = False  # once: what follows may be the saving of a checkpoint
            raise Interrupted("stopped")


def note_interrupts() -> None:
    """Let Ctrl-C end a command of ours before anything listens, whatever it is doing.

    In the middle of an import it leaves at once: packages swallow a KeyboardInterrupt there (a bare ``except``), take
    it for something that is missing, or end the process in C++; and nothing has begun that could be lost. Elsewhere it
    raises KeyboardInterrupt, as ever, and where that is swallowed the first StopRequest is asked from its beginning.
    """
    StopRequest.missed = False
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in (
        signal.default_int_handler,
        _interrupt,
    ):
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            with suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), b"\npvnas: stopped\n")
            os._exit(EXIT_INTERRUPTED)
        frame = frame.f_back
    StopRequest.missed = True
    raise KeyboardInterrupt


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, however that does; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


@contextmanager
def ends_waits() -> Iterator[None]:
    """Inside the block a stop request raises Interrupted at once, in the middle of whatever is done there.

    For waits, and for work of which nothing half-done stays: what was asked before raises at the beginning. Does
    nothing where no StopRequest listens, and in other threads than the main one.
    """
    if threading.current_thread() is not threading.main_thread() or not StopRequest.listening:
        yield
        return
    stop = StopRequest.listening[-1]
    before, stop.waiting = stop.waiting, True
    try:
        if stop.requested:
            raise Interrupted("stopped")
        yield
    finally:
        stop.waiting = before
