"""What a list names, whether it gives labels or not: the test lists of competitions, `find . -name '*.mp4' > list.txt`.

walking/a b.mp4    walking/a b.mp4 3    clip0 127 3    id\\n9837\\n9838    path,start,end\\nfilm.mp4,3,5.5
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pvnas.config import DataConfig
from pvnas.data.listing.finder import Finder
from pvnas.data.listing.path_list import parse_line
from pvnas.data.listing.registry import ListFolder, is_video
from pvnas.data.listing.table import Row, header_of, is_name_of_path, segment_rows
from pvnas.data.listing.text import at, read_lines
from pvnas.errors import UserError


def named_videos(path: Path) -> list[Row]:
    """Return a row for each video that a list names, its path as it can be opened from here; labels are left out.

    A path counts from the list's folder, from where the command stands, or from where the videos of a data set
    customarily lie; an absolute one is taken as it is. Raises UserError that names the line, and for an empty list.
    """
    finder = Finder(ListFolder.of(DataConfig(str(path))).tree)
    rows = [row._replace(path=_found(row.path, path, line, finder)) for line, row in _rows(path)]
    if not rows:
        raise UserError(f"{path} names no videos; give one path a line, or a table with a column 'path'")
    return rows


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    header = header_of(path)
    if header and header.of_role("path"):
        yield from segment_rows(path)
        return
    for line, text in read_lines(path):
        name = text.strip('"')
        if is_video(name) or _is_there(name, path):
            yield line, Row(name, "", True)
        elif line > 1 or not is_name_of_path(name):  # the header of a single column
            with suppress(UserError):
                name = parse_line(text, at(path, line)).path
            yield line, Row(name, "", True)


def _found(named: str, list_path: Path, line: int, finder: Finder) -> str:
    """Return where a listed video lies; where it lies nowhere, where it should."""
    beside = os.path.join(list_path.parent, named)
    if "://" in named:  # an address, which is no file: whoever reads it says so
        return named
    if _is_there(named, list_path):
        return beside if os.path.exists(beside) else named
    with suppress(UserError):  # one that leads out of the folder is no secret here, and is not there
        return os.path.join(list_path.parent, finder.listed(named, "", None, at(list_path, line)))
    return beside


def _is_there(named: str, list_path: Path) -> bool:
    return os.path.exists(os.path.join(list_path.parent, named)) or os.path.exists(named)
