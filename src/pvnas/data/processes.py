"""Processes that decode videos; any of them may crash, hang or fill the memory, and costs its own job alone.

A decoder is a large program in C that reads files from anywhere. Each process has a pipe of its own, so that it is
always known what it was at. It is forked from a small one that has loaded the decoders, and replaced when it has ended.
"""

import ctypes
import gc
import math
import re
import resource
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
from typing import Any, Literal, TypeVar

from pvnas.errors import UserError
from pvnas.runtime.signals import end_with_parent, ends_waits

PRELOADED = ["av", "numpy", "pvnas.data.check.examine", "pvnas.data.pack.shard"]  # by what forks the workers
JOBS_PER_WORKER = 1000  # then it is replaced, whatever its libraries have leaked
POLL_SECONDS = 0.2
START_SECONDS = 300.0  # on a busy machine with slow disks
SECONDS_TO_DIE = 5.0
TRIES = 5
BARREN_STARTS = 3  # of each worker; fewer than tries, so that a machine's fault is not taken for the files'
# A scheduler ends a job by signalling all of its processes; 255: the process that forks the workers has been ended.
ENDED_FROM_OUTSIDE = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGUSR1, 255})
ENDED_OFTEN = f"its process was ended {TRIES} times"

BYTES_PER_DEADLINE = 60 << 20
SECONDS_PER_DEADLINE = 60.0
MORE_TIME = 5  # times the deadline that a video was too slow for: what is advised
LEAST_BYTES_PER_SECOND = 1000  # of a video: a recording of a screen on which nothing moves

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Allowed:
    """What a worker tells when it knows how long its job, or the part of it that it told last, may take."""

    seconds: float  # from the beginning of that


@dataclass(frozen=True)
class Part:
    """A piece of a worker's result, given as soon as it is there; a job that is tried again gives its pieces again."""

    value: Any


Tell = Callable[[str | Allowed | Part], None]


def allowed_seconds(deadline: float, size: int, length: float = 0.0) -> float:
    """Return the seconds that a video may take: ``deadline``, and as many more for each 60 MiB and each minute of it.

    ``size`` in bytes; ``length`` in seconds, as its header claims or its frames show: headers lie, so what no file of
    that size can hold does not count.
    """
    length = min(length, size / LEAST_BYTES_PER_SECOND)
    return deadline * (1 + size / BYTES_PER_DEADLINE + length / SECONDS_PER_DEADLINE)


def check_deadline(deadline: float) -> None:
    """Raise UserError for a deadline that cannot be meant."""
    if not 0 < deadline < 1e9:
        raise UserError(f"the deadline is in seconds, above 0, not {deadline:g}")


def too_slow(seconds: float) -> str:
    """Return what is said of a video that has taken longer than so many seconds."""
    return (
        f"decoding it takes more than {seconds:.3g} s"
        if seconds < 100
        else f"decoding it takes more than {seconds:.0f} s"
    )


@dataclass(frozen=True)
class Failure:
    """Why a job has no result."""

    kind: Literal["timeout", "memory", "ended", "error"]
    text: str = ""
    code: int | None = None  # exit code of the process; minus the number of the signal that ended it
    note: str = ""  # what the process was at: the last that it told
    blameless: bool = False  # whether the process was ended by no fault of the job
    seconds: float = math.inf  # how long the job, or the part of it that was told last, was allowed to take


def run_jobs(
    work: Callable[[Job, Tell], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    seconds_for: Callable[[Job], float] = lambda job: math.inf,
    memory: int = 0,
    tries: int = TRIES,
    on_note: Callable[[str], None] = lambda note: None,
) -> Generator[tuple[Job, Result | Failure] | None, None, None]:
    """Yield each job with what ``work(job, tell)`` returns as it comes, and None now and then: time to look around.

    What it tells as a ``Part`` is yielded before, as that, if by a worker, which waits until it is taken.

    ``workers``: processes; with none the jobs are done in this one, without limits. ``seconds_for``: how long a job may
    take; ``memory``: bytes that a worker may take beyond what it holds before its first job (0: no limit; Linux only);
    ``on_note`` is given each text that ``tell`` is in the worker: what part of the job begins, with the time of a job;
    ``tell(Allowed(seconds))`` gives it another time. A job whose process is ended by no fault of its own is tried
    again. Close the generator to end the workers early. Raises the UserError of a job, and one where none can start.
    """
    if workers < 1:
        for job in jobs:
            with ends_waits():
                result = work(job, lambda said: on_note(said) if isinstance(said, str) else None)
            yield job, result
        return
    waiting, barren = iter(jobs), 0
    crew = [_Worker(work, memory) for _ in range(workers)]
    try:
        while busy := _fed(crew, waiting):
            outcome = None
            for worker, outcome in _outcomes(busy, seconds_for, on_note):
                if isinstance(outcome, Part):
                    part: Any = outcome
                    yield worker.job, part
                    continue
                blameless = isinstance(outcome, Failure) and outcome.blameless
                barren = barren + 1 if blameless else 0
                if blameless and worker.tries < tries:
                    worker.give(worker.job, worker.tries + 1)
                else:
                    job, worker.job = worker.job, None
                    yield job, outcome
            if outcome is None or barren:  # perhaps all processes have been told to stop, this one too
                yield None
            if barren >= BARREN_STARTS * workers:
                raise UserError("the processes that read videos end at once; is there memory and room for processes?")
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """One process after another, as the main process sees them."""

    def __init__(self, work: Callable[..., Any], memory: int) -> None:
        self.work, self.memory = work, memory
        self.process: BaseProcess | None = None
        self.connection: Connection | None = None
        self.job: Any = None  # what it is at

    def give(self, job: Any, tries: int = 1) -> None:
        """Let it do a job, in a process that is started if need be."""
        self.job, self.tries = job, tries
        self.note, self.begun = "", False
        self._begin(START_SECONDS)
        try:
            (self.connection or self._start()).send(job)
        except (OSError, EOFError):  # no process more, or it has been ended
            self.end()

    def _begin(self, seconds: float) -> None:
        """Count the time of the job, or of a part of it, from now on."""
        self.since, self.seconds = time.monotonic(), seconds

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.since + self.seconds

    def _start(self) -> Connection:
        context = _Context()
        context.set_forkserver_preload(PRELOADED)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.work, self.memory), daemon=True)
        self.jobs = 0
        with _no_interrupt():
            self.process.start()
        theirs.close()
        return self.connection

    def outcome(self, seconds_for: Callable[[Any], float], on_note: Callable[[str], None]) -> Any:
        """Return what has come of its job, None where it is still at it. Raises the job's UserError."""
        if self.connection is None:
            return Failure("ended", ENDED_OFTEN, blameless=True)
        if not self.connection.poll():  # its time is over
            self.end()
            if not self.begun:
                return Failure("ended", ENDED_OFTEN, blameless=True)
            return Failure("timeout", note=self.note, seconds=self.seconds)
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self._death()
        if message is None:
            self.begun = True
            self._begin(seconds_for(self.job))
        elif isinstance(message, str):
            self.note = message
            self._begin(seconds_for(self.job))
            on_note(message)
            message = None
        elif isinstance(message, Allowed):
            self.seconds = message.seconds
            message = None
        elif isinstance(message, UserError):
            raise message
        elif isinstance(message, Part):
            self.since = time.monotonic()  # what waits for its reader is not late
        else:
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


def _fed(crew: list[_Worker], jobs: Iterator[Any]) -> list[_Worker]:
    """Give a job to each worker that has none, and return those that have one."""
    for worker in crew:
        if worker.job is None and (job := next(jobs, None)) is not None:
            worker.give(job)
    return [worker for worker in crew if worker.job is not None]


def _outcomes(
    busy: list[_Worker], seconds_for: Callable[[Any], float], on_note: Callable[[str], None]
) -> Iterator[tuple[_Worker, Any]]:
    """Yield the workers whose job has come to its end, with the outcome; waits a moment for the first."""
    connections = [worker.connection for worker in busy if worker.connection is not None]
    said = wait(connections, POLL_SECONDS if len(connections) == len(busy) else 0)
    for worker in busy:
        if worker.connection is None or worker.connection in said or worker.late:
            outcome = worker.outcome(seconds_for, on_note)
            if outcome is not None:
                yield worker, outcome


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
    end_with_parent()
    # RLIMIT_DATA counts what is written to; RLIMIT_AS would count room that is only reserved, too.
    idle = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if memory and idle is not None:
        _limit_data((int(idle[1]) << 10) + memory)


@contextmanager
def more_memory(memory: int) -> Iterator[bool]:
    """Let this process take so many bytes more inside the block; yields False where nothing limits it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform != "linux" or limit < 0:
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
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
