"""The same global batches for any number of processes and workers, and from any step on: digests of real processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, RunConfig, TrainConfig
from pvnas.data.clips.loader import training_batches
from pvnas.data.dataset import open_videos
from pvnas.data.pack import pack_videos
from pvnas.runtime.distributed import World


def digests_of(path: str, order: str, number: int, count: int, workers: int, first_step: int) -> list[list[str]]:
    """Return the digest of every logical shard that one process reads of each step of an epoch."""
    config = DataConfig(path=path, cache="none", order=order)  # type: ignore[arg-type]
    source = open_videos(config, seed=0).dataset("train", short_side=32)
    batch = BatchConfig(shards=4, clips_per_shard=2)
    run = RunConfig(seed=7, data=DataConfig(workers=workers), clip=ClipConfig(frames=4, window=24))
    stage = TrainConfig(augment=AugmentConfig(short_side_min=24, short_side_max=32, crop=24), batch=batch)
    world = World(number, count)
    steps = []
    for found in training_batches(source, run, stage, epoch=3, first_step=first_step, world=world):
        shards = len(found.paths) // batch.clips_per_shard
        parts = zip(found.clips_NCTHW.chunk(shards), found.labels_N.chunk(shards), strict=True)
        contents = [
            clips.numpy().tobytes() + labels.numpy().tobytes() + repr(found.paths[2 * k : 2 * k + 2]).encode()
            for k, (clips, labels) in enumerate(parts)
        ]
        steps.append([hashlib.sha256(content).hexdigest() for content in contents])
    return steps


def epoch(path: Path, order: str, *, processes: int = 1, workers: int = 0, first_step: int = 0) -> list[list[str]]:
    """Return the digests of all processes, each read here in turn."""
    parts = [digests_of(str(path), order, rank, processes, workers, first_step) for rank in range(processes)]
    return [[digest for part in step for digest in part] for step in zip(*parts, strict=True)]


def real_processes(path: Path, order: str, *, processes: int) -> list[list[str]]:
    """Return the same, read by processes of their own."""
    program = (
        "import json, sys; from test_processes import digests_of; "
        "print(json.dumps(digests_of(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), 1, 0)))"
    )
    command = [sys.executable, "-c", program, str(path), order]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([*command, str(rank), str(processes)], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(processes)
    ]
    parts = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    return [[digest for part in step for digest in part] for step in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def packed(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    for processes, workers in ((1, 2), (4, 0)):
        assert epoch(path, order, processes=processes, workers=workers) == whole, (processes, workers)
    assert real_processes(path, order, processes=2) == whole
    assert epoch(path, order, processes=2, first_step=3) == whole[3:]
