"""Jester and Something-Something V2 of 20BN: videos lie flat, `<id>.mp4` or `<id>.webm`; the test lists have ids only.

Jester's lists are `id;label` or `id number`. Numbers mean nothing without the file that gives them: the label files
that go round have different orders. The official download holds folders of frames instead of videos.

Something-Something V2 has JSON lists of id and template; labels.json gives each template's class id as a string. The
class is the template without its brackets, never the free text under `label`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pvnas.data.catalog import SPLITS
from pvnas.data.listing.finder import Finder, copies_of
from pvnas.data.listing.path_list import is_path_list
from pvnas.data.listing.registry import SPLIT_NAMES, Entry, ListFolder, ListFormat, Listing
from pvnas.data.listing.text import (
    MAX_CLASSES,
    ClassNames,
    Pairs,
    at,
    check_names,
    class_key,
    first_line,
    parse_number,
    read_json,
    read_lines,
    read_names,
    shown,
)
from pvnas.errors import UserError

JESTER_LIST = re.compile(
    r"(?:(?:20bn-)?jester-v1-(train|validation|test)\.csv|(train|val|test)list\.txt)", re.IGNORECASE
)
JESTER_LABELS = re.compile(r"(?:20bn-)?jester-v1-labels\.csv", re.IGNORECASE)
JESTER_NUMBERS = "classInd.txt"
JESTER_LINE = re.compile(r"(\d{1,18})(?:\s*;\s*(.*)|[ \t]+(\d+))?")
SSV2_LABELS = re.compile(r"(?:something-something-v2-)?labels\.json", re.IGNORECASE)
SSV2_LIST = re.compile(r"(?:something-something-v2-)?(train|validation|test)\.json", re.IGNORECASE)
SSV2_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
BRACKETS = str.maketrans("", "", "[]")


# ---- Jester


def read_jester(folder: ListFolder) -> Listing:
    """Return the videos of all lists. Raises UserError that names file and line."""
    lists = _jester_lists(folder)
    if not lists:
        raise UserError(f"no jester-v1-train.csv or trainlist.txt in {folder.folder}; put the official lists there")
    texts = [path for path in folder.files if JESTER_LABELS.fullmatch(path.name)]
    numbered = [path for path in folder.files if path.name == JESTER_NUMBERS]
    if not texts and not numbered:
        raise UserError(
            f"no jester-v1-labels.csv or {JESTER_NUMBERS} in {folder.folder}, which give the class ids; put one there"
        )
    names = read_names(texts[0], may_number=False) if texts else read_names(numbered[0])
    finder = Finder(folder.tree)
    rows = [row for split in SPLITS if split in lists for row in _jester_rows(lists[split], split, finder, names)]
    return Listing.of(rows, names.names)


def _jester_lists(folder: ListFolder) -> dict[str, Path]:
    matches = [(JESTER_LIST.fullmatch(path.name), path) for path in folder.files]
    return {
        SPLIT_NAMES[(m[1] or m[2]).lower()]: path
        for m, path in matches
        if m and JESTER_LINE.fullmatch(first_line(path))
    }


def _jester_rows(path: Path, split: str, finder: Finder, classes: ClassNames) -> Iterator[Entry | None]:
    by_key = {class_key(name): name for name in classes.names}
    by_number = dict(zip(classes.numbers or (), classes.names, strict=False))
    folders, home = finder.flat(split), finder.home(split)
    frames = {name for each in folders for name in each.content.folders}
    for line, text in read_lines(path):
        where = at(path, line)
        match = JESTER_LINE.fullmatch(text)
        if not match:
            raise UserError(f"{where}: {shown(text)} is no 'id;label' and no 'id number'; give the official list")
        if not match[2] and not match[3]:
            if split != "test":
                raise UserError(f"{where}: no label; expected 'id;label' or 'id number'")
            yield None
            continue
        names = copies_of(match[1], ".mp4")
        video = finder.find(folders, names)
        if video is None and match[1] in frames:
            raise UserError(
                f"{where}: {shown(match[1])} is a folder of frames, not a video; make videos of all such folders: "
                f"ffmpeg -framerate 12 -i {match[1]}/%05d.jpg {names[0]}"
            )
        _, name, number = match.groups()
        if not name and not by_number:
            raise UserError(
                f"{where}: number {shown(number)} needs {JESTER_NUMBERS}, which numbers the classes; put it there"
            )
        label = by_key.get(class_key(name)) if name else by_number.get(parse_number(number) or 0)
        if label is None:
            raise UserError(f"{where}: label {shown(name or number)} is not in {classes.file.name}; mend one of them")
        yield Entry(finder.tree.checked(video or home + names[0], where), label, split, None, str(path), line)


# ---- Something-Something V2


def read_ssv2(folder: ListFolder) -> Listing:
    """Return the videos of all lists. Raises UserError that names the file and the number of the entry."""
    labels = next((path for path in folder.files if SSV2_LABELS.fullmatch(path.name)), None)
    if labels is None:
        raise UserError(f"no something-something-v2-labels.json in {folder.folder}; put the official file there")
    lists = {SPLIT_NAMES[match[1].lower()]: path for path in folder.files if (match := SSV2_LIST.fullmatch(path.name))}
    if not lists:
        raise UserError(f"no something-something-v2-train.json in {folder.folder}; put the official lists there")
    classes, finder = _ssv2_classes(labels), Finder(folder.tree)
    by_template = {name: name for name in classes}  # of every template seen: one object for all videos of a class
    rows = [row for split in SPLITS if split in lists for row in _ssv2_rows(lists[split], split, finder, by_template)]
    return Listing.of(rows, classes)


def _ssv2_classes(path: Path) -> tuple[str, ...]:
    """Return the templates in the order of their ids, which must be 0, 1, 2, ... without gap."""
    content = read_json(path)
    if not isinstance(content, Pairs) or not content:
        raise UserError(
            f'{path}: expected one JSON object such as {{"Closing something": "5"}}; give the official file'
        )
    numbers: dict[int, str] = {}
    for template, value in content:
        number = parse_number(value) if isinstance(value, str) else value if type(value) is int else None
        if number is None or not 0 <= number < min(len(content), MAX_CLASSES):
            raise UserError(f"{path}: class id {shown(value)} of {shown(template)} is not one of 0..{len(content) - 1}")
        if number in numbers:
            raise UserError(f"{path}: {shown(numbers[number])} and {shown(template)} have the same class id {number}")
        numbers[number] = template.translate(BRACKETS)
    names = tuple(numbers[number] for number in range(len(numbers)))
    check_names(path, enumerate(names, start=1))
    return names


def _ssv2_rows(path: Path, split: str, finder: Finder, by_template: dict[str, str]) -> Iterator[Entry | None]:
    # Of each JSON object what we need: the rest of the largest list would take hundreds of megabytes.
    clips = read_json(path, lambda pairs: (dict(pairs).get("id"), dict(pairs).get("template")))
    if not isinstance(clips, list):
        raise UserError(f'{path}: expected a JSON list of {{"id": ..., "template": ...}}; give the official file')
    folders, home = finder.flat(split), finder.home(split)
    for number, clip in enumerate(clips, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(clip, tuple):
            raise UserError(f'{where}: {shown(clip)} is no object; expected {{"id": "78687", "template": "..."}}')
        id, template = clip
        name = str(id) if type(id) is int and 0 <= id < 1 << 63 else id
        if not isinstance(name, str) or not SSV2_ID.fullmatch(name):
            raise UserError(f"{where}: id {shown(id)} is no video id; expected digits such as 78687")
        if template is None and split == "test":
            yield None
            continue
        names = copies_of(name, ".webm")
        video = finder.tree.checked(finder.find(folders, names) or home + names[0], where)
        if not isinstance(template, str):
            raise UserError(f"{where}: template {shown(template)} is no text; give the official file")
        label = by_template.get(template) or by_template.get(template.translate(BRACKETS))
        if label is None:
            raise UserError(f"{where}: template {shown(template)} is not in the labels file; give the official ones")
        by_template[template] = label
        yield Entry(video, label, split, None, str(path), number)


def _recognises_ssv2(folder: ListFolder) -> bool:
    if folder.chosen:  # one of several files stands for all of them
        return bool(SSV2_LABELS.fullmatch(folder.chosen.name) or SSV2_LIST.fullmatch(folder.chosen.name))
    names = [path.name for path in folder.files]
    return any(map(SSV2_LABELS.fullmatch, names)) and any(map(SSV2_LIST.fullmatch, names))


JESTER = ListFormat(
    "jester",
    read_jester,
    lambda folder: bool(_jester_lists(folder)) and not (folder.chosen and is_path_list(folder.chosen)),
    validation_is_test=True,
)
SSV2 = ListFormat("ssv2", read_ssv2, _recognises_ssv2, validation_is_test=True)
