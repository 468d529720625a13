"""Kinetics: csv files with a header that holds label, youtube_id, time_start, time_end, split.

Class ids follow the sorted names of the labels, or a file beside the lists that names the classes (a copy's list may
hold none of some). A video is `{youtube_id}_{start:06d}_{end:06d}.mp4` in a folder of its class or flat; copies have
other endings, or the id alone. Clips of one id are one group.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from operator import itemgetter
from pathlib import Path

from pvnas.data.listing.finder import ENDINGS, Finder, split_in_name
from pvnas.data.listing.registry import SPLIT_NAMES, Entry, ListFolder, ListFormat, Listing
from pvnas.data.listing.text import MAX_CLASSES, at, class_key, csv_rows, find_names, first_line, shown
from pvnas.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split"
NEEDED = ("youtube_id", "time_start", "time_end")
IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,64}")
SECONDS = re.compile(r"(\d{1,6})(?:\.\d{1,9})?", re.ASCII)


def is_kinetics_list(path: Path) -> bool:
    """Return whether a file begins with the header of Kinetics."""
    return path.suffix.lower() == ".csv" and all(name in first_line(path) for name in ("youtube_id", "time_start"))


def read_kinetics(folder: ListFolder) -> Listing:
    """Return the videos of all lists. Raises UserError that names file and line."""
    paths = [path for path in folder.lists if path == folder.chosen or is_kinetics_list(path)]
    if not paths:
        raise UserError(f"no csv file with the header {HEADER} in {folder.folder}; put the official lists there")
    labels: dict[str, str] = {}  # the first spelling of every label, by its key

    @cache
    def name_of(label: str) -> str:
        return labels.setdefault(class_key(label), label.strip())

    finder = Finder(folder.tree)
    rows = [row for path in paths for row in _rows(path, finder, name_of)]
    remarks = _remarks_on_whole_files(rows)
    if len(labels) > MAX_CLASSES:
        raise UserError(f"{paths[0]}: more than {MAX_CLASSES} labels; the column 'label' must hold the class")
    if not labels:
        return Listing.of(rows, None, remarks)
    names = find_names(folder.files, len(labels), lambda those: labels.keys() <= set(map(class_key, those.names)))
    classes = [labels.get(class_key(name), name) for name in names.names] if names else sorted(labels.values())
    return Listing.of(rows, classes, remarks)


def _remarks_on_whole_files(rows: Sequence[Entry | None]) -> list[str]:
    """Return a remark where files have the id alone for a name: most copies are cut already, but it cannot be told."""
    whole = [row.path for row in rows if row and os.path.splitext(row.path)[0].endswith(row.group or "/")]
    if not whole:
        return []
    return [
        f"{len(whole)} files such as {shown(whole[0])} are read whole, as their names hold no time; where they are not "
        "cut yet, list them with the header path,label,start,end"
    ]


def _rows(path: Path, finder: Finder, name_of: Callable[[str], str]) -> Iterator[Entry | None]:
    """Yield the videos of a list, None for one without a label."""
    rows = csv_rows(path, HEADER)
    cells = _columns(path, next(rows, (1, []))[1])
    named, file = split_in_name(path.stem), str(path)
    for line, row in rows:
        where = at(file, line)
        try:
            label, identifier, start, end, split = cells(row)
        except IndexError:
            raise UserError(f"{where}: {len(row)} cells are too few; expected {HEADER}") from None
        if not IDENTIFIER.fullmatch(identifier):
            raise UserError(
                f"{where}: youtube_id {shown(identifier)} is no video id (spreadsheet programs spoil "
                "those that begin with '-'); give the official file"
            )
        begin, finish = _seconds(start), _seconds(end)
        if begin is None or finish is None:
            wrong = shown(start if begin is None else end)
            raise UserError(f"{where}: time {wrong} is no number of seconds; expected {HEADER}")
        split_name = SPLIT_NAMES.get(split) or (SPLIT_NAMES.get(split.strip().lower()) if split.strip() else named)
        if split_name is None:
            raise UserError(
                f"{where}: unknown split {shown(split)}; use train, val or test in column 'split' or the name"
            )
        if label.strip():
            name = name_of(label)
            folders, times = finder.of_class(name, split_name, where), f"{identifier}_{begin}_{finish}"
            video = f"{folders[0].prefix}{times}.mp4"
            if f"{times}.mp4" not in folders[0].content.files:  # where nearly all are
                copies = [stem + ending for stem in (times, identifier) for ending in ENDINGS]
                video = finder.find(folders, copies) or video
            yield Entry(finder.tree.checked(video, where), name, split_name, identifier, file, line)
        elif split_name != "test":
            raise UserError(f"{where}: no label; expected {HEADER}")
        else:
            yield None


def _columns(path: Path, header: Sequence[str]) -> Callable[[Sequence[str]], Sequence[str]]:
    """Return what picks label, id, start, end and split out of a row; '' for a column that the file lacks."""
    names = [name.strip().lower() for name in header]
    for name in NEEDED:
        if name not in names:
            raise UserError(f"{at(path, 1)}: no column {name!r}; the header must be {HEADER}")
    wanted = [names.index(name) if name in names else None for name in ("label", *NEEDED, "split")]
    if None not in wanted:
        return itemgetter(*wanted)
    return lambda row: ["" if column is None else row[column] for column in wanted]


@lru_cache(maxsize=4096)
def _seconds(text: str) -> str | None:
    match = SECONDS.fullmatch(text.strip())
    return match[1].zfill(6) if match else None


KINETICS = ListFormat(
    "kinetics", read_kinetics, lambda folder: any(map(is_kinetics_list, folder.lists)), validation_is_test=True
)
