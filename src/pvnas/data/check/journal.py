"""Verdicts kept as they come, so that a check that is stopped or killed goes on where it was.

A line is written for each verdict; one that a kill or a power cut has torn is ignored, and its video read again. The
journal is gone when the check is finished: the list of verdicts then says the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import lock_descriptor

from pvnas.data.check.results import CSV_NAME, JSON_NAME, KINDS, CheckResult, read_check_results
from pvnas.errors import UserError
from pvnas.runtime.files import TEMPORARY, explained, is_held, write_all

JOURNAL_NAME = "verdicts.journal"
SYNC_SECONDS = 5.0  # what a power cut, but no kill, may lose


class Journal:
    """The verdicts of earlier checks in a folder, and the place for new ones; without a folder it keeps nothing.

    ``limits`` are those a verdict may be owed to: one that time or memory decided counts only under the same.
    """

    def __init__(self, descriptor: int | None = None, path: Path = Path(), limits: tuple[float, ...] = ()) -> None:
        self.path = path
        self._descriptor = descriptor
        self._synced = time.monotonic()
        self._known: dict[str, CheckResult] = {}
        if descriptor is not None:
            finished = path.with_name(JSON_NAME)
            if finished.exists():
                self._known = {v.path: v for v in read_check_results(finished) if not v.passing}
            self._known |= _replayed(descriptor, list(limits))
            self._write(json.dumps({"limits": limits}))

    def known(self, path: str, stamp: tuple[int, int]) -> CheckResult | None:
        """Return the verdict on the video if its file is still of this size in bytes and time of change in ns."""
        verdict = self._known.get(path)
        return verdict if verdict and (verdict.bytes, verdict.modified_ns) == stamp else None

    def add(self, verdict: CheckResult) -> None:
        """Keep a verdict, whatever happens to this process next."""
        if self._descriptor is not None:
            self._write(json.dumps(asdict(verdict)))

    def finish(self) -> None:
        """Remove the journal: all of it is in the list of verdicts now."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        assert self._descriptor is not None
        with explained(self.path):
            write_all(self._descriptor, f"{line}\n".encode())
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._descriptor)
                self._synced = time.monotonic()


@contextmanager
def open_journal(folder: Path | None, limits: tuple[float, ...]) -> Iterator[Journal]:
    """Yield the journal of a folder, which is made where it is missing; None: one that keeps nothing.

    Raises UserError where another check writes there, or what lies there is not ours.
    """
    if folder is None:
        yield Journal()
        return
    path = Path(folder) / JOURNAL_NAME
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # a file system without locks: two checks at once are then the person's own care
            if not lock_descriptor(descriptor, blocking=False):
                raise UserError(f"{folder}: another check writes there; wait for it, or name another folder")
        for name in (JSON_NAME, CSV_NAME):  # what a killed check was writing
            for half_written in path.parent.glob(f"{TEMPORARY}*-{name}"):
                if not is_held(half_written):
                    half_written.unlink(missing_ok=True)
        yield Journal(descriptor, path, limits)
    finally:
        os.close(descriptor)


def _replayed(descriptor: int, limits: list[float]) -> dict[str, CheckResult]:
    """Return the verdicts in a journal, and cut off a torn last line, so that the next one begins a line of its own."""
    with open(os.dup(descriptor), "rb") as file:
        file.seek(0)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.ftruncate(descriptor, whole)
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
