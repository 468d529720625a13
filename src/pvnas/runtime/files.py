"""Files that are whole or not there (written aside, flushed to the disk, renamed), and one run per directory.

Whatever is written aside has a name that starts with TEMPORARY and is locked by its writer, so that what a killed
process left behind can be told from what another process is writing now.
"""

import errno
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from pvnas.errors import UserError

TEMPORARY, LOCK = ".tmp-", ".lock"
IS_RUNNING_THERE = "is running in this directory"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomic(path: str | Path, data: bytes | str) -> None:
    r"""Write a file such that a kill or a power cut leaves the old content or the new one.

    Text is written as UTF-8, and what is none in it, of a file name of other bytes, as ``\udcff``.

    Missing folders are made. Raises UserError when the disk is full or the place cannot be written; the old file is
    intact then.
    """
    path = Path(path)
    with explained(path):
        make_folder(path.parent)
        with new_file(path) as descriptor:
            write_all(descriptor, data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Yield a descriptor to write a file that gets its name, on the disk, when the block ends well, and else is gone.

    Raises UserError when the disk is full or the place cannot be written.
    """
    temporary = temporary_path(path)
    with explained(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with _named_at_the_end(temporary, descriptor, path):
        yield descriptor


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Write a new folder with these files such that it is there with all of them or not at all.

    Raises OSError, or UserError where it cannot get its name.
    """
    temporary = temporary_path(path)
    os.mkdir(temporary)
    with _named_at_the_end(temporary, os.open(temporary, os.O_RDONLY | os.O_CLOEXEC), path):
        for name, content in files.items():
            with opened(temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
                write_all(file, content)
                os.fsync(file)


@contextmanager
def _named_at_the_end(temporary: Path, descriptor: int, path: Path) -> Iterator[None]:
    """Hold what is written under a temporary name inside the block; then it gets its own, or goes where that failed."""
    try:
        hold(descriptor)
        yield
        with explained(path):
            os.fsync(descriptor)
            os.rename(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            _remove(temporary)
        raise
    finally:
        os.close(descriptor)


def remove_folder(path: Path) -> None:
    """Remove a folder such that it is never seen with a part of its files. Raises OSError."""
    temporary = temporary_path(path)
    os.rename(path, temporary)
    _remove(temporary)


def remove_strays(folder: Path) -> None:
    """Remove what killed writers left in a folder and below it; what cannot be removed stays."""
    for path in list(folder.rglob(TEMPORARY + "*")):
        with suppress(OSError):
            if not is_held(path):
                _remove(path)


def temporary_path(path: Path) -> Path:
    """Return a new name beside ``path`` (a rename must not cross file systems)."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")


def make_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it, and flush their names to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: a rename is safe only then."""
    with opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or folder, in this process alone, and give its descriptor."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write everything: one call of the system may take less."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def hold(descriptor: int) -> None:
    """Mark an open file or folder as being written; the mark ends with the process, however that ends."""
    with suppress(OSError):  # a file system without locks
        lock_descriptor(descriptor, blocking=False)


def is_held(path: Path) -> bool:
    """Return whether a living process is writing this file or folder."""
    if path.is_symlink() or not path.exists():
        return False
    # NFS locks only what is open for writing, and a folder cannot be.
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    with suppress(OSError), opened(path, flags) as descriptor:
        return not lock_descriptor(descriptor, blocking=False)
    return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a UserError that says what could not be written and what to do."""
    try:
        yield
    except OSError as error:
        todo = "free some space" if error.errno in _FULL else "make the folder writable, or name another one"
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{path}: cannot be written ({reason}); what was there before is intact; {todo}, then type the same "
            "command again"
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run directory inside the block and clear what a killed run left half-written in it.

    The lock ends with the process, however that ends; the file stays and means nothing by itself. Raises UserError that
    names the process and host of the run that holds the directory.
    """
    path = run_dir / LOCK
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            locked = lock_descriptor(descriptor, blocking=False)
        except OSError as error:
            raise UserError(
                f"{run_dir}: its file system has no locks ({error.strerror}); put the run on another one"
            ) from error
        if not locked:
            raise UserError(f"{run_dir}: {_holder(path)} {IS_RUNNING_THERE}; wait for it, or name another directory")
        # A forked worker must not keep the lock when this process is killed.
        os.register_at_fork(after_in_child=stack.close)
        owner = os.getpid()
        about = {"pid": owner, "host": socket.gethostname(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        with explained(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(about).encode(), 0)
        remove_strays(run_dir)
        try:
            yield
        finally:
            if os.getpid() == owner:  # not a fork that leaves the block
                os.ftruncate(descriptor, 0)
                unlock_descriptor(descriptor)  # closing is not enough while a fork is still being born


def _holder(path: Path) -> str:
    """The process that wrote the file of a lock, in words."""
    try:
        about = json.loads(path.read_bytes())
        return f"process {int(about['pid'])} on {str(about['host'])[:64]} (since {str(about['since'])[:32]})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
