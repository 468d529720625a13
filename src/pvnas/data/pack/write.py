"""`pvnas data pack`: a list of videos rewritten as shards that are read in sequence, or a clip at a time.

    catalogue ─ plan ─▶ jobs ─ processes: decode, JPEG, tar ─▶ shards + records ─▶ catalog.safetensors, pack.json

Until `pack.json` is there, which is written last, the folder is an unfinished pack: the same command goes on with what
is missing. Which bytes come out depends on the list and the options alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pvnas.data.catalog import SPLITS, Catalog, Video
from pvnas.data.pack import unfinished
from pvnas.data.pack.index import Places, index_bytes
from pvnas.data.pack.info import CATALOG, INFO, CatalogFile, LeftOut, PackInfo, PackOptions, ShardInfo, SourceInfo
from pvnas.data.pack.plan import ShardPlan, list_digest, plan_shards
from pvnas.data.pack.shard import ShardJob, ShardRecord
from pvnas.data.pack.workers import pack_shards
from pvnas.data.progress import Bar, Progress, begin
from pvnas.errors import UserError
from pvnas.runtime.files import explained, make_folder, remove_strays, write_atomic
from pvnas.runtime.lock import RunLock

LEFT_OUT = "left_out.json"
Records = Generator[ShardRecord, None, None]


def pack_videos(
    catalog: Catalog,
    folder: Path,
    *,
    short_side: int,
    quality: int = 90,
    videos_per_shard: int = 256,
    workers: int = 1,
    max_bad_share: float = 0.01,
    seed: int = 0,
    progress: Progress | None = None,
) -> PackInfo:
    """Write a pack of the videos into a folder, or go on with one that was interrupted, and return what it holds.

    Frames are scaled so that their shorter side has ``short_side`` pixels, never up. ``workers``: processes that
    decode; 0 decodes in this one. The bytes are the same for any number of them. A video that cannot be read is left
    out, with the reason in `pack.json`. Raises UserError where another pack or anything else lies in the folder, the
    disk is full, a process dies, more than ``max_bad_share`` of the videos or all training videos of a class cannot be
    read; what is finished stays and the same command goes on.
    """
    options = PackOptions(short_side, quality, videos_per_shard, seed)
    _check_options(options, catalog)
    plans = plan_shards(catalog, videos_per_shard, seed)
    source = SourceInfo(catalog.format, len(catalog.videos), list_digest(catalog))
    folder = Path(folder)
    with explained(folder):
        make_folder(folder)
    with RunLock(folder):
        finished = unfinished.begin(folder, options, source, catalog.classes)
        if finished is not None:
            return finished
        records = _packed(catalog, folder, options, plans, workers, progress)
        return _finish(catalog, folder, options, source, plans, records, max_bad_share)


def _check_options(options: PackOptions, catalog: Catalog) -> None:
    for name, value, low, high in (
        ("short_side", options.short_side, 16, 4352),
        ("quality", options.quality, 1, 100),
        ("videos_per_shard", options.videos_per_shard, 1, 100_000),
        ("seed", options.seed, 0, (1 << 53) - 1),
    ):
        if not low <= value <= high:
            raise UserError(f"{name} is {value}; give a number from {low} to {high}")
    if not len(catalog.videos):
        raise UserError(f"no videos to pack in {catalog.root}")


def _packed(
    catalog: Catalog,
    folder: Path,
    options: PackOptions,
    plans: Sequence[ShardPlan],
    workers: int,
    progress: Progress | None,
) -> list[ShardRecord]:
    """Return the records of all shards in the order of the plans, packing those that are not there yet."""
    records = {}
    with begin(progress, "packing videos", len(catalog.videos)) as bar:
        jobs = []
        for plan in plans:
            record = unfinished.finished_shard(folder, plan, catalog)
            if record is None:
                jobs.append(_job(plan, catalog))
            else:
                records[record.name] = record
                bar.advance(len(plan.rows))
        for record in _run(jobs, folder, options, workers, bar):
            unfinished.save_record(folder, record)
            records[record.name] = record
    return [records[plan.name] for plan in plans]


def _run(jobs: Sequence[ShardJob], folder: Path, options: PackOptions, workers: int, bar: Bar) -> Records:
    shards = pack_shards(jobs, folder, options, min(workers, len(jobs)), lambda path: bar.advance(1))
    try:
        yield from shards
    finally:
        shards.close()  # ends the processes, whose half-written files can go then
        remove_strays(folder)


def _job(plan: ShardPlan, catalog: Catalog) -> ShardJob:
    videos = tuple(catalog.videos.take(plan.rows))
    keys = tuple(plan.key(place) for place in range(len(videos)))
    # Absolute, since a process of its own must not depend on where this one stands.
    return ShardJob(plan.name, catalog.root.absolute(), keys, videos, tuple(catalog.classes[v.label] for v in videos))


def _finish(
    catalog: Catalog,
    folder: Path,
    options: PackOptions,
    source: SourceInfo,
    plans: Sequence[ShardPlan],
    records: Sequence[ShardRecord],
    max_bad_share: float,
) -> PackInfo:
    """Write what stands beside the shards, `pack.json` last."""
    left_out = _left_out(catalog, plans, records)
    videos, rows = _packed_rows(catalog, plans, records)
    if left_out:
        text = json.dumps([{"path": v.path, "split": v.split, "reason": v.reason} for v in left_out], indent=1)
        write_atomic(folder / LEFT_OUT, text + "\n")
        _check_left_out(catalog, left_out, videos, max_bad_share, folder)
    content = index_bytes(videos, Places.of(rows))
    write_atomic(folder / CATALOG, content)
    info = PackInfo(
        made_by=", ".join(f"{name} {version(name)}" for name in ("pvnas", "av", "simplejpeg")),
        options=options,
        source=source,
        classes=catalog.classes,
        counts={split: sum(video.split == split for video in videos) for split in SPLITS},
        frames=sum(row[-1] for row in rows),
        shards=tuple(ShardInfo(r.name, r.bytes, r.sha256, len(r.samples)) for r in records),
        left_out=tuple(left_out),
        catalog=CatalogFile(len(content), hashlib.sha256(content).hexdigest()),
    )
    write_atomic(folder / INFO, info.to_json())
    unfinished.clear(folder)
    (folder / LEFT_OUT).unlink(missing_ok=True)
    return info


def _packed_rows(
    catalog: Catalog, plans: Sequence[ShardPlan], records: Sequence[ShardRecord]
) -> tuple[list[Video], list[tuple[int, ...]]]:
    """Return the videos of the pack in its order, and the row of each for the columns of Places."""
    videos: list[Video] = []
    rows: list[tuple[int, ...]] = []
    for number, (plan, record) in enumerate(zip(plans, records, strict=True)):
        places = np.array([sample[0] for sample in record.samples], dtype=np.int64)
        videos += catalog.videos.take(plan.rows[places])
        rows += [(number, *sample[1:]) for sample in record.samples]
    return videos, rows


def _left_out(catalog: Catalog, plans: Sequence[ShardPlan], records: Sequence[ShardRecord]) -> list[LeftOut]:
    found = []
    for plan, record in zip(plans, records, strict=True):
        for place, reason, _ in record.left_out:
            video = catalog.videos[plan.rows.item(place)]
            found.append(LeftOut(video.path, video.split, reason))
    return found


def _check_left_out(
    catalog: Catalog, left_out: Sequence[LeftOut], videos: Sequence[Video], max_bad_share: float, folder: Path
) -> None:
    n, bad = len(catalog.videos), len(left_out)
    # A repr keeps a file name with control characters on one line.
    first = f"the first is {left_out[0].path!r} ({left_out[0].reason}); all are in {folder / LEFT_OUT}"
    if bad > max_bad_share * n:
        enough = math.ceil(1000 * bad / n) / 1000
        raise UserError(
            f"{bad} of {n} videos cannot be read, more than max_bad_share={max_bad_share:g} allows; {first}; mend "
            f"them, or allow more (--max-bad-share {enough:g}), then type the same command again"
        )
    trained = {video.label for video in videos if video.split == "train"}
    for label, number in enumerate(catalog.counts()["train"].values()):
        if number and label not in trained:
            name = catalog.classes[label]
            raise UserError(f"no training video of class {name!r} can be read; {first}; mend them or remove the class")
