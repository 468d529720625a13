"""Our own list, split.csv: path,label,split,group, of which group may be missing."""

from __future__ import annotations

from pathlib import Path

from pvnas.data.listing.registry import SPLIT_NAMES, Entry, ListFolder, ListFormat, Listing
from pvnas.data.listing.text import at, csv_rows, shown
from pvnas.errors import UserError

SPLIT_FILE = "split.csv"
COLUMNS = ("path", "label", "split", "group")
HEADER = ",".join(COLUMNS)


def read_split_file(folder: ListFolder) -> Listing:
    """Return the rows of split.csv: header path,label,split,group, of which group may be missing. Raises UserError."""
    path = _file(folder)
    if not path.is_file():
        raise UserError(f"no {SPLIT_FILE} in {folder.folder}; write one with the header {HEADER}")
    rows = csv_rows(path, HEADER)
    _, header = next(rows, (1, []))
    for name in COLUMNS[:3]:
        if name not in header:
            raise UserError(f"{at(path, 1)}: no column {name!r}; the header must be {HEADER}")
    columns = {name: header.index(name) for name in COLUMNS if name in header}
    entries = []
    for line, row in rows:
        where = at(path, line)
        if len(row) > len(header):
            raise UserError(f"{where}: more cells than the header; quote a path or label that holds a comma")
        cells = {name: row[column].strip() if column < len(row) else "" for name, column in columns.items()}
        video, label, split = (cells[name] for name in COLUMNS[:3])
        if not video or not label:
            raise UserError(f"{where}: no {'label' if video else 'path'}; expected {HEADER}")
        if split and split not in SPLIT_NAMES:
            raise UserError(f"{where}: unknown split {shown(split)}; use train, val or test")
        # An empty split column means train: the other splits are then held out of it where no row names them.
        split, video = SPLIT_NAMES[split or "train"], folder.tree.inside(video, where)
        entries.append(Entry(video, label, split, cells.get("group") or None, str(path), line))
    return Listing(entries)


def _file(folder: ListFolder) -> Path:
    return folder.chosen or folder.folder / SPLIT_FILE


SPLIT_CSV = ListFormat("split.csv", read_split_file, lambda f: _file(f).name == SPLIT_FILE and _file(f).is_file())
