"""Processes that decode videos; any of them may crash, hang or fill the memory, and costs its own job alone.

A decoder is a large program in C that reads files from anywhere. Each process has a pipe of its own, so that it is
always known what it was at. It is forked from a small one that has loaded the decoders, and replaced when it has ended.
"""

from __future__ import annotations

import ctypes
import gc
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

from pvnas.errors import UserError

PRELOADED = ["av", "numpy", "pvnas.data.check.examine", "pvnas.data.pack.shard"]  # by what forks the workers
JOBS_PER_WORKER = 1000  # then it is replaced, whatever its libraries have leaked
POLL_SECONDS = 0.2
START_SECONDS = 60.0
SECONDS_TO_DIE = 5.0
TRIES = 5
BARREN_STARTS = 3  # of each worker; fewer than tries, so that a machine's fault is not taken for the files'
# A scheduler ends a job by signalling all of its processes; 255: the process that forks the workers has been ended.
ENDED_FROM_OUTSIDE = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 255})
ENDED_OFTEN = f"its process was ended {TRIES} times"
PR_SET_PDEATHSIG = 1

Job = TypeVar("Job")
Result = TypeVar("Result")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Failure:
    """Why a job has no result."""

    kind: Literal["timeout", "memory", "ended", "error"]
    text: str = ""
    code: int | None = None
    """Exit code of a process that has ended; minus the number of the signal that ended it."""
    note: str = ""
    """What the process was at: the last that it told."""
    blameless: bool = False
    """Whether the process was ended by no fault of the job."""


class _Task(NamedTuple):
    job: Any
    tries: int = 1


def run_jobs(
    work: Callable[[Job, Tell], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    seconds_for: Callable[[Job], float] = lambda job: math.inf,
    memory: int = 0,
    tries: int = TRIES,
    ahead: int = 0,
    on_note: Tell = lambda note: None,
) -> Generator[tuple[Job, Result | Failure] | None, None, None]:
    """Yield each job with what ``work(job, tell)`` returns as it comes, and None now and then: time to look around.

    ``seconds_for``: how long a job may take; ``memory``: bytes that a worker may take beyond what it holds before its
    first job (0: no limit; Linux only); ``on_note`` is given what ``tell`` is in the worker; ``ahead``: jobs that wait
    in a worker, so that it need not wait for this process. A job whose process is ended by no fault of its own is tried
    again. Close the generator to end the workers early. Raises the UserError of a job, and one where none can start.
    """
    todo, again, barren = map(_Task, jobs), list[_Task](), 0
    crew = [_Worker(work, memory) for _ in range(workers)]
    try:
        while True:
            _feed(crew, todo, again, ahead)
            if not (busy := [worker for worker in crew if worker.tasks]):
                return
            ready = _ready(busy)
            for task, outcome in _finished(ready, again, seconds_for, on_note):
                blameless = isinstance(outcome, Failure) and outcome.blameless
                barren = barren + 1 if blameless else 0
                if blameless and task.tries < tries:
                    again.append(_Task(task.job, task.tries + 1))
                else:
                    yield task.job, outcome
            if barren >= BARREN_STARTS * workers:
                raise UserError("the processes that read videos end at once; is there memory and room for processes?")
            if not ready:
                yield None
    finally:
        for worker in crew:
            worker.end()


def _feed(crew: list[_Worker], todo: Iterator[_Task], again: list[_Task], ahead: int) -> None:
    """Give every worker a job, and then each of them so many ahead."""
    for depth in range(1 + ahead):
        for worker in crew:
            if len(worker.tasks) == depth and (task := again.pop() if again else next(todo, None)):
                worker.give(task)


def _finished(
    ready: list[_Worker], again: list[_Task], seconds_for: Callable[[Any], float], on_note: Tell
) -> Iterator[tuple[_Task, Any]]:
    """Yield the tasks that are at their end with their outcome; what a process leaves behind is to be done again."""
    for worker in ready:
        outcome = worker.outcome(seconds_for, on_note)
        if outcome is not None:
            task, *rest = worker.tasks
            worker.tasks = rest if worker.process else []
            again += [] if worker.process else rest
            yield task, outcome


class _Worker:
    """One process after another, as the main process sees them."""

    def __init__(self, work: Callable[..., Any], memory: int) -> None:
        self.work, self.memory = work, memory
        self.process: BaseProcess | None = None
        self.connection: Connection | None = None
        self.tasks: list[_Task] = []
        """What it is at, and what comes after that."""
        self.note, self.begun, self.ends = "", False, math.inf

    def give(self, task: _Task) -> None:
        """Let it do a job, in a process that is started if need be, after those that it has."""
        self.tasks.append(task)
        try:
            if len(self.tasks) == 1:
                self._await_begin()
                if self.process is None:
                    self._start()
            if self.connection is not None:
                self.connection.send(task.job)
        except (OSError, EOFError):  # no process more, or it has been ended
            if len(self.tasks) == 1:
                self.end()

    def _await_begin(self) -> None:
        self.note, self.begun, self.ends = "", False, time.monotonic() + START_SECONDS

    def _start(self) -> None:
        context = _Context()
        context.set_forkserver_preload(PRELOADED)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.work, self.memory), daemon=True)
        self.jobs = 0
        with _no_interrupt():
            self.process.start()
        theirs.close()

    def outcome(self, seconds_for: Callable[[Any], float], on_note: Tell) -> Any:
        """Return what has come of its job, None where it is still at it. Raises the job's UserError."""
        if self.connection is None:
            return Failure("ended", ENDED_OFTEN, blameless=True)
        if not self.connection.poll():  # its time is over
            self.end()
            return Failure("timeout" if self.begun else "ended", ENDED_OFTEN, note=self.note, blameless=not self.begun)
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self._death()
        if message is None:
            self.begun, self.ends = True, time.monotonic() + seconds_for(self.tasks[0].job)
        elif isinstance(message, str):
            self.note = message
            on_note(message)
            message = None
        elif isinstance(message, UserError):
            raise message
        else:
            self._await_begin()
            self.jobs += 1
            if self.jobs >= JOBS_PER_WORKER:
                self.end()
        return message

    def _death(self) -> Failure:
        assert self.process is not None
        self.process.join(SECONDS_TO_DIE)
        code = self.process.exitcode
        self.end()
        names = {-number: number.name for number in signal.Signals}
        how = f"was ended by {names[code]}" if code in names else f"ended with exit code {code}"
        outside = not self.begun or code in ENDED_FROM_OUTSIDE
        return Failure("ended", ENDED_OFTEN if outside else f"the decoder's process {how}", code, self.note, outside)

    def end(self) -> None:
        """Leave no process behind."""
        if self.process is not None and self.process.pid is not None:
            self.process.kill()
            self.process.join()
        if self.connection is not None:
            self.connection.close()
        self.process = self.connection = None


def _ready(busy: list[_Worker]) -> list[_Worker]:
    """Return the workers that have something to say, are gone, or whose time is over; waits a moment for one."""
    by_connection = {worker.connection: worker for worker in busy if worker.connection is not None}
    said = wait(list(by_connection), POLL_SECONDS if len(by_connection) == len(busy) else 0)
    now = time.monotonic()
    return [w for w in busy if w.connection is None or w.connection in said or now > w.ends]


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; a process started within it never sees one, its parent ends it."""
    resource_tracker.ensure_running()  # it would let signals through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process(ForkServerProcess):
    """A process that does not run the caller's script again, as multiprocessing would: it has no need of it.

    That is slow, and without an end where the script does not ask for its `__name__`.
    """

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - multiprocessing's name
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return ForkServerProcess._Popen(process)
        finally:
            sys.modules["__main__"] = script


class _Context(ForkServerContext):
    Process = _Process


# ---- in the worker


def _serve(connection: Connection, work: Callable[[Any, Tell], Any], memory: int) -> None:
    """Do the jobs that come through the pipe until the other end is gone."""
    _prepare(memory)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the command has ended
        while True:
            job = connection.recv()
            connection.send(None)
            answer: Any
            try:
                answer = work(job, connection.send)
            except UserError as error:
                answer = error
            except MemoryError:
                answer = Failure("memory")
            except Exception as error:
                answer = Failure("error", f"{type(error).__name__}: {error}")
            connection.send(answer)


def _prepare(memory: int) -> None:
    """Make this process end when it is told to or its parent is gone, and limit what it may take, in bytes."""
    import av  # noqa: F401 - what decoding needs belongs to the idle process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform != "linux":  # elsewhere no limit counts what malloc takes
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # RLIMIT_DATA counts what is written to; RLIMIT_AS would count room that is only reserved, too.
    idle = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if memory and idle is not None:
        _limit_data((int(idle[1]) << 10) + memory)


@contextmanager
def more_memory(memory: int) -> Iterator[bool]:
    """Let this process take so many bytes more inside the block; yields False where nothing limits it."""
    if sys.platform != "linux":
        yield False
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit < 0:
        yield False
        return
    _limit_data(limit + memory)
    try:
        yield True
    finally:
        gc.collect()
        with suppress(AttributeError):  # not every C library has it
            ctypes.CDLL(None).malloc_trim(0)  # what is kept would be missing under the old limit
        _limit_data(limit)


def _limit_data(limit: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
