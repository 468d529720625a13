"""Lists without header, a line for a video, as SlowFast, PyTorchVideo and MMAction2 read them.

    air drumming/a b.mp4 3    a,b.mp4,3    "a, b.mp4","air drumming"    a b.mp4;air drumming    clip0 127 3

Paths hold blanks and commas, so a line that ends with a number is cut once, from the right. A label that is text stands
after a file's ending, or is one of two cells; what is quoted is quoted as in csv. The last form is a folder of pictures
with their number.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pvnas.data.listing.registry import VIDEO_ENDINGS, is_video
from pvnas.data.listing.table import DELIMITERS, LABELS, PATHS, Row, header_of, is_comment
from pvnas.data.listing.text import at, first_line, first_lines, parse_number, read_lines, shown
from pvnas.errors import UserError

EXPECTED = "expected 'path label', such as 'walking/a b.mp4 3'"
BETWEEN = " \t,;|"
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
QUOTED_LABEL = re.compile(r'([^"]+?)(?:[ \t]*[,;|][ \t]*|[ \t]+)"((?:[^"]|"")*)"')
NUMBERS = re.compile(rf"(?:[0-9]{{0,9}}(?:[{BETWEEN}]|$))*")  # of a line that is read from its end
ENDED = re.compile(rf"(.*(?:{'|'.join(map(re.escape, VIDEO_ENDINGS))}))([ \t]*[,;|][ \t]*|[ \t]+)(\S.*)", re.IGNORECASE)
NO_WORDS = re.compile(r"[0-9./\\]")  # what a header has not, and a path has
HEADER = re.compile(
    rf"(?:{'|'.join(PATHS[0].split() + PATHS[1].split() + PATHS[2].split())})\s+({'|'.join(LABELS[0].split())})"
)


def parse_line(line: str, where: str) -> Row:
    """Return path and label of a line. Raises UserError for one that has no label, or several."""
    row = _quoted_path(line, where) if line.startswith('"') else _quoted_label(line) or _plain(line, where)
    if not row.path.strip() or not row.label:
        raise UserError(f"{where}: no {'label' if row.path.strip() else 'path'}; {EXPECTED}")
    if not row.is_text and is_video(row.label) and not is_video(row.path):
        raise UserError(f"{where}: {shown(row.label)} stands where the label should; {EXPECTED}")
    if not row.is_text and parse_number(row.label) is None:
        if not any(map(str.isalpha, row.label)):
            raise UserError(f"{where}: label {shown(row.label)} is no number from 0; {EXPECTED}, or quote a class name")
        return row._replace(is_text=True)
    return row


def _quoted_path(line: str, where: str) -> Row:
    path = QUOTED.match(line)
    if not path or line[path.end() : path.end() + 1] not in ("", *BETWEEN):
        raise UserError(f"{where}: {shown(line)} has a quote that is not closed; {EXPECTED}")
    rest = line[path.end() :].strip(" \t")
    rest = rest[rest[:1] in (",", ";", "|") :].strip(" \t")
    label = QUOTED.fullmatch(rest)
    text = label[1].replace('""', '"').strip() if label else rest
    return Row(path[1].replace('""', '"'), text, label is not None)


def _quoted_label(line: str) -> Row | None:
    """Return the cells of `path,"label"`, None for a line that is something else."""
    match = QUOTED_LABEL.fullmatch(line)
    return Row(match[1].strip(" \t"), match[2].replace('""', '"').strip(), True) if match else None


def _plain(line: str, where: str) -> Row:
    """Return the row of a line without quotes."""
    cut = max(map(line.rfind, BETWEEN))
    path = _without_delimiter(line[: max(cut, 0)], line[cut : cut + 1])
    if not path:
        raise UserError(f"{where}: {shown(line)} has no label; {EXPECTED}")
    if parse_number(line[cut + 1 :]) is None:
        return _named(line, where) or Row(path, line[cut + 1 :], False)
    name = NUMBERS.sub("", path[::-1], count=1)[::-1]  # without the numbers at its end
    if not name or name == path or is_video(path):
        return Row(path, line[cut + 1 :], False)
    if is_video(name):
        raise UserError(f"{where}: several labels for {shown(name)}; give each video one label: {EXPECTED}")
    if len(re.findall("[0-9]+", path[len(name) :])) > 1:
        raise UserError(
            f"{where}: {shown(line)} has several numbers: several labels, or where the frames begin; give each folder "
            "of pictures its number of frames and one label, such as 'clip0 127 3'"
        )
    return Row(name, line[cut + 1 :], False)


def _without_delimiter(path: str, delimiter: str) -> str:
    """Return a path without what stands between it and a blank: 'a.mp4, 3'."""
    path = path.rstrip(" \t")
    return path if delimiter in (",", ";", "|") else path[: len(path) - path.endswith((",", ";", "|"))].rstrip(" \t")


def _named(line: str, where: str) -> Row | None:
    """Return the row of a line whose label is text, None where it is not plain where the path ends. UserError."""
    if match := ENDED.fullmatch(line):
        path, between, label = match.groups()
        if (between.strip() and between.strip() in label) or "\t" in label:
            raise UserError(f"{where}: more than path and label; give the list a header, such as path,label,split")
        return Row(path, label, False)
    delimiters = [character for character in line if character in DELIMITERS]
    if len(delimiters) != 1:
        return None
    path, _, label = line.partition(delimiters[0])
    return Row(path.strip(), label.strip(), False)


def read_path_list(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of a list, of which a header is none. Raises UserError that names the line."""
    file, is_first, has_header = str(path), True, _begins_with_header(path)
    for line, text in read_lines(path):
        if is_first and is_comment(text):
            continue
        if not (is_first and has_header):
            yield line, parse_line(text, at(file, line))
        is_first = False


def _begins_with_header(path: Path) -> bool:
    """Return whether a list begins with words such as `path label`, in any language, before its first video."""
    first, second = [*(line.strip() for line in first_lines(path, 50) if not is_comment(line)), "", ""][:2]
    if HEADER.fullmatch(first.lower()):
        return True
    try:
        return not NO_WORDS.search(first) and not header_of(path) and is_video(parse_line(second, "").path)
    except UserError:
        return False


def first_rows(path: Path, number: int) -> list[Row | None]:
    """Return the rows of a list's first lines, None for what is none, whatever the file holds; for guessing only."""
    rows = list[Row | None]()
    for line in first_lines(path, number):
        try:
            rows.append(parse_line(line.strip(" \t\r"), ""))
        except UserError:
            rows.append(None)
    return rows


def is_path_list(path: Path) -> bool:
    """Return whether the first line of a file names a video, or is a header over one that does."""
    try:
        return _begins_with_header(path) or is_video(parse_line(first_line(path), "").path)
    except UserError:
        return False
