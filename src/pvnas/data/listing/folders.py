"""Folders of videos, `class/video` and `train/class/video`, in the spellings and nestings that people have.

What lies there is found in one pass (``content``); `_layout` then says which folders are splits and which are classes.
Where that could be meant otherwise, and for every file that is not read, there is a remark.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pvnas.data.catalog import SPLITS
from pvnas.data.listing.content import Content, content_of
from pvnas.data.listing.registry import (
    LIST_FOLDERS,
    SPLIT_NAMES,
    Entry,
    ListFolder,
    ListFormat,
    Listing,
    Tree,
    group_in_name,
)
from pvnas.data.listing.table import SPLIT_FILE
from pvnas.data.listing.text import class_key, shown
from pvnas.errors import UserError

PLAIN_SPLITS = ("train", "val", "valid", "validation", "test")  # folders of these names need no remark
GENERIC = (
    r"data|datasets?|sets?|videos?|clips?|frames|rawframes|splits?|parts?|images?|imgs?|jpgs?|rgb|files?|folders?|x|p"
)
# train, Training, test_videos, train_256x256, valset: one word for a split among words that say nothing.
SPLIT_FOLDER = re.compile(rf"(?:{GENERIC})*({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?:{GENERIC})*")
WRAPPER = re.compile(rf"(?:{GENERIC})+|{SPLIT_FOLDER.pattern}")
NO_LETTERS = re.compile(r"[\W\d_]+")
AS_CLASSES = "type --data.format classes"
EVALUATION = ("eval", "evaluation")
NAMED_SHOWN, ENDINGS_SHOWN = 4, 8


class Part(NamedTuple):
    """A folder whose videos have one class and one split."""

    label: str
    split: str | None  # None where we are to choose
    folder: Content


class Layout(NamedTuple):
    """How a folder is read, and in remarks what could be meant otherwise."""

    parts: list[Part]
    remarks: list[str]


def read_folders(folder: ListFolder) -> Listing:
    """Return the videos of class/video or of train/class/video. Raises UserError."""
    if folder.video:
        return Listing([Entry(folder.tree.checked(folder.video, str(folder.root)), _name(folder.root))])
    top = content_of(folder.tree, apart=folder.told)
    layout = _layout(top, _name(folder.root))
    called = sorted({part.label for part in layout.parts if SPLIT_FOLDER.fullmatch(_letters(part.label))})
    unsaid = [name for name in called if not any(shown(name) in remark for remark in layout.remarks)]
    more = [f"{_some(unsaid)} is read as a class, and not as a split"] if unsaid else []
    return _listing(folder, top, Layout(layout.parts, [*layout.remarks, *more]))


def read_classes(folder: ListFolder) -> Listing:
    """Return the videos of the folders in the root, each a class whatever it is called. Raises UserError."""
    top = content_of(folder.tree, apart=folder.told)
    return read_folders(folder) if folder.video else _listing(folder, top, _classes(top))


def _name(root: Path) -> str:
    return os.path.basename(os.path.abspath(root)) or "videos"


def _listing(folder: ListFolder, top: Content, layout: Layout) -> Listing:
    parts, remarks = _one_spelling(layout.parts)
    entries = []
    for part in parts:
        for path, name in _videos(folder.tree, part.folder):
            entries.append(Entry(path, part.label, part.split, group_in_name(part.label, name)))
    entries, twice = _twice_there(entries)
    remarks = [*remarks, *twice]
    taken = {entry.path for entry in entries}
    remarks = [
        *layout.remarks,
        *remarks,
        *_nested(parts),
        *_unread(top, taken),
        *_unusual(top, taken, folder.frame_rate),
    ]
    classes = sorted({part.label for part in parts}) if entries else None
    return Listing(entries, classes, remarks=tuple(remarks))


def _videos(tree: Tree, folder: Content) -> Iterator[tuple[str, str]]:
    """Yield path and name of the videos below a class folder, folders of pictures among them. Raises UserError."""
    for name in folder.videos:
        path = folder.of(name)
        yield tree.checked(path, str(tree.root)) if name in folder.links else path, name
    for inner in folder.folders:
        if inner.is_link:
            raise UserError(f"{inner.path} is a link to a folder inside a class; put the folder itself there")
        if inner.is_pictures:
            yield inner.path, inner.name
        else:
            yield from _videos(tree, inner)


# ---- which folders are splits, and which are classes


def _layout(top: Content, name: str) -> Layout:
    """Return how a folder that is called `name` is read."""
    splits = _split_folders(top)
    if splits:
        return _by_split(top, name, splits)
    groups = top.groups
    if not groups or (top.has_own_videos and len(groups) == 1):
        return Layout([Part(name, None, top)], [_no_classes(shown(name))] if top.has_videos else [])
    if len(groups) > 1 and all(map(_holds_only_splits, groups)):
        return _splits_in_classes(groups)
    if len(groups) == 1 and not groups[0].has_own_videos:
        inner = _layout(groups[0], groups[0].name)
        if len({part.label for part in inner.parts}) > 1 or any(part.split for part in inner.parts):
            remark = f"{shown(groups[0].path)} is read through to the folders in it: no other folder holds videos"
            return Layout(inner.parts, [remark, *inner.remarks])
    return _classes(top)


def _split_folders(top: Content) -> dict[str, str]:
    """Return the split of each folder with videos whose name says one: train, Testing, val_256, or ucf_train."""
    names = [folder.name for folder in top.folders if folder.has_videos and not folder.is_pictures]
    words = {name: match[1] for name in names if (match := SPLIT_FOLDER.fullmatch(_letters(name)))}
    words = words or _prefixed_splits(names)
    others = {SPLIT_NAMES[word] for word in words.values() if word not in EVALUATION}
    # Beside a dev or val, eval is the test; without one it is what training is watched by.
    evaluation = "test" if "val" in others and "test" not in others else "val"
    return {name: evaluation if word in EVALUATION else SPLIT_NAMES[word] for name, word in words.items()}


def _letters(name: str) -> str:
    return NO_LETTERS.sub("", name.casefold())


def _prefixed_splits(names: Sequence[str]) -> dict[str, str]:
    """Return the word for a split in names that differ by nothing else, ucf_train and ucf_test; else nothing."""
    tokens = {name: re.findall(r"[^\W\d_]+", name.casefold()) for name in names}
    words = {name: [word for word in parts if word in SPLIT_NAMES] for name, parts in tokens.items()}
    if len(names) < 2 or any(len(found) != 1 for found in words.values()):
        return {}
    rests = {tuple(word for word in parts if word not in SPLIT_NAMES) for parts in tokens.values()}
    return {name: found[0] for name, found in words.items()} if len(rests) == 1 else {}


def _by_split(top: Content, name: str, splits: Mapping[str, str]) -> Layout:
    """Return the layout of a folder in which the names of some folders say splits."""
    named = [folder for folder in top.folders if folder.name in splits]
    others = [folder.name for folder in top.groups if folder.name not in splits]
    classes = Counter(inner for folder in named for inner in {group.name for group in folder.groups})
    if others and max(classes.values(), default=0) < 2:
        trains = [folder for folder in named if splits[folder.name] == "train"]
        if not trains or not classes or any(folder.has_own_videos for folder in trains):
            remark = (
                f"{_some(splits)} beside {_some(others)} is read as a class; where it is a split, let it hold nothing "
                f"but class folders ({next(iter(splits))}/CLASS/video)"
            )
            return _classes(top, [remark])
    if not classes:
        parts = [Part(name, splits[folder.name], folder) for folder in named]
        return Layout(parts, [f"{_no_classes(_some(splits))}; where {_some(splits)} are classes, {AS_CLASSES}"])
    odd = set(splits) - set(PLAIN_SPLITS) or len(set(splits.values())) < len(splits)
    in_order = sorted(splits.items(), key=lambda pair: SPLITS.index(pair[1]))
    spelled = ", ".join(f"{shown(each)} as {split}" for each, split in in_order)
    remarks = [f"folders read as splits: {spelled}; where they are classes, {AS_CLASSES}"] if odd else []
    idle = [f.name for f in top.folders if not f.has_videos and SPLIT_FOLDER.fullmatch(_letters(f.name))]
    remarks += [f"{_some(idle)} holds no videos, and is read as if it were not there"] if idle else []
    parts = []
    for folder, container in _read_through(named):
        if container is not folder:
            remarks.append(f"{shown(container.path)} is read through to the folders in it")
        inner = _classes(container, split=splits[folder.name])
        parts, remarks = parts + inner.parts, remarks + inner.remarks
    return Layout(parts, remarks)


def _read_through(named: Sequence[Content]) -> list[tuple[Content, Content]]:
    """Return for each folder of a split the folder in it, or below, that holds its class folders: train/train/class."""
    containers = {folder.name: folder for folder in named}
    while True:
        names = {group.name for container in containers.values() for group in container.groups}
        classes = {g.name for c in containers.values() for group in c.groups for g in group.groups}
        deeper = {}
        for name, container in containers.items():
            elsewhere = {group.name for each in containers.values() if each is not container for group in each.groups}
            only = container.groups[0] if len(container.groups) == 1 and not container.has_own_videos else None
            if only is None or only.has_own_videos or not only.groups:
                continue
            is_wrapper = bool(WRAPPER.fullmatch(_letters(only.name))) and only.name not in elsewhere
            if is_wrapper or (names == {only.name} and len(classes) > 1):
                deeper[name] = only
        if not deeper:
            return [(folder, containers[folder.name]) for folder in named]
        containers |= deeper


def _holds_only_splits(group: Content) -> bool:
    """Whether the folders in a class folder are splits: class/train/video."""
    splits = _split_folders(group)
    return not group.has_own_videos and all(each.name in splits for each in group.groups)


def _splits_in_classes(groups: Sequence[Content]) -> Layout:
    """Return the layout class/train/video."""
    every = {folder.name: folder for group in groups for folder in group.groups}
    names = Content("")
    names.folders = list(every.values())
    splits = _split_folders(names)  # all names together: whether eval is the test hangs on what is beside it
    parts = [Part(group.name, splits[folder.name], folder) for group in groups for folder in group.groups]
    spelled = ", ".join(f"{shown(name)} as {split}" for name, split in sorted(splits.items()))
    return Layout(parts, [f"folders in the class folders read as splits: {spelled}; where they are none, {AS_CLASSES}"])


def _classes(top: Content, remarks: Sequence[str] = (), split: str | None = None) -> Layout:
    """Return the layout whose classes are the folders in this one, lists of videos apart."""
    held = [
        folder
        for folder in top.folders
        if folder.has_videos or not (folder.written or LIST_FOLDERS.fullmatch(folder.name))
    ]
    pictures = [folder.path for folder in held if folder.is_pictures]
    empty = [folder.path for folder in held if not folder.has_videos]
    remarks = list(remarks)
    if empty:
        remarks.append(f"class folder {_some(empty)} holds no videos; fill it or remove it")
    if pictures:
        remarks.append(
            f"pictures lie in the class folder {_some(pictures)} itself and are not read; a video that lies as "
            f"pictures is a folder of its own, such as {pictures[0]}/clip1/0001.jpg"
        )
    return Layout([Part(folder.name, split, folder) for folder in held], remarks)


def _no_classes(where: str) -> str:
    return (
        f"no class folders in {where}, so all videos are read as one class; for more put those of each class in a "
        f"folder of its own (CLASS/video), or list them in {SPLIT_FILE} (path,label)"
    )


def _twice_there(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the entries, a video and the folder of its own pictures in one group, and the remark on both."""
    folders = {entry.path for entry in entries if not os.path.splitext(entry.path)[1]}
    both = [entry.path for entry in entries if os.path.splitext(entry.path)[0] in folders - {entry.path}]
    stems = {os.path.splitext(path)[0] for path in both}
    if not both:
        return entries, []
    grouped = [
        entry._replace(group=entry.group or stem) if (stem := os.path.splitext(entry.path)[0]) in stems else entry
        for entry in entries
    ]
    return grouped, [
        f"{_some(both)} lie there as files and as folders of pictures of the same name: both are read, in the same "
        "split; take one of them away"
    ]


def _one_spelling(parts: Sequence[Part]) -> tuple[list[Part], list[str]]:
    """Return the parts with one name for each class, however the folders of other splits spell it, and remarks."""
    forms: dict[tuple[str | None, str], set[str]] = {}  # the names in a split that are one name in NFC
    first: dict[str, tuple[str | None, list[str]]] = {}  # by key: the first split with such a class, and its names
    in_order = sorted(parts, key=lambda part: SPLITS.index(part.split or "train"))
    in_nfc = [part._replace(label=unicodedata.normalize("NFC", part.label)) for part in in_order]
    for part, written in zip(in_nfc, in_order, strict=True):
        forms.setdefault((part.split, part.label), set()).add(written.label)
        split, names = first.setdefault(class_key(part.label), (part.split, []))
        if split == part.split and part.label not in names:
            names.append(part.label)
    named, merged = [], dict[str, str]()
    for part in in_nfc:
        names = first[class_key(part.label)][1]
        if part.label not in names and len(names) == 1:
            merged[part.label] = names[0]
        named.append(part._replace(label=merged.get(part.label, part.label)))
    remarks = [f"{shown(name)} and {shown(other)} in two splits are one class" for name, other in merged.items()]
    double = [label for (_, label), written in forms.items() if len(written) > 1]
    remarks += [f"folders whose names are one in NFC are one class: {_some(double)}"] if double else []
    alike = [names for _, names in first.values() if len(names) > 1]
    remarks += [f"{_some(names)} are classes of their own; where they are one, merge their folders" for names in alike]
    return named, remarks


# ---- what is worth saying


def _some(names: Iterable[str]) -> str:
    """Return the first of the names, as a message shows them."""
    names = list(names)
    more = f" and {len(names) - NAMED_SHOWN} more" if len(names) > NAMED_SHOWN else ""
    return ", ".join(map(shown, names[:NAMED_SHOWN])) + more


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"


def _unread(top: Content, taken: Collection[str]) -> list[str]:
    """Return what is to be said of files that are not read: where videos lie, and the endings of all others."""
    places, endings, first = Counter[str](), Counter[str](), ""
    for folder in top.walk():
        videos = [name for name in folder.videos if folder.of(name) not in taken]
        places[folder.path.partition("/")[0]] += len(videos)
        for files in (folder.others,) if folder.path in taken else (folder.others, folder.pictures):
            endings.update(files.endings)
            first = first or (folder.of(files.first) if files.first else "")
    remarks = []
    if videos_left := places.total():
        where = ", ".join(f"{n} {f'in {shown(name)}' if name else 'in no folder'}" for name, n in places.items() if n)
        remarks.append(
            f"{_counted(videos_left, 'video')} not read, as nothing says their class: {where}; put them in class "
            f"folders, or where every folder is a class, {AS_CLASSES}"
        )
    if written := top.written:
        is_one = len(written) == 1
        remarks.append(
            f"{_some(folder.path for folder in written)} {'was' if is_one else 'were'} written by pvnas and "
            f"{'is' if is_one else 'are'} not read"
        )
    if endings:
        most = endings.most_common(ENDINGS_SHOWN)
        kinds = ", ".join(f"{number} {ending or 'without an ending'}" for ending, number in most)
        rest = len(endings) - ENDINGS_SHOWN
        kinds += f" and {rest} more endings" if rest > 0 else ""
        remarks.append(f"{_counted(endings.total(), 'file')} not read: {kinds} (the first: {shown(first)})")
    return remarks


def _unusual(top: Content, taken: Collection[str], rate: float) -> list[str]:
    """Return what is to be said of videos that are read but do not lie as a file with a video's ending."""
    pictures = [folder.path for folder in top.walk() if folder.path in taken]
    found = [folder.of(name) for folder in top.walk() for name in folder.found if folder.of(name) in taken]
    remarks = []
    if pictures:
        remarks.append(
            f"videos that lie as folders of pictures: {len(pictures)} (the first: {shown(pictures[0])}), shown at "
            f"{rate:g} pictures a second; for another rate type --data.frame_rate N"
        )
    if found:
        remarks.append(
            f"{_counted(len(found), 'file')} read as videos by their first bytes, not by a video's ending "
            f"(the first: {shown(found[0])})"
        )
    return remarks


def _nested(parts: Sequence[Part]) -> list[str]:
    """Return what is to be said of folders in class folders that could be splits, or the classes: camera1/run."""
    for part in parts:
        if splits := _split_folders(part.folder):
            inner = shown(part.folder.of(next(iter(splits))))
            return [
                f"{inner} is read as part of class {shown(part.label)} and not as a split, as not every class folder "
                "holds nothing but splits (CLASS/train/video)"
            ]
    often = Counter(group.name for part in parts for group in part.folder.groups)
    shared = [group.path for part in parts for group in part.folder.groups if often[group.name] > 1]
    alone = [part.folder.groups for part in parts if not part.folder.has_own_videos]
    several = [groups[0].path for groups in alone if len(groups) > 1]
    if shared or several:
        return [
            f"folders in class folders, such as {shown((shared or several)[0])}, are read as part of their class; "
            f"where they are the classes, put them side by side in one folder, or list the videos in {SPLIT_FILE}"
        ]
    return []


FOLDERS = ListFormat("folders", read_folders, lambda folder: not folder.chosen)
CLASSES = ListFormat("classes", read_classes, lambda folder: False)
