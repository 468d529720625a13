"""Something-Something V2: JSON lists of id and template; labels.json gives each template's class id as a string.

The class is the template without its brackets, never the free text under `label`. The test list has ids only. Videos
lie flat, `<id>.webm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pvnas.data.listing.finder import Finder, copies_of
from pvnas.data.listing.registry import Entry, ListFolder, ListFormat, Listing
from pvnas.data.listing.text import MAX_CLASSES, Pairs, check_names, parse_number, read_json, shown
from pvnas.errors import UserError

LABELS = re.compile(r"(?:something-something-v2-)?labels\.json", re.IGNORECASE)
LIST = re.compile(r"(?:something-something-v2-)?(train|validation|test)\.json", re.IGNORECASE)
SPLITS = {"train": "train", "validation": "val", "test": "test"}
IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,64}")
BRACKETS = str.maketrans("", "", "[]")


class _Clip(NamedTuple):
    """What we need of a JSON object: the rest of the largest list would take hundreds of megabytes."""

    id: Any
    template: Any

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> _Clip:
        values = dict(pairs)
        return cls(values.get("id"), values.get("template"))


def read_ssv2(folder: ListFolder) -> Listing:
    """Return the videos of all lists. Raises UserError that names the file and the number of the entry."""
    labels = next((path for path in folder.files if LABELS.fullmatch(path.name)), None)
    if labels is None:
        raise UserError(f"no something-something-v2-labels.json in {folder.folder}; put the official file there")
    lists = {match[1].lower(): path for path in folder.files if (match := LIST.fullmatch(path.name))}
    if not lists:
        raise UserError(f"no something-something-v2-train.json in {folder.folder}; put the official lists there")
    classes = _classes(labels)
    reader = _Reader(Finder(folder.tree), classes)
    entries = [entry for name in SPLITS if name in lists for entry in reader.entries(lists[name], SPLITS[name])]
    return Listing(entries, classes, reader.unlabelled)


def _classes(path: Path) -> tuple[str, ...]:
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


class _Reader:
    """Reads lists; counts what has no label."""

    def __init__(self, finder: Finder, classes: tuple[str, ...]) -> None:
        self.finder = finder
        self.unlabelled = 0
        self.by_template = {name: name for name in classes}
        """Class of every template seen, so that the class's name is one object for all its videos."""

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        clips = read_json(path, _Clip.of)
        if not isinstance(clips, list):
            raise UserError(f'{path}: expected a JSON list of {{"id": ..., "template": ...}}; give the official file')
        folders, home = self.finder.flat(split), self.finder.home(split)
        for number, clip in enumerate(clips, start=1):
            where = f"{path}, entry {number}"
            if not isinstance(clip, _Clip):
                raise UserError(f'{where}: {shown(clip)} is no object; expected {{"id": "78687", "template": "..."}}')
            name = str(clip.id) if type(clip.id) is int and 0 <= clip.id < 1 << 63 else clip.id
            if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
                raise UserError(f"{where}: id {shown(clip.id)} is no video id; expected digits such as 78687")
            if clip.template is None and split == "test":
                self.unlabelled += 1
                continue
            names = copies_of(name, ".webm")
            video = self.finder.tree.checked(self.finder.find(folders, names) or home + names[0], where)
            yield Entry(video, self._class(clip.template, where), split, None, str(path), number)

    def _class(self, template: Any, where: str) -> str:
        if not isinstance(template, str):
            raise UserError(f"{where}: template {shown(template)} is no text; give the official file")
        name = self.by_template.get(template) or self.by_template.get(template.translate(BRACKETS))
        if name is None:
            raise UserError(f"{where}: template {shown(template)} is not in the labels file; give the official ones")
        self.by_template[template] = name
        return name


def _recognises(folder: ListFolder) -> bool:
    if folder.chosen:  # one of several files stands for all of them
        return folder.chosen.name.lower().endswith(".json")
    names = [path.name for path in folder.files]
    return any(map(LABELS.fullmatch, names)) and any(map(LIST.fullmatch, names))


SSV2 = ListFormat("ssv2", read_ssv2, _recognises, validation_is_test=True)
