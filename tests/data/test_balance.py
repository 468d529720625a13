"""Unequal classes: every class equally often, weights of mean 1, lines only where they are meant."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pvnas.config import BatchConfig
from pvnas.data.balance import (
    balanced_order,
    balanced_order_of_groups,
    batch_notes,
    class_weights,
    group_notes,
    groups_of,
    notes,
)
from pvnas.data.catalog import Catalog, Video, VideoTable
from pvnas.data.clips.loader import epoch_order
from pvnas.presets import tiny


def catalog(train, test=()):
    """A catalogue with so many training and test videos of each class."""
    videos = [
        Video(f"{split}/{label}/{n}.mp4", label, split)
        for split, counts in (("train", train), ("test", test))
        for label, count in enumerate(counts)
        for n in range(count)
    ]
    return Catalog.of(Path("videos"), [f"c{label}" for label in range(len(train))], videos)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 60), st.integers(0, 5))
def test_every_class_comes_equally_often_and_its_videos_take_turns(sizes, n, seed):
    labels_V = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    order = balanced_order(labels_V, n, torch.Generator().manual_seed(seed))
    assert np.array_equal(order, balanced_order(labels_V, n, torch.Generator().manual_seed(seed)))
    counts = np.bincount(labels_V[order], minlength=len(sizes))
    assert counts.max() - counts.min() <= 1
    for first in range(0, n - len(sizes) + 1, len(sizes)):
        assert len(set(labels_V[order[first : first + len(sizes)]])) == len(sizes)
    for label in range(len(sizes)):
        taken = np.bincount(order, minlength=len(labels_V))[labels_V == label]
        assert taken.max() - taken.min() <= 1


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=2, max_size=4), st.integers(1, 60))
def test_within_a_class_every_group_comes_equally_often_and_its_videos_take_turns(sizes, n):
    """``sizes``: of the groups of each class, in videos."""
    labels_V = np.repeat(np.arange(len(sizes), dtype=np.int32), [sum(groups) for groups in sizes])
    groups_V = np.concatenate([np.repeat(np.arange(len(groups), dtype=np.int32), groups) for groups in sizes])
    order = balanced_order_of_groups(labels_V, groups_V, n, torch.Generator().manual_seed(n))
    assert np.array_equal(order, balanced_order_of_groups(labels_V, groups_V, n, torch.Generator().manual_seed(n)))
    of_class = np.bincount(labels_V[order], minlength=len(sizes))
    assert of_class.max() - of_class.min() <= 1
    for label, groups in enumerate(sizes):
        of_group = np.bincount(groups_V[order][labels_V[order] == label], minlength=len(groups))
        assert of_group.max() - of_group.min() <= 1
        for group in range(len(groups)):
            taken = np.bincount(order, minlength=len(labels_V))[(labels_V == label) & (groups_V == group)]
            assert taken.max() - taken.min() <= 1


def test_a_film_of_many_clips_counts_as_much_as_one_of_a_single_clip():
    """Class 0: a film of three clips, one of one, one clip of no film; class 1: two clips of no film."""
    groups = ["film", "film", "film", "other", None, None, None]
    videos = VideoTable.of(Video(f"{n}.mp4", int(n > 4), "train", group) for n, group in enumerate(groups))
    groups_V = groups_of(videos)
    assert groups_V.tolist() == [0, 0, 0, 1, 6, 7, 8]
    batch = BatchConfig(clips_per_shard=6)
    for epoch in range(3):
        order = epoch_order(18, batch, seed=0, epoch=epoch, stream="train", balanced_V=videos.labels, groups_V=groups_V)
        for step in order:
            assert sorted(groups_V[step[videos.labels[step] == 0]]) == [0, 1, 6]
        assert sorted(order[order < 3]) == [0, 1, 2]
        assert np.bincount(order.ravel(), minlength=7)[5:].sum() == 9


def test_an_epoch_keeps_its_steps_and_has_an_order_of_its_own():
    labels_V = np.repeat(np.arange(3, dtype=np.int32), (24, 2, 24))
    batch = BatchConfig(shards=2, clips_per_shard=3)
    orders = [epoch_order(50, batch, seed=0, epoch=e, stream="train", balanced_V=labels_V) for e in (0, 1)]
    assert [order.shape for order in orders] == [(8, 6)] * 2
    assert not np.array_equal(*orders)
    assert all((np.bincount(labels_V[step]) == 2).all() for order in orders for step in order)


def test_weights_are_inverse_to_the_videos_of_a_class_with_mean_1_over_the_videos():
    weights_K = class_weights(catalog([12, 1, 12]))
    assert weights_K[1] / weights_K[0] == 12
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([12, 1, 12]))
    torch.testing.assert_close(weights_K[labels].mean(), torch.tensor(1.0))
    torch.testing.assert_close(class_weights(catalog([5, 5])), torch.ones(2))


def test_lines_come_only_where_they_are_meant():
    assert notes(catalog([12, 10], [2, 3]), balanced=False) == []
    assert notes(catalog([12, 10]), balanced=False) == []  # no test at all is said elsewhere
    unequal, few = notes(catalog([12, 1, 12], [3, 0, 1]), balanced=False)
    assert unequal.startswith("training videos of a class: 1 ('c1') to 12 ('c0'), median 12, 3 classes; ")
    assert "--train.balance weights" in unequal
    assert few.startswith("warning: 1 of 3 classes has no test video ('c1') and 1 of 3 classes has only one ('c2')")
    assert "--train.balance" not in notes(catalog([12, 1, 12], [3, 0, 1]), balanced=True)[0]


def test_classes_are_counted_on_what_is_trained_on():
    videos = [Video(f"{n}.mp4", int(n > 2), "val" if n in (1, 2) else "train") for n in range(6)]
    unequal = Catalog.of(Path("videos"), ["a", "b"], videos)
    assert notes(unequal, balanced=False)[0].startswith("training videos of a class: 1 ('a') to 3 ('b')")
    assert notes(unequal, balanced=False, trained_on=("train", "val")) == []
    torch.testing.assert_close(class_weights(unequal.select("train", "val")), torch.ones(2))
    assert unequal.select("train", "val").videos == unequal.videos


def test_balance_by_groups_where_there_are_none_is_told():
    config = tiny()
    assert group_notes(config, catalog([3, 3])) == []
    config.train.balance = "groups"
    (line,) = group_notes(config, catalog([3, 3]))
    assert line.startswith("note: no training video names its group, so that --train.balance groups does what batches")
    grouped = Catalog.of(Path("videos"), ["a", "b"], [Video(f"{n}.mp4", n, "train", "film") for n in range(2)])
    assert group_notes(config, grouped) == []


def test_a_batch_larger_than_the_set_is_told():
    config = tiny()  # batches of four clips
    assert batch_notes(config, 4, 4) == []
    assert len(batch_notes(config, 3, 4)) == 1  # the training has the validation videos, too
    search, train = batch_notes(config, 3, 3)
    assert search.startswith("note: a search batch has 4 clips, and there are 3 training videos")
    assert train.endswith("smaller: --train.batch.shards 1 --train.batch.clips_per_shard 1")
