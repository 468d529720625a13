"""Processes that read videos, and what ends them."""

from __future__ import annotations

import os
import signal

import pytest

from pvnas.data.processes import BARREN_STARTS, Tell, run_jobs
from pvnas.errors import UserError


def end_itself(_job: int, _tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_while_processes_are_ended_the_caller_can_look_around_before_it_is_an_error() -> None:
    """A batch system that stops a job signals all of its processes: the caller may have been told to stop as well."""
    seen: list[object] = []
    with pytest.raises(UserError, match="end at once"):
        seen.extend(run_jobs(end_itself, range(2), workers=1))
    assert len(seen) >= BARREN_STARTS
    assert set(seen) == {None}
