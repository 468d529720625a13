"""Which videos make the batches of an epoch, by (seed, epoch, stream) alone, whoever reads them.

Legend: V videos, N clips of a global batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.config import BatchConfig
from pvnas.errors import UserError
from pvnas.runtime.random import generator

# Steps' worth of videos that a pack's shards are shuffled within: far enough for chance, near enough for a slow disk.
WINDOW_STEPS = 16


@dataclass(frozen=True)
class Part:
    """One of ``count`` processes that share the global batches; each reads the clips of its own logical shards."""

    number: int = 0
    count: int = 1

    def positions(self, batch: BatchConfig) -> range:
        """Return the places in the global batch that belong to this process.

        Raises UserError where the logical shards cannot be dealt out evenly.
        """
        if batch.shards % self.count:
            raise UserError(
                f"{batch.shards} logical shards cannot be dealt out to {self.count} processes; "
                "start a number of processes that divides batch.shards"
            )
        clips = batch.clips // self.count
        return range(self.number * clips, (self.number + 1) * clips)


def steps_per_epoch(n_videos: int, batch: BatchConfig) -> int:
    """Return the whole batches in an epoch; one, of repeated videos, where there are fewer videos than that."""
    return max(1, n_videos // batch.clips)


def epoch_order(
    n_videos: int,
    batch: BatchConfig,
    *,
    seed: int,
    epoch: int,
    stream: str,
    pack_shards_V: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return the videos (steps, N) of an epoch; the remainder is left out.

    A permutation of all videos by (seed, epoch, stream); given the shard of a pack that each video lies in, one that
    goes through the shards in a random order (see ``_pack_order``).
    """
    if n_videos == 0:
        raise UserError("no training videos; add some, or lower --data.validation_share and --data.test_share")
    draw = generator(seed, stream, "order", epoch)
    steps = steps_per_epoch(n_videos, batch)
    if pack_shards_V is not None and n_videos >= batch.clips:
        return _pack_order(pack_shards_V, batch, steps, draw)
    return np.resize(_permutation(n_videos, draw), (steps, batch.clips))


def _pack_order(
    pack_shards_V: NDArray[np.int64], batch: BatchConfig, steps: int, draw: torch.Generator
) -> NDArray[np.int64]:
    """Return an order (steps, N) in which each logical shard of the batch reads its own stretch of the pack.

    The pack's shards are put in a random order and their videos one after another; this line is cut into windows of
    WINDOW_STEPS steps, and a window into one stretch for each logical shard, which takes its videos in a random order.
    So a process reads a few neighbouring megabytes at a time, and the order is the same for any number of processes.
    """
    names, ranks_V = np.unique(pack_shards_V, return_inverse=True)
    rank_of = np.argsort(_permutation(len(names), draw))
    line = np.argsort(rank_of[ranks_V], kind="stable")
    order = np.empty((steps, batch.clips), dtype=np.int64)
    for first in range(0, steps, WINDOW_STEPS):
        window = line[first * batch.clips : min(first + WINDOW_STEPS, steps) * batch.clips]
        stretches = window.reshape(batch.shards, -1)
        count = stretches.shape[1] // batch.clips_per_shard
        for shard, stretch in enumerate(stretches):
            shuffled = stretch[_permutation(len(stretch), draw)].reshape(count, batch.clips_per_shard)
            columns = slice(shard * batch.clips_per_shard, (shard + 1) * batch.clips_per_shard)
            order[first : first + count, columns] = shuffled
    return order


def _permutation(n: int, draw: torch.Generator) -> NDArray[np.int64]:
    return torch.randperm(n, generator=draw).numpy()
