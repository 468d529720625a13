"""One run per directory."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import lock_descriptor, unlock_descriptor

from pvnas.errors import UserError
from pvnas.runtime.files import explained, remove_strays

FILE = ".lock"


class RunLock:
    """Holds a run directory inside the block and clears what a killed run left half-written in it.

    The lock ends with the process, however that ends; the file stays and means nothing by itself. Raises UserError that
    names the process and host of the run that holds the directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FILE
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        with explained(self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            locked = lock_descriptor(self._descriptor, blocking=False)
        except OSError as error:
            self._close()
            raise UserError(
                f"{self.path.parent}: its file system has no locks ({error.strerror}); put the run on another one"
            ) from error
        if not locked:
            self._close()
            raise UserError(
                f"{self.path.parent}: {self._holder()} is running in this directory; wait for it, or name another "
                "directory"
            )
        # A forked worker must not keep the lock when this process is killed.
        os.register_at_fork(after_in_child=self._close)
        self._write_holder()
        remove_strays(self.path.parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            unlock_descriptor(self._descriptor)  # closing is not enough while a fork is still being born
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write_holder(self) -> None:
        assert self._descriptor is not None
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        with explained(self.path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(about).encode(), 0)

    def _holder(self) -> str:
        try:
            about = json.loads(self.path.read_bytes())
            return f"process {int(about['pid'])} on {str(about['host'])[:64]} (since {str(about['since'])[:32]})"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return "another process"
