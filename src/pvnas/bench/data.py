"""What `pvnas bench data` measures: readers of clips, stages of reading a file, the loader with worker processes."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pvnas.bench.footage import FRAMES, RATE, write_footage
from pvnas.bench.readers import CLIPS_PER_BATCH, OtherReader, read_by_pyav, reading_rates, stage_milliseconds
from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, RunConfig, TrainConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.clips.loader import training_batches
from pvnas.data.dataset import VideoDataset
from pvnas.runtime.device import describe_machine

GOPS = (12, 250)
GENERATED_VIDEOS = 3
CLIPS_FROM_MEMORY = 10  # as many times the clips, where one takes a fraction of a millisecond


def bench_generated(
    *,
    clips: int,
    short_side: int,
    workers: int,
    footage: Path | None = None,
    others: Mapping[str, OtherReader] = MappingProxyType({"pyav": read_by_pyav}),
) -> dict[str, Any]:
    """Measure on 340x256 H.264 videos with a key frame every 12 and every 250 frames, generated or from ``footage``.

    ``others``: readers to compare with. The figures of GOP 12 stand at the top too.
    """
    by_gop = {}
    for gop in GOPS:
        with tempfile.TemporaryDirectory(prefix="pvnas-bench-") as folder:
            paths = write_footage(Path(folder), gop=gop, videos=1 if footage else GENERATED_VIDEOS, original=footage)
            videos = [Video(path.name, number % 2, "train") for number, path in enumerate(paths)]
            catalog = Catalog.of(Path(folder), ("a", "b"), videos)
            by_gop[f"gop_{gop}"] = _measured(catalog, clips, short_side, workers, others)
    about = str(footage) if footage else f"generated, {FRAMES} frames at {RATE} fps, 340x256 H.264"
    return _described(about, clips, short_side) | by_gop["gop_12"] | by_gop


def bench_catalog(catalog: Catalog, *, clips: int, short_side: int, workers: int) -> dict[str, Any]:
    """Measure on a sample of a person's own videos."""
    step = max(1, len(catalog.videos) // min(clips, 24))
    sample = catalog.take(range(0, len(catalog.videos), step))
    about = f"{len(sample.videos)} of the {len(catalog.videos)} videos of {catalog.root}"
    return _described(about, clips, short_side) | _measured(sample, clips, short_side, workers, {})


def _described(footage: str, clips: int, short_side: int) -> dict[str, Any]:
    clip = ClipConfig()
    shape = {"frames": clip.frames, "window": clip.window, "short_side": short_side, "clips": clips}
    return {"footage": footage, "clip": shape, "machine": describe_machine()}


def _measured(
    catalog: Catalog, clips: int, short_side: int, workers: int, others: Mapping[str, OtherReader]
) -> dict[str, Any]:
    size = {"short_side": short_side, "clips": clips}
    with tempfile.TemporaryDirectory(prefix="pvnas-bench-") as folder:
        rates = reading_rates(catalog, Path(folder) / "pack", others=others, **size)
    # The proportions of the paper's search: a crop of 112 out of a shorter side of 128 to 164.
    largest, crop = round(1.28 * short_side), 7 * short_side // 8
    augment = AugmentConfig(short_side_min=short_side, short_side_max=largest, crop=crop)
    files = VideoDataset(catalog, DataConfig(cache="none"), short_side)
    loader = [loader_speed(files, "files", augment, number, clips) for number in sorted({0, 1, workers})]
    devices = {"memory": torch.device("cpu")} | ({"gpu": torch.device("cuda")} if torch.cuda.is_available() else {})
    for name, device in devices.items():
        cached = VideoDataset(catalog, DataConfig(cache="gpu"), short_side)
        cached.prepare_cache(device)
        loader.append(loader_speed(cached, name, augment, 0, CLIPS_FROM_MEMORY * clips))
    stages = stage_milliseconds(catalog, augment=augment, **size)
    return {
        "direct": {name.partition(".")[2]: round(rate, 2) for name, rate in rates.items() if name.startswith("direct")},
        "packed": round(rates["packed"], 2),
        "ram": round(rates["ram"], 2),
        "frames_per_s": {name: round(rate * ClipConfig().frames, 1) for name, rate in rates.items()},
        "stages_ms": {stage: round(milliseconds, 3) for stage, milliseconds in stages.items()},
        "loader": loader,
    }


def loader_speed(dataset: VideoDataset, kind: str, augment: AugmentConfig, workers: int, clips: int) -> dict[str, Any]:
    """Return clips and frames per second of whole batches with so many worker processes, after the first batch."""
    repeated = dataset.select([n % len(dataset) for n in range(max(clips, 3 * CLIPS_PER_BATCH))])
    stage = TrainConfig(augment=augment, batch=BatchConfig(clips_per_shard=CLIPS_PER_BATCH))
    config = RunConfig(data=DataConfig(workers=workers), train=stage)
    batches = training_batches(repeated, config, stage, epoch=0)
    next(batches)
    started = time.perf_counter()
    read = sum(len(batch.paths) for batch in batches)
    if dataset.device.type == "cuda":
        torch.cuda.synchronize()
    rate = read / (time.perf_counter() - started)
    return {
        "from": kind,
        "workers": workers,
        "clips_per_s": round(rate, 2),
        "frames_per_s": round(rate * config.clip.frames, 1),
        "clips_per_s_and_worker": round(rate / max(1, workers), 2),
        "frames_per_s_and_worker": round(rate * config.clip.frames / max(1, workers), 1),
    }
