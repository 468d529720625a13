"""Making the parts of a study: some at a time here, beside other workers who share the folder.

No scheduler of our own: whoever is idle takes the next part that is not done, not held by a living process and not in
want of another one. Locks are the run directories' own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pvnas.errors import UserError
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import EXIT_CODE, STARTED_BY, Interrupted, StopRequest
from pvnas.studies.parts import Part, with_needs

POLL_SECONDS = 0.2
HELD = "is running in this directory"  # what a run says that finds another one in its directory (run_lock)


@dataclass
class Running:
    """A part that is being made here."""

    part: Part
    process: subprocess.Popen[bytes]
    place: int
    """Which of the places of this worker it takes, 0 to jobs - 1: the number of its GPU, where there are some."""
    since: float


def make_parts(parts: Sequence[Part], jobs: int, progress: Progress) -> None:
    """Make all that is not done, ``jobs`` at a time, needed parts first; wait for those that others make.

    Raises Interrupted where it is asked to stop (each run has saved then, and goes on with the same command), and at
    the end UserError that names the parts that failed.
    """
    waiting, failed, running = with_needs(parts), dict[str, str](), list[Running]()
    total = len(waiting)
    with StopRequest() as stop, _ended(running):
        while waiting or running:
            for run in [each for each in running if each.process.poll() is not None]:
                running.remove(run)
                code = run.process.returncode
                if code == EXIT_CODE or stop.requested:
                    raise Interrupted("stopped")
                reason = _failure(run, code)
                if reason == HELD:
                    continue  # somebody was quicker: it is waited for
                waiting.remove(run.part)
                if reason:
                    failed[run.part.name] = reason
                minutes = (time.monotonic() - run.since) / 60
                progress.line(
                    f"{total - len(waiting)} of {total}: {run.part.name} "
                    f"{f'failed: {reason}' if reason else 'is done'}, {minutes:.1f} min"
                )
            if stop.requested:
                raise Interrupted("stopped")
            here = {run.part.name for run in running}
            for part in [part for part in waiting if part.name not in here]:
                if part.is_done():
                    waiting.remove(part)
                elif lacking := next((needed.name for needed in part.needs if needed.name in failed), None):
                    waiting.remove(part)
                    failed[part.name] = f"needs {lacking}"
                elif len(running) < jobs and all(needed.is_done() for needed in part.needs) and not part.is_held():
                    place = min(set(range(jobs)) - {run.place for run in running})
                    running.append(Running(part, _start(part, place, jobs), place, time.monotonic()))
            time.sleep(POLL_SECONDS)
    if failed:
        first = next(iter(failed))
        raise UserError(
            f"{len(failed)} of {total} parts failed, the first: {first}: {failed[first]}; the same command "
            "tries them again"
        )


@contextmanager
def _ended(running: list[Running]) -> Iterator[None]:
    """At the end of the block ask what still runs to stop, and wait until it has saved."""
    try:
        yield
    finally:
        for run in running:
            run.process.send_signal(signal.SIGTERM)
        for run in running:
            run.process.wait()


def _start(part: Part, place: int, jobs: int) -> subprocess.Popen[bytes]:
    """Start a part: its log goes on, and it ends with this process."""
    if part.prepare is not None:
        part.prepare()
    part.log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {STARTED_BY: str(os.getpid())} | _gpu(place, jobs)
    with part.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pvnas", *part.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )


def _gpu(place: int, jobs: int) -> dict[str, str]:
    """Return the variable that gives a run a GPU of its own, where several run and there are GPUs."""
    import torch

    count = torch.cuda.device_count()
    if jobs == 1 or count == 0:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[place % len(visible)]}


def _failure(run: Running, code: int) -> str:
    """Return why a part has failed, HELD where another process makes it, empty where it is done."""
    if code == 0 and run.part.is_done():
        return ""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    lines = [line for line in run.part.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {code}, see {run.part.log}"
    return HELD if HELD in last else last.removeprefix("pvnas: error: ")
