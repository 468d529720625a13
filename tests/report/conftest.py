"""Fixtures of the report's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from run_directory import build_run

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Build a run directory: ``make_run(classes=[...], search_epochs=6, train_epochs=24, tested=True)``."""
    return lambda **options: build_run(tmp_path / "run", **options)
