"""Our own list, split.csv: path,label,split,group, of which group may be missing."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pvnas.data.readers.entries import SPLIT_NAMES, Entry, Inside, clean_path
from pvnas.errors import UserError

SPLIT_FILE = "split.csv"


def read_split_file(root: Path) -> Iterator[Entry]:
    """Yield the rows of split.csv: header path,label,split,group, of which group may be missing."""
    file_path = root / SPLIT_FILE
    inside = Inside(root)
    seen: dict[str, int] = {}
    with file_path.open(encoding="utf-8-sig", newline="", errors="strict") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            _check_header(file_path, rows.fieldnames)
            for row in rows:
                where = f"{file_path}, line {rows.line_num}"
                entry = _parse_row(row, where)
                inside.check(entry.path, where)
                if entry.path in seen:
                    raise UserError(f"{where}: {entry.path!r} is listed before, in line {seen[entry.path]}; remove one")
                seen[entry.path] = rows.line_num
                yield entry
        except csv.Error as error:
            raise UserError(
                f"{file_path}, line {rows.reader.line_num}: {error}; expected path,label,split,group"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"{file_path} is not UTF-8 text; save it as UTF-8") from None


def _check_header(file_path: Path, names: Iterable[str] | None) -> None:
    absent = [name for name in ("path", "label", "split") if name not in (names or ())]
    if absent:
        raise UserError(f"{file_path}, line 1: no column {absent[0]!r}; the header must be path,label,split,group")


def _parse_row(row: Mapping[str | None, str | None], where: str) -> Entry:
    """Return the entry of one row. Raises UserError that says where and what."""
    if None in row:
        raise UserError(f"{where}: more cells than the header; quote a path or label that holds a comma")
    path, label, split, group = ((row.get(name) or "").strip() for name in ("path", "label", "split", "group"))
    if not path or not label:
        raise UserError(f"{where}: no {'label' if path else 'path'}; expected path,label,split,group")
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{where}: unknown split {split!r}; use train, val or test")
    # An empty split column means train: the other splits are then held out of it where no row names them.
    return Entry(clean_path(path, where), label, SPLIT_NAMES[split or "train"], group or None)
