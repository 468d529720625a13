"""The readable videos of a run: each checked once, what cannot be read left out and named, the rest cached.

Writes verdicts.json and verdicts.csv (of files; a pack was checked when it was made) and catalog.json.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pvnas.config import RunConfig
from pvnas.data.balance import notes
from pvnas.data.catalog import SPLITS, Catalog
from pvnas.data.check import Limits, check_videos
from pvnas.data.check.results import CheckResult, read_check_results, usable
from pvnas.data.clips.augment import flip_message
from pvnas.data.dataset import OpenedVideos, Shape, VideoDataset, keep_decoded
from pvnas.runtime.files import write_atomic
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import StopRequest


@dataclass(frozen=True)
class Videos:
    """The readable videos of a run, by split."""

    train: VideoDataset
    validation: VideoDataset
    test: VideoDataset
    test_excluded: int  # test videos that cannot be read


def load_videos(
    opened: OpenedVideos, config: RunConfig, run_dir: Path, progress: Progress, device: torch.device
) -> Videos:
    """Check every video once, leave out and name what cannot be read, and cache the rest where it fits."""
    catalog = opened.catalog
    if opened.info is None:
        results = _check_results(catalog, config.data.deadline, run_dir, progress)
        good = usable(catalog, results, config.data.max_bad_share, config.data.deadline)
        before, after = (Counter(each.videos.splits.tolist()) for each in (catalog, good))
        excluded = [SPLITS[number] for number in (before - after).elements()]
    else:
        good = catalog  # it was checked when it was packed
        excluded = [video.split for video in opened.info.left_out]
    n = len(excluded)
    if n:
        where = "verdicts.csv" if opened.info is None else "the pack's pack.json"
        progress.line(f"{n} of {len(good.videos) + n} videos cannot be read and are left out: see {where}")
    progress.line(good.summary())
    for line in notes(good, balanced=config.train.balance != "none"):
        progress.line(line)
    summary = {
        "root": str(catalog.root),
        "format": catalog.format,
        "classes": list(catalog.classes),
        "counts": good.counts(),
        "excluded": n,
        "unlabelled": catalog.unlabelled,
    }
    write_atomic(run_dir / "catalog.json", json.dumps(summary, indent=1) + "\n")
    for stage, augment in (("search", config.search.augment), ("train", config.train.augment)):
        message = flip_message(catalog.classes, augment.flip, stage)
        if message:
            progress.line(message)
    side = max(config.search.augment.short_side_max, config.train.augment.short_side_max, config.test.short_side)
    opened = replace(opened, catalog=good, shapes=_shapes(run_dir))
    train, validation, test = (opened.dataset(split, side) for split in SPLITS)
    keep_decoded([train, validation, test], device, progress)
    return Videos(train, validation, test, excluded.count("test"))


def _check_results(catalog: Catalog, deadline: float, run_dir: Path, progress: Progress) -> list[CheckResult]:
    """Return the results of an earlier start of this run, or check what it has not checked and write the lists."""
    path = run_dir / "verdicts.json"
    if path.exists():
        results = read_check_results(path)
        if [result.path for result in results] == list(catalog.videos.paths):
            return results
    with StopRequest() as stop:  # of its own: the stages ask theirs at each step, and this comes before any
        limits = Limits(torch.get_num_threads(), deadline)
        return check_videos(catalog, limits, out=run_dir, progress=progress, stop=stop)


def _shapes(run_dir: Path) -> dict[str, Shape]:
    """Return what the check has found of the videos by name; nothing of a pack, which knows it itself."""
    path = run_dir / "verdicts.json"
    results = read_check_results(path) if path.exists() else []
    return {result.path: Shape(result.frames, result.height, result.width) for result in results if result.usable}
