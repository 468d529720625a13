"""What `pvnas bench data` measures: ways to a clip, stages of a direct one, and the loader with worker processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pvnas.bench.clips import measure_stages, measure_ways
from pvnas.bench.footage import FRAMES, RATE, write_footage
from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.clips.loader import training_batches
from pvnas.data.dataset import VideoDataset
from pvnas.runtime.device import describe_machine

GOPS = (12, 250)
GENERATED_VIDEOS = 3
LOADER_CLIPS_PER_BATCH = 8
KEPT_CLIPS = 10  # as many times the clips, where one takes a fraction of a millisecond


def bench_generated(*, clips: int, short_side: int, workers: int, footage: Path | None = None) -> dict[str, Any]:
    """Measure on 340x256 H.264 videos with a key frame every 12 and every 250 frames, generated or from ``footage``.

    The figures of GOP 12 stand at the top too.
    """
    by_gop = {}
    for gop in GOPS:
        with tempfile.TemporaryDirectory(prefix="pvnas-bench-") as temporary:
            folder = Path(temporary)
            paths = write_footage(folder, gop=gop, videos=1 if footage else GENERATED_VIDEOS, source=footage)
            videos = [Video(path.name, number % 2, "train") for number, path in enumerate(paths)]
            catalog = Catalog.of(folder, ("a", "b"), videos)
            by_gop[f"gop_{gop}"] = _measured(catalog, folder / "pack", clips, short_side, workers, peers=True)
    about = {"footage": str(footage) if footage else f"generated, {FRAMES} frames at {RATE} fps, 340x256 H.264"}
    return _described(about, clips, short_side) | by_gop["gop_12"] | by_gop


def bench_catalog(catalog: Catalog, *, clips: int, short_side: int, workers: int) -> dict[str, Any]:
    """Measure on a sample of a person's own videos."""
    step = max(1, len(catalog.videos) // min(clips, 24))
    sample = catalog.take(range(0, len(catalog.videos), step))
    with tempfile.TemporaryDirectory(prefix="pvnas-bench-") as temporary:
        found = _measured(sample, Path(temporary) / "pack", clips, short_side, workers, peers=False)
    about = {"footage": f"{len(sample.videos)} of the {len(catalog.videos)} videos of {catalog.root}"}
    return _described(about, clips, short_side) | found


def _described(about: dict[str, Any], clips: int, short_side: int) -> dict[str, Any]:
    clip = ClipConfig()
    shape = {"frames": clip.frames, "window": clip.window, "short_side": short_side, "clips": clips}
    return about | {"clip": shape, "machine": describe_machine()}


def _measured(
    catalog: Catalog, folder: Path, clips: int, short_side: int, workers: int, *, peers: bool
) -> dict[str, Any]:
    ways = measure_ways(catalog, folder, short_side=short_side, clips=clips, peers=peers)
    # The proportions of the paper's search: a crop of 112 out of a shorter side of 128 to 164.
    largest, crop = round(1.28 * short_side), 7 * short_side // 8
    augment = AugmentConfig(short_side_min=short_side, short_side_max=largest, crop=crop)
    return {
        "direct": {name.partition(".")[2]: round(rate, 2) for name, rate in ways.items() if name.startswith("direct.")},
        "packed": round(ways["packed"], 2),
        "ram": round(ways["ram"], 2),
        "frames_per_s": {name: round(rate * ClipConfig().frames, 1) for name, rate in ways.items()},
        "stages_ms": _rounded(measure_stages(catalog, short_side=short_side, clips=clips, augment=augment)),
        "loader": [*_loaders(catalog, augment, short_side, workers, clips)],
    }


def _loaders(
    catalog: Catalog, augment: AugmentConfig, short_side: int, workers: int, clips: int
) -> Iterator[dict[str, Any]]:
    """Yield the speed of whole batches: from files, by workers, from memory, and from a GPU if there is one."""
    for number in sorted({0, 1, workers}):
        yield loader_speed(VideoDataset(catalog, DataConfig(cache="none"), short_side), "files", augment, number, clips)
    kept = {"memory": torch.device("cpu")} | ({"gpu": torch.device("cuda")} if torch.cuda.is_available() else {})
    for name, device in kept.items():
        source = VideoDataset(catalog, DataConfig(cache="gpu"), short_side)
        source.prepare_cache(device)
        yield loader_speed(source, name, augment, 0, KEPT_CLIPS * clips)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def loader_speed(source: VideoDataset, kind: str, augment: AugmentConfig, workers: int, clips: int) -> dict[str, Any]:
    """Return clips and frames per second of whole batches with so many worker processes, after the first batch."""
    repeated = source.select([n % len(source) for n in range(max(clips, 3 * LOADER_CLIPS_PER_BATCH))])
    batch, clip = BatchConfig(clips_per_shard=LOADER_CLIPS_PER_BATCH), ClipConfig()
    batches = training_batches(repeated, clip, augment, batch, seed=0, epoch=0, workers=workers)
    next(batches)
    started = time.perf_counter()
    read = sum(len(found.paths) for found in batches)
    if source.device.type == "cuda":
        torch.cuda.synchronize()
    rate = read / (time.perf_counter() - started)
    return {
        "from": kind,
        "workers": workers,
        "clips_per_s": round(rate, 2),
        "frames_per_s": round(rate * clip.frames, 1),
        "clips_per_s_and_worker": round(rate / max(1, workers), 2),
        "frames_per_s_and_worker": round(rate * clip.frames / max(1, workers), 1),
    }
