"""Processes that decode files under a deadline and a limit of memory, and that may die without taking the check along.

A decoder that crashes, hangs or fills the memory costs its own file a verdict; the pool goes on with the next one.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pebble import ProcessExpired, ProcessPool

from pvnas.data.check.results import CRASHED, MEMORY, CheckResult, VerdictKind
from pvnas.data.check.worker import begin, judge_within_limits
from pvnas.errors import UserError

MIB = 1 << 20
BYTES_PER_DEADLINE = 60 * MIB
FILES_PER_WORKER = 1000  # then it is replaced, whatever its libraries have leaked
QUEUED_PER_WORKER = 2
POLL_SECONDS = 0.2
STUCK_SECONDS = 30.0
TRIES = 5
BARREN_POOLS = 3  # fewer than tries, so that a machine's fault is not taken for the files'
# A scheduler ends a job by signalling all of its processes; 255: the process that forks the workers has been ended.
ENDED_FROM_OUTSIDE = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 255})


@dataclass(frozen=True)
class Limits:
    """What a check may take. Raises UserError for values that cannot be meant."""

    workers: int = 2
    """Files that are read at once, each in a process."""
    deadline: float = 60.0
    """Seconds for one file, and as many more for each 60 MiB of it."""
    memory_mib: int = 1024
    """Memory of a worker, in MiB, beyond what it holds before its first file; where the system can limit it (Linux)."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"at least 1 worker has to read videos, not {self.workers}")
        if not 0 < self.deadline < 1e9:
            raise UserError(f"the deadline is in seconds, above 0, not {self.deadline:g}")
        if self.memory_mib < 1:
            raise UserError(f"the limit of memory is in MiB, at least 1, not {self.memory_mib}")

    def seconds_for(self, size: int) -> float:
        """Return the deadline in seconds of a file of so many bytes."""
        return self.deadline * (1 + size / BYTES_PER_DEADLINE)


class Job(NamedTuple):
    """A file to judge."""

    path: str
    """As in the catalog."""
    file: str | Path
    size: int
    """Bytes."""
    modified_ns: int


def judge_files(jobs: Iterable[Job], limits: Limits) -> Generator[CheckResult | None, None, None]:
    """Yield the verdict on each file as it comes, and None now and then: time for the caller to look around.

    Close the generator to end the workers early. Raises UserError where workers cannot be started.
    """
    queue = _Queue(iter(jobs))
    barren = 0
    while queue.more():
        answers = yield from _through_one_pool(queue, limits)
        barren = 0 if answers else barren + 1
        if barren == BARREN_POOLS:
            raise UserError("the processes that read videos end at once; is there memory and room for processes?")


class _Queue:
    """Jobs to come: those whose process was ended by no fault of theirs first, then new ones."""

    def __init__(self, source: Iterator[Job]) -> None:
        self.source = source
        self.again: list[Job] = []
        self.tries: Counter[Job] = Counter()

    def more(self) -> bool:
        """Return whether any job is left."""
        if not self.again:
            self.again.extend(job for job in [next(self.source, None)] if job)
        return bool(self.again)

    def pop(self) -> Job:
        return self.again.pop()

    def retry(self, job: Job) -> bool:
        """Put a job back, unless it has had its tries."""
        self.tries[job] += 1
        if self.tries[job] < TRIES:
            self.again.append(job)
        return self.tries[job] < TRIES


def _through_one_pool(queue: _Queue, limits: Limits) -> Generator[CheckResult | None, None, int]:
    """Yield verdicts until the jobs, or the pool, are at their end; return how many came from the pool.

    What a broken pool leaves behind goes back to the queue.
    """
    waiting: dict[Future[CheckResult], Job] = {}
    answers, answered = 0, time.monotonic()
    with _pool(limits) as pool:
        while True:
            _fill(pool, queue, waiting, limits)
            if not waiting:
                return answers
            done, _ = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                job = waiting.pop(future)
                verdict = _verdict(future, job, limits)
                if verdict is not None:
                    answers, answered = answers + 1, time.monotonic()
                    yield verdict
                elif not queue.retry(job):
                    yield _bad(job, "unreadable", f"{CRASHED}: its process was ended {TRIES} times")
            yield None
            longest = max((limits.seconds_for(job.size) for job in waiting.values()), default=0.0)
            if time.monotonic() - answered > longest + STUCK_SECONDS:
                # A worker was killed while it held the pool's lock, or between taking a job and saying so.
                for job in waiting.values():
                    if not queue.retry(job):
                        yield _bad(job, "unreadable", f"{CRASHED}: no process answered for it {TRIES} times")
                return answers


def _fill(pool: ProcessPool, queue: _Queue, waiting: dict[Future[CheckResult], Job], limits: Limits) -> None:
    """Give the pool so many jobs that no worker has to wait for one; none to a broken pool."""
    while len(waiting) < QUEUED_PER_WORKER * limits.workers and queue.more():
        job = queue.pop()
        seconds = limits.seconds_for(job.size)
        try:
            future = pool.schedule(judge_within_limits, args=(job.file, limits.memory_mib * MIB), timeout=seconds)
        except RuntimeError:
            queue.again.append(job)
            return
        waiting[future] = job


def _verdict(future: Future[CheckResult], job: Job, limits: Limits) -> CheckResult | None:
    """Return what a worker has found, or what has become of it; None where another one should try."""
    error = future.exception()
    if error is None:
        # Stamped with what was seen before it was read: a file that changes meanwhile is read again next time.
        return replace(future.result(), path=job.path, bytes=job.size, modified_ns=job.modified_ns)
    if isinstance(error, TimeoutError):
        return _bad(job, "timeout", f"decoding it takes more than {limits.seconds_for(job.size):.6g} s")
    if isinstance(error, MemoryError):
        return _bad(job, "refused", f"{MEMORY}: reading it takes more than is allowed")
    if isinstance(error, ProcessExpired) and error.exitcode not in ENDED_FROM_OUTSIDE:
        return _bad(job, "unreadable", f"{CRASHED}: {_ending(error.exitcode)}")
    return None


def _bad(job: Job, kind: VerdictKind, detail: str) -> CheckResult:
    return CheckResult(job.path, kind, detail, bytes=job.size, modified_ns=job.modified_ns)


def _ending(code: int) -> str:
    """Say how a process ended."""
    names = {-number: number.name for number in signal.Signals}
    how = f"was ended by {names[code]}" if code in names else f"ended with exit code {code}"
    return f"the decoder's process {how}"


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


@contextmanager
def _pool(limits: Limits) -> Iterator[ProcessPool]:
    """Yield a pool of workers that are forked from one small process, and end them all at the end of the block."""
    context = _Context()
    context.set_forkserver_preload(["av", "numpy", "pvnas.data.check.worker", "pebble"])
    pool = ProcessPool(limits.workers, FILES_PER_WORKER, begin, (limits.memory_mib * MIB,), context)
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()
