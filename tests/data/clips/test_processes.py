"""The same global batches for any number of processes and workers, and from any step on: digests of real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, json, sys
import torch
from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, RunConfig, TrainConfig
from pvnas.data.clips.loader import training_batches
from pvnas.data.dataset import open_videos
from pvnas.runtime.distributed import World

torch.set_num_threads(1)
path, order, number, count, workers, first_step = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
config = DataConfig(path=path, cache="none", order=order)
source = open_videos(config, seed=0).dataset("train", short_side=32)
batch = BatchConfig(shards=4, clips_per_shard=2)
run = RunConfig(seed=7, data=DataConfig(workers=workers), clip=ClipConfig(frames=4, window=24))
stage = TrainConfig(augment=AugmentConfig(short_side_min=24, short_side_max=32, crop=24), batch=batch)
batches = training_batches(source, run, stage, epoch=3, first_step=first_step, world=World(number, count))
steps = []
for found in batches:
    shards = len(found.paths) // batch.clips_per_shard
    parts = zip(found.clips_NCTHW.chunk(shards), found.labels_N.chunk(shards))
    steps.append([
        hashlib.sha256(c.numpy().tobytes() + l.numpy().tobytes() + repr(found.paths[2*i:2*i+2]).encode()).hexdigest()
        for i, (c, l) in enumerate(parts)
    ])
print(json.dumps(steps))
"""


def epoch(path: Path, order: str, *, processes: int = 1, workers: int = 0, first_step: int = 0) -> list[list[str]]:
    """Return the digest of every logical shard of every step, read by so many processes with so many workers each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), order, *map(str, (number, processes, workers, first_step))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    parts = []
    for process in started:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        parts.append(json.loads(output))
    return [[digest for part in step for digest in part] for step in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def packed(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from catalogs import read_catalog
    from pvnas.data.pack import pack_videos

    folder = tmp_path_factory.mktemp("packed") / "pack"
    pack_videos(read_catalog(tiny_shapes, as_listed=True), folder, short_side=32, videos_per_shard=5)
    return folder


@pytest.mark.parametrize("kind", ["files", "pack in the order of its shards"])
def test_any_number_of_processes_and_workers_sees_the_same_batches(kind: str, tiny_shapes: Path, packed: Path) -> None:
    path = tiny_shapes if kind == "files" else packed
    order = "shards" if kind.endswith("shards") else "random"
    whole = epoch(path, order)
    assert [len(step) for step in whole] == [4] * 4  # 32 videos, 8 clips a step
    assert len({digest for step in whole for digest in step}) == 16
    for processes, workers in ((1, 4), (2, 1), (4, 0)):
        assert epoch(path, order, processes=processes, workers=workers) == whole, (processes, workers)
    assert epoch(path, order, processes=2, first_step=3) == whole[3:]
