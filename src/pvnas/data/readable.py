"""The readable videos of a run: each checked once, what cannot be read left out and named, the rest cached.

Writes verdicts.json and verdicts.csv (of files; a pack was checked when it was made), videos.json and catalog.json.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.config import RunConfig, TrainConfig
from pvnas.data.balance import batch_notes, group_notes, notes
from pvnas.data.catalog import SPLITS, Catalog
from pvnas.data.check import Limits, check_videos
from pvnas.data.check.results import CheckResult, read_check_results, usable
from pvnas.data.clips.augment import flip_message
from pvnas.data.clips.mirrored_views import mirror_message
from pvnas.data.clips.sampling import repetition_notes
from pvnas.data.dataset import OpenedVideos, Shape, VideoDataset
from pvnas.data.identity import LearntVideos, learnt_of, read_learnt, write_learnt
from pvnas.data.memory_cache import keep_decoded
from pvnas.errors import UserError
from pvnas.runtime.distributed import ALONE, World
from pvnas.runtime.files import write_atomic
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import StopRequest

VIDEOS_LOOKED_AT = 2000  # of a pack, evenly spread


@dataclass(frozen=True)
class Videos:
    """The readable videos of a run, by split."""

    learning: VideoDataset  # training and validation videos
    test: VideoDataset
    test_excluded: int  # test videos that cannot be read
    middle_seconds: float = 0.0  # the median of all; 0 where it is not known

    @cached_property
    def train(self) -> VideoDataset:
        """The training videos."""
        return self.learning.of_splits("train")

    @cached_property
    def validation(self) -> VideoDataset:
        """The validation videos."""
        return self.learning.of_splits("val")

    def of_training(self, train: TrainConfig) -> tuple[VideoDataset, VideoDataset]:
        """Return the videos that the derived network is trained on, and those that are left to validate it on."""
        left = [split for split in ("train", "val") if split not in train.splits]
        return self.learning.of_splits(*train.splits), self.learning.of_splits(*left)


def load_videos(
    opened: OpenedVideos,
    config: RunConfig,
    run_dir: Path,
    progress: Progress,
    device: torch.device,
    learnt: LearntVideos | None = None,
    splits: Collection[str] = SPLITS,
    world: World = ALONE,
) -> Videos:
    """Check every video once, leave out and name what cannot be read, and cache the rest where it fits.

    ``learnt``: what the run has learnt from already, which was checked then; ``splits``: those that will be read;
    ``world``: the processes that read them, of which the first writes.
    """
    if learnt is None:
        learnt = check_once(opened, config, run_dir, progress)
    elif world.size == 1:
        write_learnt(run_dir, learnt)
    else:
        known = learnt
        world.first_does(lambda: write_learnt(run_dir, known))
    good, excluded = learnt.catalog, [video.split for video in learnt.left_out]
    checked = _results_by_name(run_dir) if opened.info is None else {}
    frames_V, seconds_V = _lengths(opened, good, checked)
    repetitions = repetition_notes(frames_V, seconds_V, config.clip)
    for line in (*_notes(opened, good, len(excluded), config, splits), *repetitions):
        progress.line(line)
    world.first_does(lambda: _write_summary(run_dir, good, len(excluded), repetitions))
    for stage, augment in (("search", config.search.augment), ("train", config.train.augment)):
        message = flip_message(good.classes, augment.flip, stage)
        if message:
            progress.line(message)
    if message := mirror_message(good.classes, config.test.flip):
        progress.line(message)
    side = config.decoded_short_side
    shapes = {name: Shape(result.frames, result.height, result.width) for name, result in checked.items()}
    opened = replace(opened, catalog=good, shapes=shapes)
    learning = opened.dataset(("train", "val"), side, config.clip.colours)
    test = opened.dataset("test", side, config.clip.colours)
    keep_decoded([learning, test] if "train" in splits else [test], device, progress, world)
    return Videos(learning, test, excluded.count("test"), float(np.median(seconds_V)) if len(seconds_V) else 0.0)


def _notes(
    opened: OpenedVideos, good: Catalog, excluded: int, config: RunConfig, splits: Collection[str]
) -> Iterator[str]:
    """Yield what is said of the videos before any is trained on."""
    if excluded:
        where = "verdicts.csv" if opened.info is None else "the pack's pack.json"
        yield f"{excluded} of {len(good.videos) + excluded} videos cannot be read and are left out: see {where}"
    yield good.summary()
    yield from notes(good, balanced=config.train.balance != "none", trained_on=config.train.splits)
    if "train" in splits:
        yield from batch_notes(config, len(good.select("train").videos), len(good.select(*config.train.splits).videos))
        yield from group_notes(config, good)


def _write_summary(run_dir: Path, good: Catalog, excluded: int, repetitions: Sequence[str]) -> None:
    """Write catalog.json."""
    summary = {
        "root": str(good.root),
        "format": good.format,
        "classes": list(good.classes),
        "counts": good.counts(),
        "excluded": excluded,
        "unlabelled": good.unlabelled,
        "remarks": list(good.remarks),
        "repetitions": repetitions,
    }
    write_atomic(run_dir / "catalog.json", json.dumps(summary, indent=1) + "\n")


def check_once(opened: OpenedVideos, config: RunConfig, run_dir: Path, progress: Progress) -> LearntVideos:
    """Return and write which videos can be used: of files after a check, of a pack all, as when it was made."""
    learnt = _checked(opened, config, run_dir, progress)
    write_learnt(run_dir, learnt)
    return learnt


def checked_before(opened: OpenedVideos, run_dir: Path) -> LearntVideos:
    """Return what ``check_once`` has written in another process. Raises UserError where that cannot be read."""
    learnt = learnt_of(opened, opened.catalog, ()) if opened.info is not None else read_learnt(run_dir)
    if learnt is None:
        raise UserError(f"{run_dir} does not hold yet what the first process has written there: do all hosts share it?")
    catalog = replace(learnt.catalog, root=opened.catalog.root, remarks=opened.catalog.remarks)
    return replace(learnt, catalog=replace(catalog, unlabelled=opened.catalog.unlabelled))


def _checked(opened: OpenedVideos, config: RunConfig, run_dir: Path, progress: Progress) -> LearntVideos:
    if opened.info is not None:
        return learnt_of(opened, opened.catalog, ())
    with StopRequest() as stop:  # of its own: the stages ask theirs at each step, and this comes before any
        limits = Limits(torch.get_num_threads(), config.data.deadline)
        results = check_videos(opened.catalog, limits, out=run_dir, progress=progress, stop=stop)
    good = usable(opened.catalog, results, config.data.max_bad_share, config.data.deadline)
    return learnt_of(opened, good, results)


def _results_by_name(run_dir: Path) -> dict[str, CheckResult]:
    """Return what the check has found of the usable videos, by name."""
    path = run_dir / "verdicts.json"
    results = read_check_results(path) if path.exists() else []
    return {result.path: result for result in results if result.usable}


def _lengths(
    opened: OpenedVideos, good: Catalog, checked: Mapping[str, CheckResult]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return frames and seconds of the videos, of a large pack some of them; none of a pack behind a URL."""
    if opened.pack is None:
        results = [checked[video.name] for video in good.videos if video.name in checked]
        lengths = [(result.frames, result.seconds) for result in results]
    elif "://" in opened.config.path:  # it would be asked for every video
        lengths = []
    else:
        rows = good.videos.rows[:: max(1, len(good.videos) // VIDEOS_LOOKED_AT)].tolist()
        lengths = [(opened.pack.length(row), opened.pack.times(row)[1]) for row in rows]
    frames, seconds = zip(*lengths, strict=True) if lengths else ((), ())
    return np.array(frames, dtype=np.int64), np.array(seconds, dtype=np.float64)
