"""Our own list, split.csv: path,label,split,group, of which group may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pvnas.data.listing.entries import SPLIT_NAMES, Entry, Listing, place
from pvnas.data.listing.source import Source
from pvnas.data.listing.text import csv_rows, shown
from pvnas.data.listing.tree import Tree
from pvnas.errors import UserError

SPLIT_FILE = "split.csv"
COLUMNS = ("path", "label", "split", "group")
HEADER = ",".join(COLUMNS)


def has_split_file(source: Source) -> bool:
    """Return whether there is a split.csv, or the user named one."""
    return _file(source).is_file()


def read_split_file(source: Source) -> Listing:
    """Return the rows of split.csv: header path,label,split,group, of which group may be missing. Raises UserError."""
    path = _file(source)
    if not path.is_file():
        raise UserError(f"no {SPLIT_FILE} in {source.folder}; write one with the header {HEADER}")
    rows = csv_rows(path, HEADER)
    _, header = next(rows, (1, []))
    for name in COLUMNS[:3]:
        if name not in header:
            raise UserError(f"{place(path, 1)}: no column {name!r}; the header must be {HEADER}")
    columns = {name: header.index(name) for name in COLUMNS if name in header}
    entries = []
    for line, row in rows:
        entries.append(_parse_row(source.tree, row, columns, len(header), path, line))
    return Listing(entries)


def _file(source: Source) -> Path:
    return source.chosen or source.folder / SPLIT_FILE


def _parse_row(tree: Tree, row: Sequence[str], columns: Mapping[str, int], width: int, file: Path, line: int) -> Entry:
    """Return the entry of one row. Raises UserError that says where and what."""
    where = place(file, line)
    if len(row) > width:
        raise UserError(f"{where}: more cells than the header; quote a path or label that holds a comma")
    cells = {name: row[column].strip() if column < len(row) else "" for name, column in columns.items()}
    path, label, split = (cells[name] for name in COLUMNS[:3])
    if not path or not label:
        raise UserError(f"{where}: no {'label' if path else 'path'}; expected {HEADER}")
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{where}: unknown split {shown(split)}; use train, val or test")
    # An empty split column means train: the other splits are then held out of it where no row names them.
    path = tree.inside(path, where)
    return Entry(path, label, SPLIT_NAMES[split or "train"], cells.get("group") or None, str(file), line)
