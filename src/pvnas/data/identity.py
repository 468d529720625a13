"""What a run has learnt from: its classes and its videos with their splits, kept in its directory as videos.json.

A folder changes between two commands: videos are added, a class folder is renamed, all of it is moved. A run goes on
with the videos that it began with, by their names, wherever they lie now; what was added is said; what is gone or has
become something else is refused, with what it was and what it is.
"""

import json
import math
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import numpy as np

from pvnas.config import DataConfig, RunConfig
from pvnas.data.catalog import SPLITS, Catalog, Video, VideoTable
from pvnas.data.check.results import JSON_NAME, CheckResult, read_check_results
from pvnas.data.dataset import OpenedVideos, list_all, names_pack, open_videos
from pvnas.data.listing import FORMATS, read_lists
from pvnas.data.listing.registry import Entry
from pvnas.data.listing.splits import catalog_of, check_classes, complete_splits, shares_of, sorted_entries, with_test
from pvnas.data.listing.text import class_key, shown
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic

FORMAT, VERSION = "pvnas-videos", 1
FILE, SUMMARY = "videos.json", "catalog.json"
COLUMNS = ("path", "class", "split", "group", "start", "end", "bytes")
CLASSES_SHOWN = 10
STAT_THREADS = 16  # a network disk answers many questions at once as fast as one


class LeftOut(NamedTuple):
    """A video that was there and could not be used."""

    name: str  # as ``Video.name``
    split: str
    reason: str


@dataclass(frozen=True)
class LearntVideos:
    """What a run has learnt from."""

    catalog: Catalog  # the videos that can be used, under the root where they lay
    bytes_V: Sequence[int]  # size of each one's file, 0 where it is not known
    left_out: Sequence[LeftOut]
    pack: str = ""  # SHA-256 of the pack's catalogue; empty for files


def learnt_of(opened: OpenedVideos, good: Catalog, results: Iterable[CheckResult]) -> LearntVideos:
    """Return what a run learns from: ``good``, those of the opened videos that can be used by their check."""
    if opened.info is not None:
        left_out = [LeftOut(video.path, video.split, video.reason) for video in opened.info.left_out]
        return LearntVideos(good, [0] * len(good.videos), left_out, opened.info.catalog.sha256)
    by_name = {result.path: result for result in results}
    names = {video.name for video in good.videos}
    rest = ((v, by_name[v.name]) for v in opened.catalog.videos if v.name not in names)
    left_out = [LeftOut(video.name, video.split, f"{result.verdict}: {result.detail}") for video, result in rest]
    return LearntVideos(good, [by_name[name].bytes for name in good.videos.names], left_out)


# ---- on disk


def write_learnt(run_dir: Path, learnt: LearntVideos) -> None:
    """Write videos.json. Raises UserError where it cannot be written."""
    catalog = learnt.catalog
    head = {
        "format": FORMAT,
        "version": VERSION,
        "root": str(catalog.root),
        "listed_as": catalog.format,
        "pack": learnt.pack,
        "classes": list(catalog.classes),
        "left_out": learnt.left_out,
        "columns": COLUMNS,
    }
    rows = (
        [v.path, catalog.classes[v.label], v.split, v.group, v.start, v.end if v.end < math.inf else None, size]
        for v, size in zip(catalog.videos, learnt.bytes_V, strict=True)
    )
    lines = ",\n".join(map(json.dumps, rows))
    text = json.dumps(head, indent=1).removesuffix("\n}")
    write_atomic(run_dir / FILE, f'{text},\n "videos": [\n{lines}\n ]\n}}\n')


def read_learnt(run_dir: Path) -> LearntVideos | None:
    """Return what videos.json says, None where there is none. Raises UserError for one that is none of ours."""
    path = run_dir / FILE
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != FORMAT or data["version"] != VERSION or tuple(data["columns"]) != COLUMNS:
            raise ValueError(f'"format" must be "{FORMAT}" and "version" {VERSION}')
        classes, rows = tuple(map(str, data["classes"])), data["videos"]
        ids = {name: number for number, name in enumerate(classes)}
        videos = [
            Video(path, ids[name], split, group, start, math.inf if end is None else end)
            for path, name, split, group, start, end, _ in rows
        ]
        catalog = Catalog.of(Path(data["root"]), classes, videos, data["listed_as"])
        left_out = [LeftOut(*map(str, row)) for row in data["left_out"]]
        return LearntVideos(catalog, [int(row[-1]) for row in rows], left_out, str(data["pack"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} does not say which videos the run has learnt from ({error}); copy it back") from None


# ---- compared with what lies there now


def open_learnt(
    config: RunConfig, run_dir: Path, wanted: Collection[str] = SPLITS
) -> tuple[OpenedVideos, LearntVideos]:
    """Return the videos that a run has learnt from, where the config says that they lie now.

    ``wanted``: the splits of which every video has to be there as it was. What was added since is a remark of the
    catalogue. Raises UserError that names what was and what is where it is not what the run has learnt from.
    """
    learnt = read_learnt(run_dir)
    if names_pack(config.data):
        return _open_learnt_pack(config, run_dir, learnt)
    if learnt is not None and learnt.pack:
        raise UserError(f"{run_dir} has learnt from a pack, and {config.data.path} is none; name the pack")
    folder, name, listing = read_lists(config.data)
    entries = with_test(sorted_entries(folder, listing), FORMATS[name].validation_is_test)
    if learnt is None:
        learnt, wanted = _learnt_unrecorded(config, run_dir, folder.root, entries), SPLITS
    changes = _changes(learnt, folder.root, entries, wanted)
    if changes:
        raise _other_videos(folder.root, run_dir, changes)
    remarks = (*listing.remarks, *_additions(learnt, entries, run_dir))
    catalog = replace(learnt.catalog, root=folder.root, unlabelled=listing.unlabelled, remarks=remarks)
    return OpenedVideos(catalog, config.data), replace(learnt, catalog=catalog)


def _other_videos(path: object, run_dir: Path, changes: Sequence[str]) -> UserError:
    data, run = shlex.quote(str(path)), shlex.quote(str(run_dir))
    return UserError(
        f"{path} is not what {run_dir} has learnt from: {'; '.join(changes)}; put it back as it was, name another "
        f"--dir for a new run, or test this network on it as it is now: pvnas test {data} --dir {run} --out FOLDER"
    )


def _changes(learnt: LearntVideos, root: Path, entries: Sequence[Entry], wanted: Collection[str]) -> list[str]:
    """Return what has changed in the videos of these splits, in words: what it was and what it is."""
    there = {(entry.path, entry.start, entry.end): entry for entry in entries}
    videos = [(v, size) for v, size in zip(learnt.catalog.videos, learnt.bytes_V, strict=True) if v.split in wanted]
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        sizes = list(pool.map(lambda pair: _size(root, pair[0].path), videos))
    gone, relabelled, moved, rewritten = list[Video](), list[str](), list[str](), list[str]()
    for (video, size), size_now in zip(videos, sizes, strict=True):
        entry, name = there.get((video.path, video.start, video.end)), learnt.catalog.classes[video.label]
        if entry is None or size_now is None:
            gone.append(video)
        elif class_key(entry.label) != class_key(name):
            relabelled.append(f"{shown(video.name)}: {shown(name)}, now {shown(entry.label)}")
        elif entry.split and entry.split != video.split:
            moved.append(f"{shown(video.name)}: {video.split}, now {entry.split}")
        elif size and size_now and size != size_now:
            rewritten.append(f"{shown(video.name)}: {size} bytes, now {size_now}")
    kinds = {"of another class": relabelled, "in another split": moved, "other files": rewritten}
    counted = [f"{what}: {_videos(some)} (the first is {some[0]})" for what, some in kinds.items() if some]
    return [*_disappearances(gone, learnt.catalog, entries), *counted]


def _name(entry: Entry) -> str:
    return Video(entry.path, 0, "train", None, entry.start, entry.end).name


def _size(root: Path, path: str) -> int | None:
    """Return the bytes of a file, 0 for a folder of pictures, None where there is nothing."""
    try:
        status = os.stat(os.path.join(root, path))
    except (OSError, ValueError):
        return None
    return status.st_size if S_ISREG(status.st_mode) else 0


def _disappearances(gone: Sequence[Video], catalog: Catalog, entries: Sequence[Entry]) -> list[str]:
    """Return in words which classes and videos are gone, and under which name a class folder seems to go on."""
    if not gone:
        return []
    if len(gone) == len(catalog.videos):
        return [f"not one of its {_videos(gone)} is there (the first is {shown(gone[0].name)})"]
    names_of: dict[str, set[str]] = {}  # of the files of each class that lies there now
    for entry in entries:
        names_of.setdefault(entry.label, set()).add(entry.path.rpartition("/")[2])
    keys = {class_key(name) for name in catalog.classes}
    new = [name for name in names_of if class_key(name) not in keys]
    there = set(map(class_key, names_of))
    words, rest = [], []
    by_class = {label: [video for video in gone if video.label == label] for label in {video.label for video in gone}}
    for label, videos in sorted(by_class.items()):
        name, files = catalog.classes[label], {video.path.rpartition("/")[2] for video in videos}
        if class_key(name) in there:
            rest += videos
            continue
        renamed = next((other for other in new if files <= names_of[other]), None)
        words.append(
            f"its class {shown(name)} is called {shown(renamed)} now"
            if renamed
            else f"its class {shown(name)} is gone ({_videos(videos)})"
        )
    if rest:
        spelled = {class_key(entry.path): entry.path for entry in entries}
        now = spelled.get(class_key(rest[0].path))
        first = shown(rest[0].name) + (f", now {shown(now)}" if now else "")
        words.append(f"gone: {_videos(rest)} (the first is {first})")
    return words


def _videos(some: Collection[object]) -> str:
    return f"{len(some)} video{'s' if len(some) > 1 else ''}"


def _additions(learnt: LearntVideos, entries: Sequence[Entry], run_dir: Path) -> list[str]:
    """Return the remark on videos that were added since; nothing where there are none."""
    known = {(video.path, video.start, video.end) for video in learnt.catalog.videos}
    left_out = {video.name for video in learnt.left_out}
    added = [e for e in entries if (e.path, e.start, e.end) not in known and _name(e) not in left_out]
    if not added:
        return []
    keys = {class_key(name) for name in learnt.catalog.classes}
    new = dict.fromkeys(entry.label for entry in added if class_key(entry.label) not in keys)
    classes = f", of new classes {', '.join(map(shown, new))}" if new else ""
    return [
        f"added since {run_dir} began: {_videos(added)} (the first is {shown(added[0].path)}{classes}), "
        "which are no part of it; for a run with them name another --dir, and to keep the splits of this one "
        f"--data.splits_of {run_dir}"
    ]


# ---- another run, with the splits of an earlier one


def open_to_learn(config: RunConfig) -> OpenedVideos:
    """Return the videos that a new run is to learn from; with ``data.splits_of`` in the splits of an earlier run.

    A new video of a known group, or segment of a known video, goes where that is. Raises UserError.
    """
    earlier = config.data.splits_of
    if not earlier:
        return open_videos(config.data, config.split_seed)
    learnt = read_learnt(Path(earlier))
    if learnt is None or names_pack(config.data):
        what = "is not read for a pack, which has its splits" if learnt else f"holds no {FILE}: name a run directory"
        raise UserError(f"data.splits_of: {earlier} {what}")
    videos = list(learnt.catalog.videos)
    split_of_group = {video.group: video.split for video in videos if video.group}
    split_of_path = {video.path: video.split for video in videos}
    split_of = {each.name: each.split for each in learnt.left_out} | {video.name: video.split for video in videos}

    def split(entry: Entry) -> str:
        known = split_of.get(_name(entry)) or split_of_path.get(entry.path) or split_of_group.get(entry.group or "")
        return known or entry.split or "train"

    folder, name, listing = read_lists(config.data)
    entries = with_test(sorted_entries(folder, listing), FORMATS[name].validation_is_test)
    catalog = catalog_of(folder, name, listing, entries, list(map(split, entries)))
    check_classes(catalog, shares_of(config.data))
    return OpenedVideos(catalog, config.data)


# ---- another set, for a network that knows some classes


def open_whole(data: DataConfig, classes: tuple[str, ...], run_dir: Path) -> OpenedVideos:
    """Return all videos of a set as those to test, with the classes of a run's network.

    Classes go by their names, in any of their spellings. What the network does not know, and what it was trained on, is
    a remark. Raises UserError where it knows none of the classes.
    """
    opened = list_all(data)
    catalog = opened.catalog
    ids = {class_key(name): number for number, name in enumerate(classes)} | {n: i for i, n in enumerate(classes)}
    known = [ids.get(name, ids.get(class_key(name))) for name in catalog.classes]
    if all(number is None for number in known):
        theirs, ours = (", ".join(map(shown, names[:3])) for names in (catalog.classes, classes))
        raise UserError(
            f"{data.path} has no class that {run_dir} has learnt: {theirs}, ... there, {ours}, ... learnt; name the "
            "classes alike"
        )
    label_of = np.array([-1 if number is None else number for number in known])
    labels_V = label_of[catalog.videos.labels]
    rows = np.flatnonzero(labels_V >= 0)
    counts = np.bincount(catalog.videos.labels, minlength=len(known)).tolist()
    foreign = [
        f"{shown(name)} ({n})" for name, n, label in zip(catalog.classes, counts, known, strict=True) if label is None
    ]
    remarks = list(catalog.remarks)
    if foreign:
        left = f"{len(labels_V) - len(rows)} of {len(labels_V)} videos are of classes that {run_dir} has not learnt"
        remarks.append(
            f"{left} and are left out: {', '.join(foreign[:CLASSES_SHOWN])}{', ...' * (len(foreign) > CLASSES_SHOWN)}"
        )
    test = SPLITS.index("test")
    table = catalog.videos.take(rows)
    table = replace(table, labels=labels_V[rows].astype(np.int32), splits=np.full(len(rows), test, dtype=np.uint8))
    remarks += _trained_on(read_learnt(run_dir), opened, table)
    return replace(opened, catalog=replace(catalog, classes=classes, videos=table, remarks=tuple(remarks)))


def _trained_on(learnt: LearntVideos | None, opened: OpenedVideos, table: VideoTable) -> list[str]:
    """Return the remark on files that have name and size of one that a run was trained on; of packs, its path."""
    if learnt is None:
        return []
    rows = [pair for pair in zip(learnt.catalog.videos, learnt.bytes_V, strict=True) if pair[0].split != "test"]
    if opened.pack is not None or learnt.pack:
        paths = {video.path for video, _ in rows}
        seen = [path for path in table.paths if path in paths]
    else:
        trained = {(os.path.basename(video.path), size) for video, size in rows if size}
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            sizes = pool.map(lambda path: _size(opened.catalog.root, path), table.paths)
            files = zip(table.paths, sizes, strict=True)
            seen = [path for path, size in files if (os.path.basename(path), size) in trained]
    if not seen:
        return []
    return [
        f"the network was trained on {_videos(seen)} of these (the first is {shown(seen[0])}): that is no honest test"
    ]


# ---- moved


def located(data: DataConfig, run_dir: Path) -> DataConfig:
    """Return where a run's videos lie, which may have been moved together with its directory.

    What is gone is looked for beside the run directory and the folders above it, by the ends of its path: a project
    that is moved as a whole keeps these. Raises UserError where the videos are nowhere.
    """
    data = copy(data)
    for name in ("path", "annotations", "allow_outside"):
        path = getattr(data, name)
        if not path or "://" in path or os.path.exists(path):
            continue
        moved = next(filter(os.path.exists, _nearby(path, run_dir)), None)
        if moved is None:
            again = f"pvnas test DATA --dir {shlex.quote(str(run_dir))}" if name == "path" else f"--data.{name} PATH"
            raise UserError(f"{path}, the data.{name} of {run_dir}, is gone; say where it lies now: type {again}")
        setattr(data, name, moved)
    return data


def _nearby(path: str, run_dir: Path) -> Iterator[str]:
    """Yield where a path may lie now: its longest end below the nearest folder first."""
    parts = Path(path).parts[1:]
    for folder in Path(os.path.abspath(run_dir)).parents:
        for first in range(len(parts)):
            yield os.path.join(folder, *parts[first:])


# ---- runs of versions that wrote no videos.json


def _learnt_unrecorded(config: RunConfig, run_dir: Path, root: Path, entries: Sequence[Entry]) -> LearntVideos:
    """Return what such a run has learnt from: the videos of verdicts.json, with the splits that only they had."""
    classes = tuple(map(str, _summary(run_dir)["classes"]))
    ids = {class_key(name): number for number, name in enumerate(classes)}
    results = {result.path: result for result in read_check_results(run_dir / JSON_NAME)}
    known = [entry for entry in entries if entry.path in results]
    splits = dict(
        zip(
            (e.path for e in known),
            complete_splits(known, False, shares_of(config.data), config.split_seed),
            strict=True,
        )
    )
    labels = {entry.path: ids.get(class_key(entry.label)) for entry in known}
    foreign = next((entry for entry in known if labels[entry.path] is None), None)
    if foreign:
        raise _other_videos(root, run_dir, [f"{shown(foreign.label)} ({shown(foreign.path)}) is none of its classes"])
    groups = {entry.path: entry.group for entry in known}
    usable = [path for path, result in results.items() if result.usable]

    def video(path: str) -> Video:
        label = labels.get(path)
        return Video(
            path, _class_in(path, ids) if label is None else label, splits.get(path, "train"), groups.get(path)
        )

    videos = list(map(video, usable))
    left_out = [
        LeftOut(path, splits.get(path, "train"), f"{result.verdict}: {result.detail}")
        for path, result in results.items()
        if not result.usable
    ]
    return LearntVideos(Catalog.of(root, classes, videos), [results[path].bytes for path in usable], left_out)


def _class_in(path: str, ids: dict[str, int]) -> int:
    """Return the class that a path names by one of its folders, for a video that is gone; 0 where it names none."""
    return next((ids[key] for key in map(class_key, reversed(path.split("/")[:-1])) if key in ids), 0)


def _summary(run_dir: Path) -> dict[str, Any]:
    path = run_dir / SUMMARY
    try:
        data = json.loads(path.read_bytes())
        return {"classes": list(data["classes"]), "counts": dict(data["counts"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} does not say which classes the run has learnt ({error}); copy it back") from None


def _open_learnt_pack(
    config: RunConfig, run_dir: Path, learnt: LearntVideos | None
) -> tuple[OpenedVideos, LearntVideos]:
    """Return the pack that a run has learnt from. Raises UserError for another one."""
    opened = open_videos(config.data, config.split_seed)
    assert opened.info is not None
    now = learnt_of(opened, opened.catalog, {})
    if learnt is not None:
        same = learnt.pack == now.pack
    else:  # the counts of every class in every split are what is known
        before = _summary(run_dir)
        same = before == {"classes": list(opened.catalog.classes), "counts": opened.catalog.counts()}
    if not same:
        what = (
            "the pack holds other videos"
            if learnt is None or learnt.pack
            else "it has learnt from files, this is a pack"
        )
        raise _other_videos(config.data.path, run_dir, [what])
    return opened, now
