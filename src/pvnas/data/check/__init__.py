"""Decode every video once before training and say what is wrong with it. Nothing here ever changes a video.

A bad video is named and left out with its count, never replaced by another one in silence. A check of a large set may
be stopped at any moment: the same command goes on where it was, and ends in the same lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pvnas.data.catalog import Catalog
from pvnas.data.check.examine import file_stamp, shortened, verdict_of
from pvnas.data.check.journal import Journal, open_journal
from pvnas.data.check.pool import Job, Limits, judge_files
from pvnas.data.check.results import CheckResult, write_check_results
from pvnas.data.progress import Bar, Progress, begin
from pvnas.data.video.container import VideoError
from pvnas.runtime.signals import Interrupted


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
    """Decode each video and return its verdict, in the catalog's order whatever the number of workers.

    A video of a single frame, or of less than `shortest_seconds` (a clip's window, say), is `short`. With a folder
    `out` the lists are written there, and what an earlier check there has found of an unchanged file is not read again,
    unless its time, its memory or a crash decided. Raises Interrupted when `stop` is requested, and UserError where
    `out` cannot be written or workers cannot be started.
    """
    paths = list(dict.fromkeys(catalog.videos.paths))
    limits = limits or Limits()
    limits = replace(limits, workers=max(1, min(limits.workers, len(paths))))
    found: dict[str, CheckResult] = {}
    with (
        open_journal(out, (limits.deadline, limits.memory_mib)) as journal,
        begin(progress, "checking videos", len(paths)) as bar,
    ):
        jobs = _unread(catalog.root, paths, journal, found, bar, stop)
        with closing(judge_files(jobs, limits)) as answers:  # whatever ends this block ends the workers
            for verdict in answers:
                if verdict is not None:
                    journal.add(verdict)
                    found[verdict.path] = verdict
                    bar.advance(1)
                _heed(stop, found, paths)
        verdicts = [_with_length(found[path], shortest_seconds) for path in catalog.videos.paths]
        if out is not None:
            write_check_results(verdicts, out)
            journal.finish()
    return verdicts


def _unread(
    root: Path, paths: list[str], journal: Journal, found: dict[str, CheckResult], bar: Bar, stop: Stop | None
) -> Iterator[Job]:
    """Yield the files that have to be decoded; the verdicts on all others go to `found`."""
    base = os.fspath(root)
    for path in paths:
        file = os.path.join(base, path)
        try:
            stamp = file_stamp(file)
        except VideoError as error:
            found[path] = verdict_of(path, error)
        else:
            known = journal.known(path, stamp)
            if known is None:
                yield Job(path, file, *stamp)
                continue
            found[path] = known
        bar.advance(1)
        _heed(stop, found, paths)


def _heed(stop: Stop | None, found: dict[str, CheckResult], paths: list[str]) -> None:
    if stop is not None and stop.requested:
        raise Interrupted(f"{len(found)} of {len(paths)} videos are checked")


def _with_length(verdict: CheckResult, shortest_seconds: float) -> CheckResult:
    """Return the verdict with ok and short told apart, whatever length an earlier check asked for."""
    if verdict.verdict not in ("ok", "short"):
        return verdict
    kind, detail = shortened(verdict, shortest_seconds)
    return replace(verdict, verdict=kind, detail=detail)
