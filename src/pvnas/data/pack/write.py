"""`pvnas data pack`: a list of videos rewritten as tar files that are read in sequence, or a clip at a time.

    catalogue ─ plan ─▶ jobs ─ processes: decode, JPEG, tar ─▶ tar files + records ─▶ catalog.safetensors, pack.json

The plan is a pure function of the list and the options, known before anything is decoded. So tar files can be written
in any order, by any number of processes and after any interruption, with the same bytes. Until `pack.json` is there,
which is written last, the folder is an unfinished pack: the same command goes on with what is missing. What the pack is
to be, and a record of each finished tar file, lie in a folder of their own until then.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pvnas.data.catalog import SPLITS, Catalog, Video, bytes_of
from pvnas.data.pack.format import (
    CATALOG,
    FORMAT,
    INFO,
    VERSION,
    CatalogFile,
    DamageError,
    LeftOut,
    MemberIndex,
    PackedList,
    PackInfo,
    PackOptions,
    PackShard,
    index_bytes,
    load_object,
    parse_info,
    shown,
)
from pvnas.data.pack.shard import TIMEOUT, PackShardJob, PackShardRecord, file_state, late_state, pack_shard
from pvnas.data.processes import MORE_TIME, Failure, check_deadline, run_jobs
from pvnas.data.video.decode import DEFAULT_RATE
from pvnas.errors import UserError
from pvnas.runtime.files import (
    LOCK,
    TEMPORARY,
    explained,
    is_held,
    make_folder,
    remove_folder,
    remove_strays,
    run_lock,
    write_atomic,
)
from pvnas.runtime.progress import Progress, begin
from pvnas.runtime.signals import Interrupted, StopRequest
from pvnas.version import __version__

LEFT_OUT, UNFINISHED, GOAL, PART = "left_out.json", "unfinished", "goal.json", "part-{}-of-{}"


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
    deadline: float = 60.0,
    part: tuple[int, int] | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> PackInfo | None:
    """Write a pack of the videos into a folder, or go on with one that was interrupted, and return what it holds.

    ``part`` (3, 16): only the third of sixteen parts of its tar files, beside others that write the other parts at the
    same time, and return None; the same call without a part then writes what is missing, and finishes the pack.

    Frames are scaled so that their shorter side has ``short_side`` pixels, never up. ``workers``: processes that
    decode; 0 decodes in this one. The bytes are the same for any number of them. A video that cannot be read, or that
    takes a process longer than ``deadline`` seconds and as many more for each minute and each 60 MiB of it, is left
    out, with the reason in `pack.json`. Raises Interrupted when ``stop`` is requested, UserError where another pack or
    anything else lies in the folder, the disk is full, a process dies, more than ``max_bad_share`` of the videos or all
    training videos of a class cannot be read; what is finished stays and the same command goes on.
    """
    options = PackOptions(short_side, quality, videos_per_shard, seed)
    _check_options(options, catalog)
    check_deadline(deadline)
    jobs = plan_shards(catalog, videos_per_shard, seed)
    packed = PackedList(catalog.format, len(catalog.videos), list_digest(catalog))
    folder = Path(folder)
    with explained(folder):
        make_folder(folder)
    goal = _goal(options, packed, catalog.classes)
    if part is not None:
        _write_part(folder, goal, options, jobs, part, workers, deadline, progress, stop or StopRequest())
        return None
    with run_lock(folder):
        _check_parts_ended(folder)
        info = _begin(folder, goal)
        if info is None:
            with begin(progress, "packing videos", len(catalog.videos)) as bar:
                records = _write_shards(folder, options, jobs, workers, deadline, bar.advance, stop or StopRequest())
            info = _finish(catalog, folder, options, packed, jobs, records, max_bad_share, deadline)
        with explained(folder):
            if (folder / UNFINISHED).is_dir():
                remove_folder(folder / UNFINISHED)
        (folder / LEFT_OUT).unlink(missing_ok=True)
        return info


def _write_part(
    folder: Path,
    goal: dict[str, Any],
    options: PackOptions,
    jobs: Sequence[PackShardJob],
    part: tuple[int, int],
    workers: int,
    deadline: float,
    progress: Progress | None,
    stop: StopRequest,
) -> None:
    """Write the tar files of a part, and the records that the whole will be made of. Raises as ``pack_videos``."""
    number, parts = part
    mine, place = jobs[number - 1 :: parts], folder / UNFINISHED / PART.format(number, parts)
    _check_whole_not_written(folder)
    if _begin(folder, goal) is not None:
        return
    with explained(place):
        make_folder(place)
    videos = sum(len(job.catalog.videos) for job in mine)
    with run_lock(place), begin(progress, f"packing part {number} of {parts}", videos) as bar:
        _check_whole_not_written(folder)  # each looks for the other once it has its own lock
        _write_shards(folder, options, mine, workers, deadline, bar.advance, stop, alone=False)


def _check_whole_not_written(folder: Path) -> None:
    if is_held(folder / LOCK):
        raise UserError(f"{folder}: the whole pack is being written; wait for it")


def _check_parts_ended(folder: Path) -> None:
    """Raise UserError where a part of the pack is still being written."""
    for lock in sorted((folder / UNFINISHED).glob(f"{PART.format('*', '*')}/{LOCK}")):
        if is_held(lock):
            raise UserError(f"{folder}: {lock.parent.name} is still being written; wait for it")


def _check_options(options: PackOptions, catalog: Catalog) -> None:
    for name, low, high in (
        ("short_side", 16, 4352),
        ("quality", 1, 100),
        ("videos_per_shard", 1, 100_000),
        ("seed", 0, (1 << 53) - 1),
    ):
        if not low <= getattr(options, name) <= high:
            raise UserError(f"{name} is {getattr(options, name)}; give a number from {low} to {high}")
    if not len(catalog.videos):
        raise UserError(f"no videos to pack in {catalog.root}")


# ---- which video goes into which tar file


def plan_shards(catalog: Catalog, videos_per_shard: int, seed: int) -> list[PackShardJob]:
    """Return the tar files of all splits, each of ``videos_per_shard`` videos but for the last of its split.

    Whoever reads them in sequence sees every class and every group spread evenly: see ``spread_order``.
    """
    jobs = []
    for split in SPLITS:
        part = catalog.select(split)
        order = spread_order(list(part.videos), seed)
        for number, first in enumerate(range(0, len(order), videos_per_shard)):
            rows = order[first : first + videos_per_shard]
            jobs.append(PackShardJob(f"{split}-{number:05d}.tar", part.take(rows)))
    return jobs


def spread_order(videos: list[Video], seed: int) -> NDArray[np.int64]:
    """Return a random order (N,) by (seed, names) in which neighbours differ in class, and within a class in group.

    A class of n videos has one at a random place in each n-th of the whole, and a group of m one in each m-th of its
    class. The order of the list does not matter.
    """
    names = [f"{seed}\0{video.name}\0{video.label}" for video in videos]
    digests = [hashlib.blake2b(bytes_of(name), digest_size=8).digest() for name in names]
    draws_N = np.array([int.from_bytes(digest) for digest in digests], dtype=np.uint64).reshape(-1)
    jitter_N = (draws_N >> np.uint64(11)).astype(np.float64) / 2.0**53
    order = np.argsort(np.array(names, dtype=object), kind="stable")  # a tie must not fall back on the list's order
    order = order[np.argsort(draws_N[order], kind="stable")]
    labels_N = np.array([video.label for video in videos], dtype=np.int64)
    groups = {name: code for code, name in enumerate(dict.fromkeys(video.group for video in videos))}
    groups_N = np.array([groups[video.group] for video in videos], dtype=np.int64)
    for codes_N in (labels_N * (len(groups) + 1) + groups_N, labels_N):
        # Sort by (rank within the video's own code + jitter) / (number of that code); ranks are those of the order.
        codes = codes_N[order]
        by_code = np.argsort(codes, kind="stable")
        _, starts, counts = np.unique(codes[by_code], return_index=True, return_counts=True)
        rank = np.empty(len(order), dtype=np.float64)
        rank[by_code] = np.arange(len(order)) - np.repeat(starts, counts)
        size = np.empty(len(order), dtype=np.float64)
        size[by_code] = np.repeat(counts, counts)
        order = order[np.argsort((rank + jitter_N[order]) / size, kind="stable")]
    return order


def list_digest(catalog: Catalog) -> str:
    """Return the SHA-256 of the list of videos, whatever its order."""
    total = hashlib.sha256()
    for row in sorted(_row(video, catalog.classes) for video in catalog.videos):
        total.update(json.dumps(row).encode() + b"\n")
    if catalog.frame_rate != DEFAULT_RATE:  # which decides the times of folders of pictures
        total.update(json.dumps({"frame_rate": catalog.frame_rate}).encode())
    return total.hexdigest()


def _row(video: Video, classes: Sequence[str]) -> tuple[str | float, ...]:
    segment = (video.start, video.end) if video.is_segment else ()
    return video.path, classes[video.label], video.split, video.group or "", *segment


# ---- what the pack is to be


def _goal(options: PackOptions, packed: PackedList, classes: tuple[str, ...]) -> dict[str, Any]:
    names = hashlib.sha256(json.dumps(classes).encode()).hexdigest()
    about = {"source format": packed.format, "number of videos": packed.videos, "list of videos": packed.sha256}
    return {"format": FORMAT, "version": VERSION, **asdict(options), "classes": names, **about}


def _begin(folder: Path, goal: dict[str, Any]) -> PackInfo | None:
    """Note what the pack is to be; return what it holds where it is finished already.

    Raises UserError where the folder holds a pack of other options or another list, naming one field that differs, or
    anything else.
    """
    info, there, file = None, None, folder / UNFINISHED / GOAL
    try:
        if (folder / INFO).is_file():
            info = parse_info((folder / INFO).read_bytes())
            there = _goal(info.options, info.source, info.classes)
        elif file.is_file():
            there = load_object(file.read_bytes(), GOAL)
    except (OSError, DamageError) as error:
        raise UserError(f"{folder}: {error}; remove the folder to pack anew") from None
    if there is None:
        others = [path.name for path in folder.iterdir() if not path.name.startswith((TEMPORARY, LOCK, UNFINISHED))]
        if others:
            raise UserError(f"{folder} holds {min(others)!r} and is no pack; name a new or an empty folder")
        write_atomic(file, json.dumps(goal, indent=1) + "\n")
        return None
    for shard in info.shards if info else ():
        path = folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise UserError(f"{path} is missing or not whole; copy it back, or remove {folder} to pack anew")
    for name, value in goal.items():
        if there.get(name) != value:
            digests = name in ("classes", "list of videos")
            both = "" if digests else f" ({shown(there.get(name))} there, {shown(value)} asked for)"
            raise UserError(f"{folder} holds a pack that differs in {name}{both}; name another folder, or remove it")
    return info


# ---- the tar files


def _write_shards(
    folder: Path,
    options: PackOptions,
    jobs: Sequence[PackShardJob],
    workers: int,
    deadline: float,
    advance: Callable[[int], None],
    stop: StopRequest,
    *,
    alone: bool = True,
) -> list[PackShardRecord]:
    """Return the records of all tar files in the order of the jobs, writing those that are not there yet.

    ``alone`` False: other processes write into the folder at the same time.

    A tar file is begun again without a video that took too long. Raises UserError for a full disk, and for a worker
    that died, naming the video it was at; Interrupted when a stop is asked for.
    """
    records, todo = {}, []
    for job in jobs:
        record = _finished_shard(folder, job, deadline)
        if record is None:
            # A copy, which does not hold the texts of the whole list; absolute, since a process of its own must not
            # depend on where this one stands.
            root, classes, videos = job.catalog.root.absolute(), job.catalog.classes, job.catalog.videos
            todo.append(
                PackShardJob(job.name, replace(Catalog.of(root, classes, videos), frame_rate=job.catalog.frame_rate))
            )
        else:
            records[job.name] = record
            advance(len(job.catalog.videos))
    work = partial(pack_shard, folder=folder.absolute(), options=options, deadline=deadline)
    try:
        while todo:
            again: list[PackShardJob] = []
            answers = run_jobs(work, todo, min(workers, len(todo)), tries=1, on_note=lambda path: advance(1))
            with closing(answers):
                for job, answer in _until_stopped(answers, stop, lambda: f"{len(records)} of {len(jobs)} shards"):
                    if isinstance(answer, PackShardRecord):
                        write_atomic(_record_path(folder, job), json.dumps(answer._asdict()))
                        records[job.name] = answer
                        continue
                    if answer.kind != "timeout":
                        raise _death(job, answer)
                    number = [video.name for video in job.catalog.videos].index(answer.note)
                    advance(-number - 1)
                    again.append(job._replace(late=(*job.late, (number, answer.seconds))))
            todo = again
    finally:
        if alone:
            remove_strays(folder)  # what ended processes have written half
    return [records[job.name] for job in jobs]


def _until_stopped(
    answers: Iterable[tuple[Any, Any] | None], stop: StopRequest, done: Callable[[], str]
) -> Iterator[tuple[Any, Any]]:
    """Yield the answers; raises Interrupted that says what is done when a stop is asked for."""
    for answer in answers:
        if answer is not None:
            yield answer
        if stop.requested:
            raise Interrupted(f"{done()} are packed")


def _death(job: PackShardJob, failure: Failure) -> Exception:
    if failure.kind == "error":
        return RuntimeError(failure.text)
    code = failure.code
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    # A repr keeps a file name with control characters on one line.
    at = f"at video {failure.note!r}" if failure.note else "before its first video"
    return UserError(
        f"the process that packed {job.name} was ended {how} {at}; finished shards are kept: type the same "
        "command again, and if it ends there again, with fewer --workers or without that video"
    )


def _finished_shard(folder: Path, job: PackShardJob, deadline: float) -> PackShardRecord | None:
    """Return the record of a tar file that need not be written again.

    It is written again where it is not there in full, and where a video that was left out has changed since, or took
    longer than another deadline.
    """
    try:
        record = PackShardRecord.load(_record_path(folder, job))
        whole = (record.name, record.bytes) == (job.name, (folder / job.name).stat().st_size)
        files = [(job.catalog.root / job.catalog.videos.paths[number], state) for number, _, state in record.left_out]
    except Exception:  # there is none, or it is not whole
        return None
    states = [(state, file_state(file)) for file, state in files]
    return record if whole and all(then in (now, late_state(now, deadline)) for then, now in states) else None


def _record_path(folder: Path, job: PackShardJob) -> Path:
    return folder / UNFINISHED / f"{job.name}.json"


# ---- what stands beside them


def _finish(
    catalog: Catalog,
    folder: Path,
    options: PackOptions,
    packed: PackedList,
    jobs: Sequence[PackShardJob],
    records: Sequence[PackShardRecord],
    max_bad_share: float,
    deadline: float,
) -> PackInfo:
    """Write `catalog.safetensors` and, last, `pack.json`."""
    videos: list[Video] = []
    rows: list[tuple[int, ...]] = []
    left_out = []
    for shard, (job, record) in enumerate(zip(jobs, records, strict=True)):
        listed = list(job.catalog.videos)
        videos += [listed[number] for number, *_ in record.samples]
        rows += [(shard, *sample[1:]) for sample in record.samples]
        left_out += [LeftOut(listed[number].name, listed[number].split, why) for number, why, _ in record.left_out]
    if left_out:
        write_atomic(folder / LEFT_OUT, json.dumps([asdict(video) for video in left_out], indent=1) + "\n")
        bad = [(video.path, video.reason) for video in left_out]
        slow = any(reason.startswith(TIMEOUT) for _, reason in bad)
        more_time = f"give them more time (--deadline {MORE_TIME * deadline:g}), " if slow else ""
        advice = more_time + "mend them, or allow more (--max-bad-share {:g}), then type the same command again"
        catalog.without_bad(bad, max_bad_share, verb="read", listed=folder / LEFT_OUT, advice=advice)
    content = index_bytes(videos, MemberIndex.of(rows))
    write_atomic(folder / CATALOG, content)
    info = PackInfo(
        made_by=f"pvnas {__version__}, av {version('av')}, simplejpeg {version('simplejpeg')}",
        options=options,
        source=packed,
        classes=catalog.classes,
        counts={split: sum(video.split == split for video in videos) for split in SPLITS},
        frames=sum(row[-1] for row in rows),
        shards=tuple(PackShard(r.name, r.bytes, r.sha256, len(r.samples)) for r in records),
        left_out=tuple(left_out),
        catalog=CatalogFile(len(content), hashlib.sha256(content).hexdigest()),
    )
    write_atomic(folder / INFO, info.to_json())
    return info
