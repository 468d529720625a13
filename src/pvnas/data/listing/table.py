"""Tables with a header, `path,label,split,group,start,end`, in any order, delimiter and common spelling of the names.

A column is known by its name without blanks, `_` and capitals: `File Name` is `filename`. Where several columns could
be the path or the label, the one with the plainest name is, and of labels as text and as numbers the text.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pvnas.data.listing.registry import SPLIT_NAMES, VIDEO_ENDINGS, is_video
from pvnas.data.listing.text import at, csv_rows, first_lines, parse_number, shown
from pvnas.errors import UserError

SPLIT_FILE = "split.csv"
EXPECTED = "path,label,split,group,start,end, of which only path and label must be there"
DELIMITERS = ",;\t|"
# Names of columns, the plainest first: of several columns of one role the one of the first line with any is read.
PATHS = (
    "path filepath videopath clippath relativepath relpath fullpath framepath framespath",
    "file filename videofile videofilename clipfile clipfilename",
    "video videoname clip clipname",
    "name",
    "videoid clipid id youtubeid ytid vid uid key sample sampleid",
)
LABELS = (
    "label labels class classname labelname classlabel labeltext",
    "category categoryname action actionname actionlabel actionclass activity activityname tag target targetname "
    "template gesture emotion sign gloss exercise",
    "labelid classid labelidx classidx labelindex classindex categoryid actionid targetid y",
)
SPLITS = ("split", "set subset partition usage phase splitname splittype settype datasplit")
GROUPS = ("group groupid groupname groups",)
STARTS = (
    "start starts startsec startsecond startseconds starttime timestart tstart starttimestamp "
    "begin begins beginsec beginseconds begintime from onset segmentstart clipstart actionstart",
)
ENDS = (
    "end ends endsec endsecond endseconds endtime timeend tend endtimestamp stop stopsec stopseconds stoptime stops "
    "stoptimestamp finish finishtime until to segmentend clipend actionend",
)
DURATIONS = ("duration durations durationsec durationseconds",)
OTHER_UNITS = re.compile(
    r"(?:frame|ms)?(?:start|begin|first|end|stop|last|offset)(?:frame|ms|milliseconds)(?:s|no|number|idx|index)?"
    r"|frame(?:start|begin|end|stop)"
)
ROLES = {
    "path": PATHS,
    "label": LABELS,
    "split": SPLITS,
    "group": GROUPS,
    "start": STARTS,
    "end": ENDS,
    "duration": DURATIONS,
}
RANKS = {
    name: (role, rank) for role, ranks in ROLES.items() for rank, names in enumerate(ranks) for name in names.split()
}
INDEX = re.compile(r"|index|unnamed\d*", re.IGNORECASE)  # columns that pandas adds, whose names say nothing
FLOAT = re.compile(r"\d{1,9}\.0+")  # whole numbers out of a column with gaps, as pandas writes them
NUMBER = re.compile(r"(\d{1,9}(?:[.,]\d{1,9})?) ?s?", re.ASCII)
CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:[.,]\d{1,9})?)", re.ASCII)


class Row(NamedTuple):
    """A row of a list as it is written."""

    path: str
    label: str  # '' where a test list gives none
    is_text: bool  # whether the label is the class's name; otherwise it is its number
    split: str | None = None
    group: str | None = None
    start: float = 0.0  # of the segment that is meant, in seconds of the file
    end: float = math.inf


class Header(NamedTuple):
    """The first line of a table."""

    delimiter: str
    names: tuple[str, ...]

    def of_role(self, role: str) -> list[tuple[int, int]]:
        """Return (rank, index) of the columns that could have a role, the plainest first."""
        ranks = (RANKS.get(_key(name), ("", 0)) for name in self.names)
        return sorted((rank, index) for index, (known, rank) in enumerate(ranks) if known == role)


class Table(NamedTuple):
    """What a table says."""

    rows: list[tuple[int, Row]]  # number of the line, and the row
    remarks: tuple[str, ...]


def header_of(path: Path) -> Header | None:
    """Return the header with which a file begins, None where it begins with a row; for guessing."""
    first = next((line for line in first_lines(path, 50) if not is_comment(line)), "")
    header = max((_header(first, delimiter) for delimiter in DELIMITERS), key=_known)
    if path.name == SPLIT_FILE:
        return header
    words = [name for name in header.names if name]
    looks_like_row = any(is_video(name) or parse_number(name) is not None for name in words)
    named = header.of_role("path") or any(rank == 0 for rank, _ in header.of_role("label"))
    return header if named and len(words) > 1 and not looks_like_row else None


def is_comment(line: str) -> bool:
    """Return whether a line at the beginning of a list is a comment, or Excel's hint at the delimiter."""
    return line.startswith("sep=") or (line.startswith("#") and not any(e in line.lower() for e in VIDEO_ENDINGS))


def is_table(path: Path) -> bool:
    """Return whether a file begins with a header that has a column for the path and one for the label."""
    header = header_of(path)
    return header is not None and bool(header.of_role("path") and header.of_role("label"))


def read_table(path: Path) -> Table:
    """Return the rows of a table; of the test split some may have no label. Raises UserError that names the line."""
    header = header_of(path) or _header("", ",")
    cells = list(_cells(path, header))
    rows = [row for _, row in cells[1:]]
    columns = _columns(path, header, rows)
    label = columns["label"]
    if label is not None and all(FLOAT.fullmatch(row[label]) or not row[label] for row in rows):
        rows = [(*row[:label], row[label].partition(".")[0], *row[label + 1 :]) for row in rows]
    read = _reader(columns, is_text=not _is_numbers(label, rows))
    read_rows = [(line, read(row, at(path, line))) for (line, _), row in zip(cells[1:], rows, strict=True)]
    return Table(read_rows, _unread(path, header, columns, rows))


def check_header(path: Path) -> None:
    """Raise UserError unless a file begins with a header."""
    if header_of(path) is None:
        _columns(path, _header(next(iter(first_lines(path, 1)), ""), ","), [])


def first_rows(path: Path, header: Header, number: int) -> list[Row]:
    """Return path and label of a table's first rows, whatever else the file holds; for guessing only."""
    paths, labels = header.of_role("path"), header.of_role("label")
    try:
        rows = list(csv.reader(first_lines(path, number), delimiter=header.delimiter, skipinitialspace=True))
    except csv.Error:
        return []
    columns = (paths[0][1], labels[0][1]) if paths and labels else (0, 0)
    wanted = (row for row in rows if len(row) > max(columns) and tuple(cell.strip() for cell in row) != header.names)
    return [Row(row[columns[0]].strip(), row[columns[1]].strip(), True) for row in wanted]


def segment_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of a table's rows with path, start and end, and no label. Raises UserError."""
    header = header_of(path) or _header("", ",")
    columns = {role: found[0][1] if (found := header.of_role(role)) else None for role in ROLES}
    if columns["start"] is None or columns["end"] is not None:
        columns["duration"] = None  # of the file, or said twice
    for line, cells in islice(_cells(path, header), 1, None):
        name = cells[columns["path"] or 0]
        if name:
            yield line, Row(name, "", True, None, None, *_segment(cells, columns, at(path, line)))


def is_name_of_path(name: str) -> bool:
    """Return whether a text is a name of a column for the path."""
    return RANKS.get(_key(name), ("", 0))[0] == "path"


def _key(name: str) -> str:
    return re.sub(r"[\s_.:()-]", "", name.casefold())


def _header(line: str, delimiter: str) -> Header:
    try:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error:
        cells = []
    return Header(delimiter, tuple(cell.strip() for cell in cells))


def _known(header: Header) -> int:
    return sum(_key(name) in RANKS for name in header.names)


def _trimmed(cells: Sequence[str]) -> list[str]:
    """Return the cells without the blanks around them, and without empty ones at the end."""
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _cells(path: Path, header: Header) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line, cells) of the rows that hold anything, all as long as the header, which is the first. UserError."""
    width, is_first = len(header.names), True
    for line, row in csv_rows(path, EXPECTED, header.delimiter):
        cells = _trimmed(row)
        if not cells or (is_first and is_comment(row[0])) or (not is_first and (*row,) == header.names):
            continue  # Tables that were put one after another hold their header again.
        is_first = False
        if len(cells) > width and width:
            raise UserError(
                f"{at(path, line)}: more cells than the header has; quote a path or label that holds a "
                f"{'tab' if header.delimiter == chr(9) else header.delimiter!r}"
            )
        yield line, (*cells, *[""] * (width - len(cells)))


def _columns(path: Path, header: Header, rows: Sequence[Sequence[str]]) -> dict[str, int | None]:
    """Return the column of each role. Raises UserError for none of path or label, and where two could be meant."""
    labels = header.of_role("label")
    texts = [(rank, column) for rank, column in labels if not _is_numbers(column, rows)]
    found = {role: header.of_role(role) for role in ROLES} | {"label": texts or labels}
    for role, columns in found.items():
        if not columns and role in ("path", "label"):
            there = ", ".join(map(repr, header.names)) or "nothing"
            raise UserError(
                f"{at(path, 1)}: no column {role!r}; the header holds {shown_list(there)}; expected {EXPECTED}"
            )
        if len(columns) > 1 and columns[0][0] == columns[1][0]:
            one, two = (header.names[column] for _, column in columns[:2])
            if one == two:
                raise UserError(f"{at(path, 1)}: column {one!r} is there twice; remove one")
            raise UserError(
                f"{at(path, 1)}: columns {one!r} and {two!r} could both be the {role}; call the right one {role!r} "
                "and the other one what it is"
            )
    columns_of = {role: columns[0][1] if columns else None for role, columns in found.items()}
    other = next((name for name in header.names if OTHER_UNITS.fullmatch(_key(name))), None)
    if other and columns_of["start"] is None and columns_of["end"] is None:
        raise UserError(f"{at(path, 1)}: column {other!r} is not in seconds; give columns start,end in seconds")
    if columns_of["start"] is None or columns_of["end"] is not None:
        columns_of["duration"] = None  # of the file, or said twice
    return columns_of


def shown_list(text: str) -> str:
    """Return a list of names as a message shows it, not too long."""
    return text if len(text) <= 200 else f"{text[:197]}..."


def _is_numbers(column: int | None, rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a column holds whole numbers only."""
    cells = {row[column] for row in rows if row[column]} if column is not None else set()
    return bool(cells) and all(parse_number(cell) is not None and str(int(cell)) == cell for cell in cells)


def _unread(
    path: Path, header: Header, columns: Mapping[str, int | None], rows: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Return the remark that names the columns that are not read, if there are any."""
    read = {column: role for role, column in columns.items() if column is not None}
    unread = []
    for number, name in enumerate(header.names):
        is_index = INDEX.fullmatch(_key(name)) and (_is_numbers(number, rows) or not any(row[number] for row in rows))
        if number not in read and not is_index:
            unread.append(name or f"number {number + 1}, without a name")
    if not unread:
        return ()
    those = ", ".join(f"{header.names[column]!r} as {role}" for column, role in read.items())
    return (f"{path}: column {shown_list(', '.join(map(repr, unread)))} is not read; read are {those}",)


def _reader(columns: Mapping[str, int | None], is_text: bool) -> Callable[[Sequence[str], str], Row]:
    """Return what makes a Row of (cells, where). Raises UserError that begins with where."""
    path, label, split, group = (columns[role] for role in ("path", "label", "split", "group"))
    assert path is not None
    assert label is not None
    split_of = cache(lambda text: SPLIT_NAMES.get(text.lower()))
    has_segments = columns["start"] is not None or columns["end"] is not None

    def read(cells: Sequence[str], where: str) -> Row:
        named = cells[split] if split is not None else ""
        if named and not split_of(named):
            raise UserError(f"{where}: unknown split {shown(named)}; use train, val or test")
        if not cells[path] or not (cells[label] or split_of(named) == "test"):
            raise UserError(f"{where}: no {'label' if cells[path] else 'path'}; expected {EXPECTED}")
        segment = _segment(cells, columns, where) if has_segments else (0.0, math.inf)
        of_group = cells[group] or None if group is not None else None
        return Row(cells[path], cells[label], is_text, split_of(named), of_group, *segment)

    return read


def _segment(cells: Sequence[str], columns: Mapping[str, int | None], where: str) -> tuple[float, float]:
    """Return start and end in seconds. Raises UserError unless they are, in this order."""
    texts = {role: cells[column] for role in ("start", "end", "duration") if (column := columns[role]) is not None}
    times = {role: _seconds(text, where) for role, text in texts.items() if text}
    start = times.get("start", 0.0)
    end = start + times["duration"] if "duration" in times else times.get("end", math.inf)
    if start >= end:
        raise UserError(f"{where}: start {start:g} is not before end {end:g}; give both in seconds of the file")
    return start, end


def _seconds(text: str, where: str) -> float:
    if match := NUMBER.fullmatch(text):
        return float(match[1].replace(",", "."))
    if match := CLOCK.fullmatch(text):
        hours, minutes, seconds = match.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
    raise UserError(f"{where}: {shown(text)} is no time; give seconds from 0 such as 12.5, or 1:02:03.5")
