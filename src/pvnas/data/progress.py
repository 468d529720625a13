"""How long work in this room is told of, whoever shows it: `pvnas.runtime.progress` fits, and a test's own does too."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1) -> None:
        """Say that so many more steps are done."""


class Progress(Protocol):
    """Shows pieces of work."""

    def task(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """Begin a piece of work of `total` steps; leaving the context ends it."""


class _Silent:
    def advance(self, steps: int = 1) -> None:
        """Show nothing."""


def begin(progress: Progress | None, title: str, total: int) -> AbstractContextManager[Bar]:
    """Begin a piece of work, shown or (None) not."""
    return nullcontext(_Silent()) if progress is None else progress.task(title, total)
