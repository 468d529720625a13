"""What is kept of a pack while it is being written: what it is to be, and a record of each finished shard.

Both lie in a folder of their own, which goes when `pack.json` is written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pvnas.data.catalog import Catalog
from pvnas.data.pack.info import (
    FORMAT,
    INFO,
    VERSION,
    DamageError,
    PackInfo,
    PackOptions,
    SourceInfo,
    load_object,
    parse_info,
    shown,
)
from pvnas.data.pack.plan import ShardPlan
from pvnas.data.pack.shard import ShardRecord, file_state, read_record
from pvnas.errors import UserError
from pvnas.runtime.files import TEMPORARY, explained, remove_folder, write_atomic
from pvnas.runtime.lock import FILE as LOCK

FOLDER, GOAL = "unfinished", "goal.json"


def begin(folder: Path, options: PackOptions, source: SourceInfo, classes: tuple[str, ...]) -> PackInfo | None:
    """Note what the pack is to be; return what it holds where it is finished already.

    Raises UserError where the folder holds a pack of other options or another list, naming one field that differs, or
    anything else.
    """
    goal = _goal(options, source, classes)
    if (folder / INFO).is_file():
        info = _finished(folder)
        _compare(folder, _goal(info.options, info.source, info.classes), goal)
        clear(folder)  # what a process that was killed after its last step has left
        return info
    file = folder / FOLDER / GOAL
    if file.is_file():
        _compare(folder, _read_goal(file), goal)
        return None
    others = [path.name for path in folder.iterdir() if not path.name.startswith((TEMPORARY, LOCK, FOLDER))]
    if others:
        raise UserError(f"{folder} holds {min(others)!r} and is no pack; name a new or an empty folder")
    write_atomic(file, json.dumps(goal, indent=1) + "\n")
    return None


def finished_shard(folder: Path, plan: ShardPlan, catalog: Catalog) -> ShardRecord | None:
    """Return the record of a shard that need not be packed again.

    It is packed again where its file is not there in full, and where a video that was left out has changed since.
    """
    record = read_record(_record_path(folder, plan.name))
    if record is None or record.name != plan.name:
        return None
    try:
        if (folder / plan.name).stat().st_size != record.bytes:
            return None
    except OSError:
        return None
    for place, _, state in record.left_out:
        if file_state(catalog.root / catalog.videos[plan.rows.item(place)].path) != state:
            return None
    return record


def save_record(folder: Path, record: ShardRecord) -> None:
    """Note that a shard is finished."""
    write_atomic(_record_path(folder, record.name), record.to_json())


def clear(folder: Path) -> None:
    """Remove what a finished pack needs no more."""
    with explained(folder):
        if (folder / FOLDER).is_dir():
            remove_folder(folder / FOLDER)


def _goal(options: PackOptions, source: SourceInfo, classes: tuple[str, ...]) -> dict[str, Any]:
    names = hashlib.sha256(json.dumps(classes).encode()).hexdigest()
    about = {"source format": source.format, "number of videos": source.videos, "list of videos": source.sha256}
    return {"format": FORMAT, "version": VERSION, **asdict(options), "classes": names, **about}


def _compare(folder: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if there.get(name) != value:
            digests = name in ("classes", "list of videos")
            both = "" if digests else f" ({shown(there.get(name))} there, {shown(value)} asked for)"
            raise UserError(f"{folder} holds a pack that differs in {name}{both}; name another folder, or remove it")


def _read_goal(file: Path) -> dict[str, Any]:
    try:
        return load_object(file.read_bytes(), GOAL)
    except (OSError, DamageError) as error:
        raise UserError(f"{file} cannot be read ({error}); remove {file.parent.parent} to pack anew") from None


def _finished(folder: Path) -> PackInfo:
    try:
        info = parse_info((folder / INFO).read_bytes())
    except (OSError, DamageError) as error:
        raise UserError(f"{folder}: {error}; remove the folder to pack anew") from None
    for shard in info.shards:
        path = folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise UserError(f"{path} is missing or not whole; copy it back, or remove {folder} to pack anew")
    return info


def _record_path(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.json"
