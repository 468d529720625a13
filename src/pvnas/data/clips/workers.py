"""The worker processes of a loader: what ends them, and the shared memory in which what they have made lies.

Linux keeps shared memory in /dev/shm; a container has 64 MiB of it unless it was given more.
"""

import errno
import math
import multiprocessing.queues
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from pvnas.errors import UserError
from pvnas.runtime.memory import shown_bytes

FOLDER = Path("/dev/shm")
MIB = 1 << 20
AHEAD = 2  # items that each worker makes before they are asked for, where there is room
IN_USE = 2  # items that the main process holds: one is being used, one may be on its way to a GPU
FILES_OF_SENDING = 10  # that a process opens, at most, to send a batch or to receive one
INSTEAD = "or decode in the main process: --data.workers 0"
TOO_MANY_FILES = f"too many open files for worker processes: allow more (ulimit -n 65536), {INSTEAD}"


def items_ahead(workers: int, item_bytes: int) -> int:
    """Return how many items of this size each worker may make ahead: AHEAD, or 1 where there is no room for more.

    Raises UserError where there is not even that, or no shared memory at all.
    """
    free = free_bytes()
    for ahead in (AHEAD, 1):
        if (workers * ahead + IN_USE) * item_bytes <= free:
            return ahead
    needed = (workers * AHEAD + IN_USE) * item_bytes
    fewer = int(free / item_bytes) - IN_USE
    alone = f"or read with fewer processes: --data.workers {fewer}" if fewer > 0 else INSTEAD
    raise UserError(
        f"{FOLDER} has {shown_bytes(free)} free, and the batches of {workers} worker processes take "
        f"{shown_bytes(needed)}: give it more (docker run --shm-size={math.ceil(needed / MIB) + 64}m, or "
        f"--ipc=host), {alone}"
    )


def free_bytes() -> float:
    """Return how much shared memory is free; infinity where it has no limit. Raises UserError where there is none."""
    if sys.platform != "linux":
        return math.inf
    try:
        found = os.statvfs(FOLDER)
    except OSError as error:
        raise UserError(
            f"worker processes need {FOLDER} ({error.strerror}): mount it (mount -t tmpfs tmpfs {FOLDER}), {INSTEAD}"
        ) from None
    return found.f_bavail * found.f_frsize if found.f_blocks else math.inf


def shared(item: Any) -> Any:
    """Return an item, a tensor or a dataclass with tensors and tuples of them, with those in shared memory.

    Here and not when the item is sent: that is done by a thread whose errors nobody hears. Raises UserError where there
    is no room.
    """
    try:
        for value in (item, *getattr(item, "__dict__", {}).values()):
            for tensor in value if isinstance(value, tuple) else (value,):
                if isinstance(tensor, Tensor):
                    tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        raise UserError(explained_want(str(error)) or f"a batch cannot be put into shared memory: {error}") from None
    return item


def explained_want(error: str) -> str:
    """Return what an error of PyTorch's shared memory means and what to do; empty for any other error."""
    if os.strerror(errno.EMFILE) in error:
        return TOO_MANY_FILES
    if "shared memory" in error or "Bus error" in error or "/torch_" in error:
        return (
            f"{FOLDER} is too small for the batches: give it more (docker run --shm-size=2g, or --ipc=host), {INSTEAD}"
        )
    return ""


def lacks_files() -> bool:
    """Return whether this process may not open the files that a batch is sent by.

    What fails for want of them has many errors: no temporary directory is one of them.
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(FILES_OF_SENDING))
    except OSError as error:
        return error.errno == errno.EMFILE
    finally:
        for number in opened:
            os.close(number)
    return False


def prepare_worker(number: int) -> None:
    """Let this worker process end when its parent says so, or when what it has made cannot be sent, and not before.

    Else the main process would wait for ever, or lose steps: a scheduler, and the command `timeout`, send SIGTERM to
    all processes of a run, of which the main one alone knows how to stop. The exit code EMFILE tells it that this one
    may not open the files that it needs.
    """

    def end(error: Exception, item: Any) -> NoReturn:
        os.write(sys.stderr.fileno(), f"pvnas: a batch cannot be sent: {error}\n".encode(errors="replace"))
        os._exit(errno.EMFILE if lacks_files() else 1)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """Wait for SIGTERM of the parent, which a handler could not tell from others', and end this process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


@contextmanager
def not_ended_while_started() -> Iterator[None]:
    """Hold SIGTERM back inside the block: worker processes that are started there begin with it held back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
