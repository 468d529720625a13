"""metrics.jsonl: one JSON object per line, written by append and safe against a torn last line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pvnas.errors import UserError
from pvnas.runtime.files import explained, make_folder, opened, write_all, write_atomic


def append_metrics(path: Path, record: dict[str, Any]) -> None:
    """Add one line and flush it to the disk. Numbers that are not finite become null: JSON has no others.

    A last line without its end, which a killed writer left, is removed first. Raises UserError when the disk is full;
    the file is then as it was.
    """
    line = (json.dumps(_finite(record), allow_nan=False) + "\n").encode()
    with explained(path):
        make_folder(path.parent)
        with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
            end = path.read_bytes().rfind(b"\n") + 1
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                write_all(descriptor, line)
            except BaseException:
                os.ftruncate(descriptor, end)
                raise
            os.fsync(descriptor)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records in the order of their lines; none where there is no file. A torn last line is left out.

    Raises UserError with the line's number where a finished line is no JSON object.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [_record_of(line, f"{path} line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def truncate_metrics(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the records that ``keep`` says yes to, and drop the others and a torn last line, in one atomic write."""
    if not path.exists():
        return
    text = "".join(json.dumps(record) + "\n" for record in read_metrics(path) if keep(record))
    if text.encode() != path.read_bytes():
        write_atomic(path, text)


def _record_of(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{place}: not a JSON object; remove the line, then type the same command again")
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
