"""Which video goes into which shard: a pure function of the list and the options, known before anything is decoded.

So shards can be packed in any order, by any number of processes and after any interruption, with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pvnas.data.catalog import SPLITS, Catalog, Video


@dataclass(frozen=True)
class ShardPlan:
    """The videos of one shard, in their order."""

    name: str
    rows: NDArray[np.int64]
    """Rows of the catalogue."""

    def key(self, place: int) -> str:
        """Return the name that the members of the sample at this place share; it has no dot, as WebDataset asks."""
        return f"{self.name.removesuffix('.tar')}-{place:05d}"


def plan_shards(catalog: Catalog, videos_per_shard: int, seed: int) -> list[ShardPlan]:
    """Return the shards of all splits, each of ``videos_per_shard`` videos but for the last of its split.

    Whoever reads the shards in sequence sees every class and every group spread evenly: see ``spread_order``.
    """
    plans = []
    for split in SPLITS:
        rows = np.flatnonzero(catalog.videos.splits == SPLITS.index(split))
        part = catalog.take(rows)
        order = spread_order(list(part.videos), seed)
        for number, first in enumerate(range(0, len(order), videos_per_shard)):
            plans.append(ShardPlan(f"{split}-{number:05d}.tar", rows[order[first : first + videos_per_shard]]))
    return plans


def spread_order(videos: list[Video], seed: int) -> NDArray[np.int64]:
    """Return a random order (N,) by (seed, names) in which neighbours differ in class, and within a class in group.

    A class of n videos has one at a random place in each n-th of the whole, and a group of m one in each m-th of its
    class. The order of the list does not matter.
    """
    names = [f"{seed}\0{video.path}\0{video.label}" for video in videos]
    draws_N = np.array([_hash(name) for name in names], dtype=np.uint64).reshape(-1)
    jitter_N = (draws_N >> np.uint64(11)).astype(np.float64) / 2.0**53
    order = np.argsort(np.array(names, dtype=object), kind="stable")  # a tie must not fall back on the list's order
    order = order[np.argsort(draws_N[order], kind="stable")]
    labels_N = np.array([video.label for video in videos], dtype=np.int64)
    groups = {name: code for code, name in enumerate(dict.fromkeys(video.group for video in videos))}
    groups_N = np.array([groups[video.group] for video in videos], dtype=np.int64)
    pairs_N = labels_N * (len(groups) + 1) + groups_N
    for codes_N in (pairs_N, labels_N):
        order = _interleaved(order, codes_N, jitter_N)
    return order


def list_digest(catalog: Catalog) -> str:
    """Return the SHA-256 of the list of videos, whatever its order."""
    total = hashlib.sha256()
    rows = sorted(
        (video.path, catalog.classes[video.label], video.split, video.group or "") for video in catalog.videos
    )
    for row in rows:
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()


def _interleaved(
    order: NDArray[np.int64], codes_N: NDArray[np.int64], jitter_N: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Sort by (rank within the video's own code + jitter) / (number of that code); ranks are those of ``order``."""
    codes = codes_N[order]
    by_code = np.argsort(codes, kind="stable")
    _, starts, counts = np.unique(codes[by_code], return_index=True, return_counts=True)
    rank = np.empty(len(order), dtype=np.float64)
    rank[by_code] = np.arange(len(order)) - np.repeat(starts, counts)
    size = np.empty(len(order), dtype=np.float64)
    size[by_code] = np.repeat(counts, counts)
    return order[np.argsort((rank + jitter_N[order]) / size, kind="stable")]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest())
