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

from pvnas.errors import MISTAKE, UserError
from pvnas.runtime.files import IS_RUNNING_THERE
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import EXIT_CODE, STARTED_BY, Interrupted, StopRequest
from pvnas.studies.parts import Part, with_needs

POLL_SECONDS = 0.2
SECONDS_TO_NEXT_TRY = 5.0
"""After a run that found another one in its directory."""


@dataclass
class Running:
    """A part that is being made here."""

    part: Part
    process: subprocess.Popen[bytes]
    place: int
    """Which of the places of this worker it takes, 0 to jobs - 1: the number of its GPU, where there are some."""
    since: float
    log_from: int
    """Bytes of its log that were there before."""


def make_parts(parts: Sequence[Part], jobs: int, progress: Progress) -> None:
    """Make all that is not done, ``jobs`` at a time, needed parts first; wait for those that others make.

    Raises Interrupted where it is asked to stop (each run has saved then, and goes on with the same command), and at
    the end UserError that names the parts that failed.
    """
    waiting, failed, running = with_needs(parts), dict[str, str](), list[Running]()
    total, not_before = len(waiting), dict[str, float]()

    def fail(part: Part, reason: str) -> None:
        waiting.remove(part)
        failed[part.name] = reason
        progress.line(f"{total - len(waiting)} of {total}: {part.name} failed: {reason}")

    with StopRequest() as stop, _ended(running):
        while waiting or running:
            for run in [each for each in running if each.process.poll() is not None]:
                running.remove(run)
                part, code, now = run.part, run.process.returncode, time.monotonic()
                if code == EXIT_CODE or stop.requested:
                    raise Interrupted("stopped")
                if part.is_done():
                    waiting.remove(part)
                    minutes = (now - run.since) / 60
                    progress.line(f"{total - len(waiting)} of {total}: {part.name} is done, {minutes:.1f} min")
                elif part.is_held() or IS_RUNNING_THERE in (said := _said(run)):  # somebody was quicker
                    not_before[part.name] = now + SECONDS_TO_NEXT_TRY
                else:
                    fail(part, _reason(code, said, part))
            if stop.requested:
                raise Interrupted("stopped")
            here = {run.part.name for run in running}
            for part in [part for part in waiting if part.name not in here]:
                if part.is_done():
                    waiting.remove(part)
                elif lacking := next((needed.name for needed in part.needs if needed.name in failed), None):
                    fail(part, f"needs {lacking}")
                elif (
                    len(running) < jobs
                    and time.monotonic() >= not_before.get(part.name, 0.0)
                    and all(needed.is_done() for needed in part.needs)
                    and not part.is_held()
                ):
                    place = min(set(range(jobs)) - {run.place for run in running})
                    try:
                        running.append(_started(part, place, jobs))
                    except (UserError, OSError) as error:
                        fail(part, str(error))
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


def _started(part: Part, place: int, jobs: int) -> Running:
    """Start a part: its log goes on, and it ends with this process. Raises UserError and OSError where it cannot."""
    if part.prepare is not None:
        part.prepare()
    part.log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {STARTED_BY: str(os.getpid())} | _gpu(place, jobs)
    with part.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pvnas", *part.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
        return Running(part, process, place, time.monotonic(), log.tell())


def _gpu(place: int, jobs: int) -> dict[str, str]:
    """Return the variable that gives a run a GPU of its own, where several run and there are GPUs."""
    import torch

    count = torch.cuda.device_count()
    if jobs == 1 or count == 0:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[place % len(visible)]}


def _said(run: Running) -> str:
    """Return what was said in a part's log since it was started here."""
    with run.part.log.open("rb") as log:
        log.seek(run.log_from)
        return log.read().decode("utf-8", "replace")


def _reason(code: int, said: str, part: Part) -> str:
    """Return why a part has failed: its own words where it has any."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    mistakes = [line for line in said.splitlines() if line.startswith(MISTAKE)]
    return mistakes[-1].removeprefix(MISTAKE) if mistakes else f"exit code {code}, see {part.log}"
