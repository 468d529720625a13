"""Decode every video once before training and say what is wrong with it. Nothing here ever changes a video.

A bad video is named and left out with its count, never replaced by another one in silence. A check may be stopped at
any moment: the same command goes on where it was, and ends in the same lists. For that each verdict is a line of a
journal, which is gone when the lists are there; one that a kill or a power cut has torn is ignored.
"""

import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from filelock import lock_descriptor

from pvnas.data.catalog import Catalog, VideoTable
from pvnas.data.check.examine import (
    PICTURES,
    Job,
    examine_within_limits,
    file_stamp,
    outcome_of,
    result_of,
    with_length,
)
from pvnas.data.check.results import CSV_NAME, JSON_NAME, KINDS, CheckResult, read_check_results, write_check_results
from pvnas.data.processes import allowed_seconds, check_deadline, run_jobs
from pvnas.data.video.decode import DEFAULT_RATE, VideoError
from pvnas.errors import UserError
from pvnas.runtime.files import TEMPORARY, explained, is_held, write_all
from pvnas.runtime.progress import Progress, begin
from pvnas.runtime.signals import Interrupted, StopRequest

MIB = 1 << 20
JOURNAL_NAME, JOURNAL_OF_PART = "verdicts.journal", "verdicts-{}-of-{}.journal"
SYNC_SECONDS = 5.0  # what a power cut, but no kill, may lose


@dataclass(frozen=True)
class Limits:
    """What a check may take. Raises UserError for values that cannot be meant."""

    workers: int = 2  # files that are read at once, each in a process
    deadline: float = 60.0  # seconds for one video, and as many more for each minute and each 60 MiB of it
    memory_mib: int = 1024  # MiB of a worker, beyond what it holds before its first file; only on Linux

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"at least 1 worker has to read videos, not {self.workers}")
        check_deadline(self.deadline)
        if self.memory_mib < 1:
            raise UserError(f"the limit of memory is in MiB, at least 1, not {self.memory_mib}")

    def seconds_for(self, size: int, length: float = 0.0) -> float:
        """Return the deadline in seconds of a video of so many bytes and seconds."""
        return allowed_seconds(self.deadline, size, length)


def check_videos(
    catalog: Catalog,
    limits: Limits | None = None,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
    shortest_seconds: float = 0.0,
    part: tuple[int, int] | None = None,
    stop: StopRequest | None = None,
) -> list[CheckResult]:
    """Decode each video and return what was found, in the catalog's order whatever the number of workers.

    ``part`` (3, 16): only the third of sixteen parts of the files, beside others that check the other parts into the
    same folder; the same call without a part then reads what is missing, and writes the lists.

    A file is decoded once for all of its segments. A video of one frame, or of less than `shortest_seconds` (a clip's
    window, say), is `short`. With a folder `out` the lists are written there, and of what an earlier check there has
    found only what time, memory or a crash decided is read again. Raises Interrupted when `stop` is requested,
    UserError where `out` or workers cannot be had.
    """
    limits, rows = limits or Limits(), _rows_of_files(catalog.videos)
    if part is not None:
        rows = dict(list(rows.items())[part[0] - 1 :: part[1]])
        catalog = catalog.take(sorted(chain.from_iterable(rows.values())))
        rows = _rows_of_files(catalog.videos)
    videos = len(set(catalog.videos.names))
    results, memory = dict[str, CheckResult](), limits.memory_mib * MIB
    with open_journal(out, limits, part) as journal, begin(progress, "checking videos", videos) as bar:

        def add(found: list[CheckResult]) -> None:
            results.update({result.path: result for result in found})
            bar.advance(len(found))
            if stop is not None and stop.requested:
                raise Interrupted(f"{len(results)} of {videos} videos are checked")

        work = partial(examine_within_limits, memory=memory, seconds_for=limits.seconds_for)
        workers = max(1, min(limits.workers, len(rows)))
        jobs = _unread(catalog, rows, journal, add)
        answers = run_jobs(work, jobs, workers, seconds_for=lambda job: limits.seconds_for(job.size), memory=memory)
        with closing(answers):  # whatever ends this block ends the workers
            for answer in answers:
                found = outcome_of(*answer) if answer else []
                for result in found:
                    journal.add(result)
                add(found)
        checked = [with_length(results[name], shortest_seconds) for name in catalog.videos.names]
        if out is not None and part is None:
            write_check_results(checked, out)
            for path in (journal.path, *out.glob(JOURNAL_OF_PART.format("*", "*"))):
                path.unlink(missing_ok=True)  # all of it is in the list now
    return checked


def _rows_of_files(videos: VideoTable) -> dict[str, list[int]]:
    """Return the rows of each file's videos: several of them where they are segments."""
    rows: dict[str, list[int]] = {}
    for row, path in enumerate(videos.paths):
        rows.setdefault(path, []).append(row)
    return rows


def _unread(
    catalog: Catalog, rows: dict[str, list[int]], journal: "Journal", add: Callable[[list[CheckResult]], None]
) -> Iterator[Job]:
    """Yield the files that have to be decoded; what is known of all others is added to the results."""
    rate = catalog.frame_rate
    root = catalog.root.absolute()  # a worker must not depend on where this process stands
    for path, rows_of_file in rows.items():
        file = os.path.join(root, path)
        videos = {video.name: video for video in map(catalog.videos.__getitem__, rows_of_file)}
        try:
            stamp = file_stamp(file)
            known = {name: journal.known(name, stamp, rate) for name in videos}
        except VideoError as error:
            known = {name: result_of(name, error) for name in videos}
        unknown = [video for name, video in videos.items() if known[name] is None]
        if unknown:
            yield Job(path, file, *stamp, tuple((video.name, video.start, video.end) for video in unknown), rate)
        if len(unknown) < len(videos):
            add([result for result in known.values() if result is not None])


# ---- what is known already


class Journal:
    """The verdicts of earlier checks in a folder, and the place for new ones; without a folder it keeps nothing.

    ``limits`` are those a verdict may be owed to: one that time or memory decided counts only under the same.
    """

    def __init__(
        self, limits: Limits, path: Path = Path(), file: io.FileIO | None = None, others: Sequence[io.FileIO] = ()
    ) -> None:
        """``others``: the journals of parts."""
        self.path, self._file, self._synced = path, file, time.monotonic()
        self._known: dict[str, CheckResult] = {}
        if file is not None:
            finished = path.with_name(JSON_NAME)
            if finished.exists():
                self._known = {v.path: v for v in read_check_results(finished) if not v.passing}
            under = [limits.deadline, limits.memory_mib]
            for journal in (*others, file):
                self._known |= _replayed(journal, under)
            self._write({"limits": under})

    def known(self, name: str, stamp: tuple[int, int], frame_rate: float = DEFAULT_RATE) -> CheckResult | None:
        """Return the verdict on a video if its file is still of this size in bytes and time of change in ns.

        And if it is no folder of pictures that were shown at another rate.
        """
        verdict = self._known.get(name)
        if verdict and verdict.codec == PICTURES and verdict.rate != frame_rate:
            return None
        return verdict if verdict and (verdict.bytes, verdict.modified_ns) == stamp else None

    def add(self, verdict: CheckResult) -> None:
        """Keep a verdict, whatever happens to this process next."""
        self._write(asdict(verdict))

    def _write(self, row: dict[str, object]) -> None:
        if self._file is None:
            return
        with explained(self.path):
            write_all(self._file.fileno(), f"{json.dumps(row)}\n".encode())
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()


@contextmanager
def open_journal(folder: Path | None, limits: Limits, part: tuple[int, int] | None = None) -> Iterator[Journal]:
    """Yield the journal of a folder, which is made where it is missing; None: one that keeps nothing.

    A part has one of its own; that of the whole knows what those of parts hold.

    Raises UserError where another check writes there, or what lies there is not ours.
    """
    if folder is None:
        yield Journal(limits)
        return
    path = Path(folder) / (JOURNAL_NAME if part is None else JOURNAL_OF_PART.format(*part))
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.FileIO(path, "a+")
    with file:
        with suppress(OSError):  # a file system without locks: two checks at once are then the person's own care
            if not lock_descriptor(file.fileno(), blocking=False):
                raise UserError(f"{folder}: another check writes there; wait for it, or name another folder")
        if part is not None:
            yield Journal(limits, path, file)
            return
        for name in (JSON_NAME, CSV_NAME):  # what a killed check was writing
            for half_written in path.parent.glob(f"{TEMPORARY}*-{name}"):
                if not is_held(half_written):
                    half_written.unlink(missing_ok=True)
        parts = sorted(folder.glob(JOURNAL_OF_PART.format("*", "*")))
        if running := [path.name for path in parts if is_held(path)]:
            raise UserError(f"{folder}: a part is still being checked ({running[0]}); wait for it")
        with ExitStack() as opened:
            yield Journal(limits, path, file, [opened.enter_context(io.FileIO(part, "r+")) for part in parts])


def _replayed(file: io.FileIO, limits: list[float]) -> dict[str, CheckResult]:
    """Return the verdicts in a journal, and cut off a torn last line, so that the next one begins a line of its own."""
    file.seek(0)
    data = file.readall()
    whole = data.rfind(b"\n") + 1
    file.truncate(whole)
    results: dict[str, CheckResult] = {}
    written_under: object = None
    for line in data[:whole].splitlines():
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            row = json.loads(line)
            if "limits" in row:
                written_under = row["limits"]
                continue
            result = CheckResult(**row)
            if result.verdict in KINDS and (written_under == limits or not result.passing):
                results[result.path] = result
    return results
