"""The order of an epoch: by (seed, epoch, stream) alone, dealt out to any number of processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvnas.config import BatchConfig
from pvnas.data.clips.loader import WINDOW_STEPS, epoch_order, positions, steps_per_epoch
from pvnas.errors import UserError
from pvnas.runtime.distributed import World


def in_shards(videos: int, size: int = 7) -> np.ndarray:
    """Return the shard of each of so many videos, which do not lie in the order of their shards."""
    return np.random.default_rng(0).permutation(np.arange(videos) // size)


@given(
    videos=st.integers(1, 300),
    shards=st.integers(1, 6),
    clips=st.integers(1, 5),
    epoch=st.integers(0, 9),
    packed=st.booleans(),
)
def test_every_video_at_most_once_in_whole_batches(
    videos: int, shards: int, clips: int, epoch: int, packed: bool
) -> None:
    batch = BatchConfig(shards=shards, clips_per_shard=clips)
    shards_V = in_shards(videos) if packed else None
    order = epoch_order(videos, batch, seed=1, epoch=epoch, stream="train", pack_shards_V=shards_V)
    assert order.shape == (steps_per_epoch(videos, batch), batch.clips)
    if videos >= batch.clips:
        assert len(np.unique(order)) == order.size
    assert order.min() >= 0
    assert order.max() < videos
    again = epoch_order(videos, batch, seed=1, epoch=epoch, stream="train", pack_shards_V=shards_V)
    assert np.array_equal(order, again)


def test_seeds_epochs_and_streams_have_orders_of_their_own() -> None:
    batch = BatchConfig(shards=4, clips_per_shard=4)
    for shards_V in (None, in_shards(500)):
        orders = [
            epoch_order(500, batch, seed=seed, epoch=epoch, stream=stream, pack_shards_V=shards_V).tolist()
            for seed, epoch, stream in ((0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"))
        ]
        assert all(a != b for number, a in enumerate(orders) for b in orders[:number])


def test_shard_after_shard_a_part_of_the_batch_reads_few_of_them_at_a_time() -> None:
    batch, size = BatchConfig(shards=4, clips_per_shard=4), 50
    shards_V = in_shards(2000, size)
    order = epoch_order(2000, batch, seed=0, epoch=0, stream="train", pack_shards_V=shards_V)
    for first in range(0, len(order), WINDOW_STEPS):
        for part in range(4):
            columns = slice(part * 4, part * 4 + 4)
            read = shards_V[order[first : first + WINDOW_STEPS, columns]]
            assert len(np.unique(read)) <= 3  # 64 videos of shards of 50
    batches = [len(np.unique(shards_V[step])) for step in order]
    assert np.mean(batches) > 3  # a global batch still mixes shards
    assert len({tuple(sorted(shards_V[step])) for step in order[:WINDOW_STEPS]}) > 1


def test_all_shards_come_in_another_order_each_epoch() -> None:
    batch = BatchConfig(shards=1, clips_per_shard=10)
    shards_V = in_shards(1000, 100)
    first = [
        shards_V[epoch_order(1000, batch, seed=0, epoch=epoch, stream="train", pack_shards_V=shards_V)[0]].tolist()
        for epoch in range(5)
    ]
    assert len({tuple(shards) for shards in first}) > 2


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_parts_are_whole_shards_and_make_up_the_batch(processes: int) -> None:
    batch = BatchConfig(shards=8, clips_per_shard=3)
    parts = [positions(batch, World(number, processes)) for number in range(processes)]
    assert [position for part in parts for position in part] == list(range(24))
    assert all(len(part) % 3 == 0 for part in parts)


def test_processes_that_do_not_divide_the_shards_are_refused() -> None:
    with pytest.raises(UserError, match="8 logical shards cannot be dealt out to 3 processes"):
        positions(BatchConfig(shards=8), World(0, 3))
