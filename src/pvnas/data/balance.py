"""Unequal classes: what is said of them before a training, orders in which every class comes equally often, weights.

Legend: V videos, K classes.
"""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.config import RunConfig
from pvnas.data.catalog import Catalog, VideoTable

UNEQUAL = 3.0
"""How many times the videos of the smallest class the largest has before a line tells their numbers."""
NAMES_SHOWN = 3


def notes(catalog: Catalog, *, balanced: bool, trained_on: Collection[str] = ("train",)) -> list[str]:
    """Return a line on unequal numbers of training videos, and one on classes with next to no test videos.

    ``balanced``: whether the config does something about the former, so that nothing is advised; ``trained_on``: the
    splits of the training videos.
    """
    counts = catalog.counts()
    numbers_K = np.sum([list(counts[split].values()) for split in trained_on], axis=0)
    low, high = int(numbers_K.argmin()), int(numbers_K.argmax())
    lines = []
    if numbers_K[high] >= UNEQUAL * max(1, numbers_K[low]):
        line = (
            f"training videos of a class: {numbers_K[low]} ({catalog.classes[low]!r}) to {numbers_K[high]} "
            f"({catalog.classes[high]!r}), median {np.median(numbers_K):g}, {len(numbers_K)} classes"
        )
        advice = "; to count all classes alike, type --train.balance weights (or batches), and --search.balance"
        lines.append(line + ("" if balanced else advice))
    if any(counts["test"].values()):
        parts = [_few(counts["test"], 0, "no test video"), _few(counts["test"], 1, "only one")]
        if any(parts):
            says = " and ".join(filter(None, parts))
            lines.append(f"warning: {says}: of these classes the test says nothing, or only yes or no")
    return lines


def batch_notes(config: RunConfig, searched: int, trained: int) -> list[str]:
    """Return a line for each stage whose global batch has more clips than it has training videos."""
    lines = []
    stages = (("search", config.search.batch, searched), ("train", config.train.batch, trained))
    for name, batch, videos in stages:
        if batch.clips > videos:
            option, fewer = f"--{name}.batch", max(1, videos // 4)
            lines.append(
                f"note: a {name} batch has {batch.clips} clips, and there are {videos} training videos: an epoch is "
                f"one step, of repeated videos; smaller: {option}.shards 1 {option}.clips_per_shard {fewer}"
            )
    return lines


def group_notes(config: RunConfig, catalog: Catalog) -> list[str]:
    """Return a line for each stage that is balanced by groups where no training video names one."""
    stages = {"search": config.search.balance, "train": config.train.balance}
    if (catalog.select("train").videos.groups >= 0).any():
        return []
    return [
        f"note: no training video names its group, so that --{name}.balance groups does what batches does; a split.csv "
        "with a column group names them"
        for name, balance in stages.items()
        if balance == "groups"
    ]


def _few(counts: dict[str, int], number: int, words: str) -> str:
    """Return how many classes have so many videos, and the first of them; nothing where none has."""
    names = [name for name, videos in counts.items() if videos == number]
    if not names:
        return ""
    shown = ", ".join(map(repr, names[:NAMES_SHOWN])) + (", ..." if len(names) > NAMES_SHOWN else "")
    return f"{len(names)} of {len(counts)} classes {'has' if len(names) == 1 else 'have'} {words} ({shown})"


def balanced_order(labels_V: NDArray[np.int32], n: int, draw: torch.Generator) -> NDArray[np.int64]:
    """Return ``n`` videos in which every class comes equally often, to within one.

    Any K neighbours that begin at a multiple of K have one video of each class, in a random order. A class goes through
    its videos in a random order, and through them again, in another one, when all have come.
    """
    classes = np.unique(labels_V)

    def shuffled(values: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Return the values in random orders one after another, cut at a length."""
        turns = [values[torch.randperm(len(values), generator=draw).numpy()] for _ in range(-(-length // len(values)))]
        return np.concatenate(turns)[:length]

    class_of_n = shuffled(classes.astype(np.int64), n)
    order = np.empty(n, np.int64)
    for label in classes:
        places = np.flatnonzero(class_of_n == label)
        if len(places):
            order[places] = shuffled(np.flatnonzero(labels_V == label), len(places))
    return order


def balanced_order_of_groups(
    labels_V: NDArray[np.int32], groups_V: NDArray[np.int32], n: int, draw: torch.Generator
) -> NDArray[np.int64]:
    """Return ``n`` videos as balanced_order does, and within a class every group equally often, to within one.

    A class goes through its groups as an order goes through the classes, and a group through its videos.
    """
    order = balanced_order(labels_V, n, draw)
    for label in np.unique(labels_V[order]):
        places, videos = np.flatnonzero(labels_V[order] == label), np.flatnonzero(labels_V == label)
        order[places] = videos[balanced_order(groups_V[videos], len(places), draw)]
    return order


def groups_of(videos: VideoTable) -> NDArray[np.int32]:
    """Return the number (V,) of each video's group; a video that names none is a group of its own."""
    own = len(videos.group_names) + np.arange(len(videos), dtype=np.int32)
    return np.where(videos.groups >= 0, videos.groups, own)


def class_weights(catalog: Catalog) -> torch.Tensor:
    """Return the weight (K,) of the loss of each class's clips: 1/videos of the class, with mean 1 over the videos."""
    numbers_K = np.bincount(catalog.videos.labels, minlength=len(catalog.classes))
    present = np.count_nonzero(numbers_K)
    return torch.from_numpy(len(catalog.videos) / (present * np.maximum(numbers_K, 1))).float()
