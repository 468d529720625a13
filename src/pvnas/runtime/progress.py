"""Progress on stderr: a bar with rate and time left on a terminal, one plain line per task elsewhere."""

from __future__ import annotations

import io
import os
import sys
import time
import unicodedata
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

REFRESH_SECONDS = 0.1
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, direction and other invisible characters, lone surrogates, breaks


def clean(text: object) -> str:
    """Return the text on one line with every character that could steer a terminal as ``?``.

    Tabs and line breaks become spaces. Texts are never read as markup here, so that brackets need no escape.
    """
    shown = (" " if c in "\t\r\n" else "?" if unicodedata.category(c) in _UNSAFE else c for c in str(text))
    return "".join(shown)


def shown_width(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for most characters of East Asia."""
    from rich.cells import cell_len

    return cell_len(text)


class Progress:
    """What a person who waits sees. A context: it leaves the terminal as it was.

    ``stream`` is stderr unless given. Bars appear only where it is a terminal that can draw them.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream if stream is not None else sys.stderr
        # Asked of the stream itself: rich takes FORCE_COLOR for a terminal, and would write escapes into a log file.
        self.is_terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def task(self, title: str, total: int, completed: int = 0, *, unit: str = "", summary: bool = True) -> Task:
        """Return the context of a task of ``total`` steps, of which ``completed`` were done by an earlier run.

        ``unit``: what steps are called, to show how many a second are done; else the clips that they tell of are
        shown. ``summary``: whether it prints a line about itself when it ends well.
        """
        return Task(self, clean(title), total, completed, unit, summary)

    def line(self, text: str) -> None:
        """Print one line above the bars."""
        text = clean(text)
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
            return
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self.stream, flush=True)

    def output(self, text: str, end: str = "\n") -> None:
        """Print a result on stdout, and above the bars where stdout is a terminal, too."""
        if self._bars is not None and sys.stdout.isatty():
            self._bars.console.print(text, end=end, markup=False, highlight=False, emoji=False, soft_wrap=True)
        else:
            print(text, end=end, flush=True)

    def _open(self) -> Bars | None:
        """Return the display that all open tasks share, or None where there is no terminal."""
        if not self.is_terminal:
            return None
        if self._bars is None:
            self._bars = _bars(self.stream)
            self._bars.start()
        return self._bars


def begin(progress: Progress | None, title: str, total: int) -> Task:
    """Return the context of a task of ``total`` steps, which is shown to nobody without a ``progress``."""
    return (progress or Progress(io.StringIO())).task(title, total)


class Task:
    """A task inside its block; prints one line about itself when it ends."""

    _bars: Bars | None = None
    _id: Any = None
    clips = 0

    def __init__(self, progress: Progress, title: str, total: int, completed: int, unit: str, summary: bool) -> None:
        self.progress, self.title, self.total, self.done, self.summary = progress, title, total, completed, summary
        self.completed, self.unit = completed, unit
        self._started = self._shown = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._bars = self.progress._open()
        if self._bars is not None:
            self._id = self._bars.add_task(self.title, total=self.total, completed=self.done, rate="")
            self._bars.refresh()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.remove_task(self._id)
            self._bars.refresh()
            if not self._bars.tasks:
                self.progress.__exit__()
            self._bars = None
        if self.summary or error[0]:
            self.progress.line(self._summary("stopped" if error[0] else ""))

    def advance(self, steps: int = 1, clips: int = 0) -> None:
        """Count steps that are done, and the clips that went through the network in them."""
        self.done += steps
        self.clips += clips
        now = time.monotonic()
        # Drawn from here and not by a thread of its own: the loaders fork, and a thread could hold a lock then.
        if self._bars is not None and (now - self._shown > REFRESH_SECONDS or self.done >= self.total):
            self._shown = now
            self._bars.update(self._id, completed=self.done, rate=self._rate())
            self._bars.refresh()

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        if self.unit:
            return f"{(self.done - self.completed) / seconds:.1f} {self.unit}/s"
        return f"{self.clips / seconds:.1f} clips/s" if self.clips else ""

    def _summary(self, note: str) -> str:
        seconds = f"{time.monotonic() - self._started:.1f} s"
        parts = [f"{self.done}/{self.total}", note, f"{self.clips} clips" if self.clips else "", self._rate(), seconds]
        return f"{self.title}: " + ", ".join(filter(None, parts))


def _bars(stream: TextIO) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    class KeepsCursor(Console):
        """Never hides the cursor: a process that is killed could not bring it back."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    console = KeepsCursor(file=stream, force_terminal=True)
    # Never stdout: rich would print on stderr what is meant for a file or a pipe.
    return Bars(*columns, console=console, auto_refresh=False, transient=True, redirect_stdout=False)
