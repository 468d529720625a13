"""`pvnas doctor`: finds this machine fit, and names what is wrong with one that is not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pvnas import doctor


def found(folder: Path) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(folder)}


def test_the_command_looks_at_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pvnas", "doctor", str(tmp_path / "runs"), "--json"]
    environment = {name: value for name, value in os.environ.items() if name not in doctor.CHANGES_BITS}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    findings = {row["name"]: row for row in json.loads(ended.stdout)}
    assert ended.returncode == int(any(row["problem"] for row in findings.values()))
    for name in (
        "torch",
        "kernels",
        "decoding",
        "packing",
        "disk",
        "atomic writes",
        "locks",
        "processes",
        "environment",
    ):
        assert findings[name]["value"]
    for name in ("decoding", "packing", "atomic writes", "locks", "processes", "environment"):
        assert findings[name]["problem"] == "", findings[name]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_file_system_without_locks_or_renames_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(doctor, "lock_descriptor", refuse)
        assert doctor._tried(doctor._locks, tmp_path).problem == "two runs in one directory would not be kept apart"
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "lock_descriptor", lambda *_, **__: True)
        assert doctor._tried(doctor._locks, tmp_path).problem == "two runs in one directory are not kept apart"
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        assert "cannot be written" in doctor._tried(doctor._renames, tmp_path).problem


def test_what_changes_bits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.CHANGES_BITS:
        monkeypatch.delenv(name, raising=False)
    assert next(doctor._repeatable()).problem == ""
    monkeypatch.setenv("PVNAS_KERNELS", "0")
    finding = next(doctor._repeatable())
    assert finding.value == "PVNAS_KERNELS=0"
    assert "other last bits" in finding.problem


def test_processes_that_do_not_meet_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEETING", "raise SystemExit('no network here')")
    assert doctor._tried(doctor._processes).problem == "--processes will not work: no network here"
