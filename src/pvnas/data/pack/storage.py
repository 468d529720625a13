"""Ranges of bytes out of the files of a pack: a folder, or a URL that a person has named.

Nothing in a pack can lead elsewhere: the names that are opened are those of `pack.json`, checked to be plain names.
"""

import os
import stat
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pvnas.data.pack.format import DamageError, shown
from pvnas.errors import UserError

OPEN_FILES = 64
ATTEMPTS = 4
SECONDS_BEFORE_SECOND = 0.25  # doubled before each further attempt
# Bytes that are read and thrown away rather than asking twice: what passes in the time of one more request.
LOCAL_GAP, REMOTE_GAP = 16 << 10, 256 << 10
MISSING_STATUS = frozenset({404, 410})
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class FolderStorage:
    """A folder. Its files stay open, the most recently used ones up to a limit."""

    gap = LOCAL_GAP  # ranges no farther apart than this are read as one

    def __init__(self, address: str) -> None:
        self.address = address
        # A file is closed when it leaves the cache and the last thread that reads it is done.
        self._open = lru_cache(OPEN_FILES)(lambda name: _OpenFile(os.path.join(address, name)))

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.address,)

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return exactly these bytes of a file. Raises UserError; DamageError where the file ends before."""
        file, content = self._open(name), b""
        try:
            while more := os.pread(file.descriptor, size - len(content), start + len(content)):
                content += more
        except OSError as error:
            raise UserError(f"{self.address}/{name} cannot be read ({error.strerror})") from None
        if len(content) < size:
            raise DamageError(f"{name} ends before byte {start + size}")
        return content

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is no such file."""
        try:
            status = os.stat(os.path.join(self.address, name))
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None


class _OpenFile:
    """A descriptor that is closed with its last user."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        try:
            # Not to wait for ever for the other end of a pipe.
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be opened ({getattr(error, 'strerror', error)})") from None
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise UserError(f"{path} is no regular file")

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class UrlStorage:
    """A URL of any kind that fsspec knows: http(s), s3, gs, file, memory. Asks for the needed bytes alone."""

    gap = REMOTE_GAP

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return exactly these bytes of a file. Raises UserError; DamageError where the file ends before."""
        url = f"{self.address}/{name}"
        content = _tried(url, lambda files, path: files.cat_file(path, start=start, end=start + size))
        if content is None:
            raise UserError(f"{url} does not exist")
        if len(content) > size:
            raise UserError(f"{url}: its server sends whole files where a part is asked for; use one with byte ranges")
        if len(content) < size:
            raise DamageError(f"{name} ends before byte {start + size}")
        return bytes(content)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, -1 where the server does not say, None for no such file. Raises UserError."""
        info = _tried(f"{self.address}/{name}", lambda files, path: files.info(path))
        if info is None:
            return None
        return info["size"] if isinstance(info.get("size"), int) else -1


def _tried(url: str, ask: Any) -> Any:
    """Return what ``ask(file system, path)`` returns, None where there is no such file; waits out short faults."""
    import fsspec

    fault: Exception = OSError()
    for attempt in range(ATTEMPTS):
        try:
            # Made anew in each process and thread: fsspec keeps those it has made.
            files, path = fsspec.url_to_fs(url)
            return ask(files, path)
        except FileNotFoundError as error:
            if _is_missing(error):
                return None
            fault = error.__cause__ if isinstance(error.__cause__, Exception) else error
        except (ImportError, ValueError) as error:
            raise UserError(f"{url} cannot be opened ({_line(error)})") from None
        except Exception as error:
            fault = error
        if not _is_transient(fault):
            break
        if attempt + 1 < ATTEMPTS:
            time.sleep(SECONDS_BEFORE_SECOND * 2**attempt)
    raise UserError(f"{url} cannot be read ({_line(fault)})") from None


def _is_missing(error: FileNotFoundError) -> bool:
    """Return whether there is no such file; fsspec takes a refused connection for that, too, and names it as cause."""
    cause = error.__cause__
    if getattr(cause, "status", None) in MISSING_STATUS:
        return True
    return not isinstance(cause, Exception) or isinstance(cause, FileNotFoundError | LookupError)


def _is_transient(fault: Exception) -> bool:
    status = getattr(fault, "status", None)
    if isinstance(status, int):
        return status in TRANSIENT_STATUS
    return not isinstance(fault, PermissionError | NotADirectoryError | IsADirectoryError | NotImplementedError)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {shown(text)[1:-1]}" if text else type(error).__name__


Storage = FolderStorage | UrlStorage
"""The files of one pack. May be shared by threads, pickled, and used on after a fork."""


def storage_of(path_or_url: str | Path) -> Storage:
    """Return the storage of a pack: a URL where there is `://` in its name, else a folder."""
    text = os.fspath(path_or_url)
    return UrlStorage(text) if "://" in text else FolderStorage(text)
