"""Decode every video once before training and say what is wrong with it. Nothing here ever changes a video.

A bad video is named and left out with its count, never replaced by another one in silence. A check of a large set may
be stopped at any moment: the same command goes on where it was, and ends in the same lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from pvnas.data.catalog import Catalog
from pvnas.data.check.examine import Job, examine_within_limits, file_stamp, result_of, with_length
from pvnas.data.check.journal import open_journal
from pvnas.data.check.results import CRASHED, MEMORY, CheckResult, write_check_results
from pvnas.data.processes import Failure, run_jobs
from pvnas.data.video.container import VideoError
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress, begin
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
    paths = list(dict.fromkeys(catalog.videos.paths))
    limits = limits or Limits()
    memory = limits.memory_mib * MIB
    root = catalog.root.absolute()  # a worker must not depend on where this process stands
    results: dict[str, CheckResult] = {}

    def note(result: CheckResult) -> None:
        results[result.path] = result
        bar.advance(1)

    def heed_stop() -> None:
        if stop is not None and stop.requested:
            raise Interrupted(f"{len(results)} of {len(paths)} videos are checked")

    def unread() -> Iterator[Job]:
        """Yield the files that have to be decoded; what is known of all others is noted."""
        for path in paths:
            file = os.path.join(root, path)
            try:
                stamp = file_stamp(file)
            except VideoError as error:
                note(result_of(path, error))
            else:
                known = journal.known(path, stamp)
                if known is None:
                    yield Job(path, file, *stamp)
                    continue
                note(known)
            heed_stop()

    with (
        open_journal(out, (limits.deadline, limits.memory_mib)) as journal,
        begin(progress, "checking videos", len(paths)) as bar,
        closing(
            run_jobs(
                partial(examine_within_limits, memory=memory),
                unread(),
                max(1, min(limits.workers, len(paths))),
                seconds_for=lambda job: limits.seconds_for(job.size),
                memory=memory,
                ahead=2,
            )
        ) as answers,  # whatever ends this block ends the workers
    ):
        for answer in answers:
            if answer is not None:
                result = _result(*answer, limits)
                journal.add(result)
                note(result)
            heed_stop()
        checked = [with_length(results[path], shortest_seconds) for path in catalog.videos.paths]
        if out is not None:
            write_check_results(checked, out)
            journal.finish()
    return checked


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
