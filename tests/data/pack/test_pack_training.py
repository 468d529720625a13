"""Training out of a pack: the same batches from a folder and over a network, every video once, near places together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from served import Served

from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, RunConfig, TrainConfig
from pvnas.data.clips.loader import Batch, training_batches
from pvnas.data.dataset import list_videos, open_videos
from pvnas.errors import UserError

CLIP = ClipConfig(frames=4, window=24)
AUGMENT = AugmentConfig(short_side_min=48, short_side_max=56, crop=40)
BATCH = BatchConfig(shards=2, clips_per_shard=4)


def epoch(path: str, *, order: str = "shards", cache: str = "none", workers: int = 0) -> list[Batch]:
    config = DataConfig(path=path, order=order, cache=cache)  # type: ignore[arg-type]
    source = open_videos(config, seed=0).dataset("train", short_side=48)
    source.prepare_cache()
    run = RunConfig(seed=1, data=DataConfig(workers=workers), clip=CLIP)
    return list(training_batches(source, run, TrainConfig(augment=AUGMENT, batch=BATCH), epoch=2))


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert [batch.paths for batch in found] == [batch.paths for batch in expected]
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.clips_NCTHW, b.clips_NCTHW)
        assert torch.equal(a.labels_N, b.labels_N)


@pytest.mark.parametrize("order", ["random", "shards"])
def test_folder_memory_and_network_give_the_same_batches(pack: Path, served: Served, order: str) -> None:
    expected = epoch(str(pack), order=order)
    seen = Counter(path for batch in expected for path in batch.paths)
    assert len(expected) == 4
    assert set(seen.values()) == {1}
    assert_equal(epoch(str(pack), order=order, cache="ram"), expected)
    served.ranges.clear()
    assert_equal(epoch(served.url, order=order, workers=2), expected)
    largest = max(size for name, _, size in served.ranges if name.endswith(".tar"))
    assert largest < (pack / "train-00000.tar").stat().st_size / 4  # never a whole shard


def test_the_two_orders_differ(pack: Path) -> None:
    orders = [[batch.paths for batch in epoch(str(pack), order=order)] for order in ("random", "shards")]
    assert orders[0] != orders[1]


def test_files_have_no_shards_to_go_through(tiny_shapes: Path) -> None:
    with pytest.raises(UserError, match=r"data\.order shards is for packs; write one with: pvnas data pack"):
        epoch(str(tiny_shapes))


def test_a_pack_holds_out_what_its_list_did_not_name(pack: Path) -> None:
    listed = list_videos(DataConfig(path=str(pack)))
    assert listed.format == "pack"
    assert {split: sum(counts.values()) for split, counts in listed.counts().items()} == {
        "train": 32,
        "val": 8,
        "test": 8,
    }
    opened = open_videos(DataConfig(path=str(pack)), seed=0)
    assert list(opened.catalog.videos.paths) == sorted(listed.videos.paths)
    row = opened.catalog.videos.rows.item(5)
    assert listed.videos.paths[row] == opened.catalog.videos.paths[5]
    assert np.array_equal(np.sort(opened.catalog.videos.rows), np.arange(48))
