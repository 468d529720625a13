"""Decode every video once before training and say what is wrong with it. Nothing here ever changes a video.

A bad video is named and left out with its count, never replaced by another one in silence. A check of a large set may
be stopped at any moment: the same command goes on where it was, and ends in the same lists.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from pvnas.data.catalog import Catalog
from pvnas.data.check.examine import Job, examine_within_limits, file_stamp, result_of, with_length
from pvnas.data.check.journal import Journal, open_journal
from pvnas.data.check.results import CRASHED, MEMORY, CheckResult, write_check_results
from pvnas.data.processes import Failure, run_jobs
from pvnas.data.video.container import VideoError
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress, Task, begin
from pvnas.runtime.signals import Interrupted

MIB = 1 << 20
BYTES_PER_DEADLINE = 60 * MIB


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


class Stop(Protocol):
    """Says whether the check should end early: `pvnas.runtime.signals.StopRequest` fits."""

    @property
    def requested(self) -> bool: ...


def check_videos(
    catalog: Catalog,
    limits: Limits | None = None,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
    shortest_seconds: float = 0.0,
    stop: Stop | None = None,
) -> list[CheckResult]:
    """Decode each video and return what was found, in the catalog's order whatever the number of workers.

    A video of a single frame, or of less than `shortest_seconds` (a clip's window, say), is `short`. With a folder
    `out` the lists are written there, and what an earlier check there has found of an unchanged file is not read again,
    unless its time, its memory or a crash decided. Raises Interrupted when `stop` is requested, and UserError where
    `out` cannot be written or workers cannot be started.
    """
    limits, paths = limits or Limits(), list(dict.fromkeys(catalog.videos.paths))
    with (
        open_journal(out, (limits.deadline, limits.memory_mib)) as journal,
        begin(progress, "checking videos", len(paths)) as bar,
    ):
        state = _State(len(paths), bar, stop)
        jobs = _unread(catalog.root.absolute(), paths, journal, state)
        with closing(_examined(jobs, len(paths), limits)) as answers:  # whatever ends this block ends the workers
            for result in answers:
                if result is not None:
                    journal.add(result)
                    state.add(result)
                state.heed_stop()
        checked = [with_length(state.results[path], shortest_seconds) for path in catalog.videos.paths]
        if out is not None:
            write_check_results(checked, out)
            journal.finish()
    return checked


def _examined(jobs: Iterator[Job], files: int, limits: Limits) -> Generator[CheckResult | None, None, None]:
    """Yield what was found in each file as it comes, and None now and then."""
    memory = limits.memory_mib * MIB
    work, workers = partial(examine_within_limits, memory=memory), max(1, min(limits.workers, files))
    answers = run_jobs(
        work, jobs, workers, seconds_for=lambda job: limits.seconds_for(job.size), memory=memory, ahead=2
    )
    with closing(answers):
        for answer in answers:
            yield None if answer is None else _result(*answer, limits)


class _State:
    """What is known so far."""

    def __init__(self, total: int, bar: Task, stop: Stop | None) -> None:
        self.total, self.bar, self.stop = total, bar, stop
        self.results: dict[str, CheckResult] = {}

    def add(self, result: CheckResult) -> None:
        self.results[result.path] = result
        self.bar.advance(1)

    def heed_stop(self) -> None:
        if self.stop is not None and self.stop.requested:
            raise Interrupted(f"{len(self.results)} of {self.total} videos are checked")


def _unread(root: Path, paths: Iterable[str], journal: Journal, state: _State) -> Iterator[Job]:
    """Yield the files that have to be decoded; what is known of all others is added to the state."""
    for path in paths:
        file = os.path.join(root, path)  # absolute: a worker must not depend on where this process stands
        try:
            stamp = file_stamp(file)
            known = journal.known(path, stamp)
        except VideoError as error:
            known = result_of(path, error)
        if known is None:
            yield Job(path, file, *stamp)
        else:
            state.add(known)
            state.heed_stop()


def _result(job: Job, answer: CheckResult | Failure, limits: Limits) -> CheckResult:
    """Return what a worker has found, or what has become of it."""
    if isinstance(answer, CheckResult):
        result = answer
    elif answer.kind == "timeout":
        result = CheckResult("", "timeout", f"decoding it takes more than {limits.seconds_for(job.size):.6g} s")
    elif answer.kind == "memory":
        result = CheckResult("", "refused", f"{MEMORY}: reading it takes more than is allowed")
    else:
        result = CheckResult("", "unreadable", f"{CRASHED}: {answer.text}")
    # Stamped with what was seen before it was read: a file that changes meanwhile is read again next time.
    return replace(result, path=job.path, bytes=job.size, modified_ns=job.modified_ns)
