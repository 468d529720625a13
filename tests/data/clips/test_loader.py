"""Batches: the same bits whoever decodes them and wherever a run begins again, every view once, faults named."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from augmentations import EVERY_AUGMENTATION
from catalogs import read_catalog
from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, RunConfig, TestConfig, TrainConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.clips import loader  # by the module: pytest would take test_batches for a test
from pvnas.data.clips.augment import CropBox, crop_batch, crop_resize, full_size, spatial_view_box
from pvnas.data.clips.loader import (
    Batch,
    Extras,
    epoch_order,
    steps_per_epoch,
    training_batches,
    validation_batches,
)
from pvnas.data.clips.sampling import frame_indices
from pvnas.data.clips.training_clips import TrainingClips, UncroppedClip
from pvnas.data.dataset import VideoDataset
from pvnas.data.video.decode import decode_video
from pvnas.errors import UserError
from pvnas.runtime.distributed import World

CLIP = ClipConfig(frames=4, window=24)
AUGMENT = AugmentConfig(short_side_min=24, short_side_max=32, crop=24)
BATCH = BatchConfig(shards=2, clips_per_shard=3)
STAGE = TrainConfig(augment=AUGMENT, batch=BATCH)
TEST = TestConfig(temporal_views=2, spatial_views=3, short_side=32, crop=24)


@pytest.fixture(scope="module")
def catalog(tiny_shapes: Path) -> Catalog:
    return read_catalog(tiny_shapes)


@pytest.fixture
def source(catalog: Catalog) -> VideoDataset:
    return VideoDataset(catalog.select("train"), DataConfig(cache="ram"), 32)


def digests(batches: Iterable[Batch]) -> list[str]:
    """Return a SHA-256 of each batch: pixels, labels and paths."""
    return [
        hashlib.sha256(
            b.clips_NCTHW.numpy().tobytes()
            + b.labels_N.numpy().tobytes()
            + repr(b.paths).encode()
            + b"".join(extra.numpy().tobytes() for extra in b.extras if extra is not None)
        ).hexdigest()
        for b in batches
    ]


def epoch_digests(
    source: VideoDataset,
    *,
    epoch: int = 3,
    seed: int = 7,
    workers: int = 0,
    stage: TrainConfig = STAGE,
    clip: ClipConfig = CLIP,
    **options: int | str,
) -> list[str]:
    config = RunConfig(seed=seed, data=DataConfig(workers=workers), clip=clip)
    return digests(training_batches(source, config, stage, epoch, **options))  # type: ignore[arg-type]


def test_an_epoch_is_the_same_for_any_number_of_workers_and_with_or_without_the_cache(source: VideoDataset) -> None:
    expected = epoch_digests(source)
    assert len(set(expected)) == len(expected) == 5
    assert epoch_digests(source, workers=2) == expected
    assert source.prepare_cache()
    assert epoch_digests(source) == expected
    assert epoch_digests(source, workers=2) == expected


def test_an_epoch_begun_again_in_its_middle_goes_on_with_the_same_batches(source: VideoDataset) -> None:
    expected = epoch_digests(source)
    for first_step in range(6):
        assert epoch_digests(source, first_step=first_step) == expected[first_step:]
    assert epoch_digests(source, first_step=2, workers=2) == expected[2:]


# ---- augmentation

EVERYTHING = AugmentConfig(**vars(AUGMENT) | EVERY_AUGMENTATION)
BOTH = ClipConfig(frames=4, window=24, input="both")


def test_with_every_augmentation_an_epoch_is_the_same_for_any_number_of_workers_and_begun_again(
    source: VideoDataset,
) -> None:
    all_on = {"stage": replace(STAGE, augment=EVERYTHING), "clip": BOTH}
    expected = epoch_digests(source, **all_on)  # type: ignore[arg-type]
    assert len(set(expected)) == 5
    assert epoch_digests(source, workers=2, **all_on) == expected  # type: ignore[arg-type]
    assert source.prepare_cache()
    assert epoch_digests(source, first_step=2, **all_on) == expected[2:]  # type: ignore[arg-type]
    assert epoch_digests(source, first_step=3, workers=1, **all_on) == expected[3:]  # type: ignore[arg-type]


def test_with_every_augmentation_two_processes_see_the_clips_of_one(source: VideoDataset) -> None:
    source.prepare_cache()
    config, stage = RunConfig(clip=BOTH), replace(STAGE, augment=EVERYTHING)
    alone = next(training_batches(source, config, stage, 0))
    parts = [next(training_batches(source, config, stage, 0, world=World(rank, 2))) for rank in range(2)]
    assert torch.equal(torch.cat([part.clips_NCTHW for part in parts]), alone.clips_NCTHW)
    assert alone.extras.there().keys() == set(Extras._fields)
    for name, tensor in alone.extras.there().items():
        assert torch.equal(torch.cat([part.extras.there()[name] for part in parts]), tensor)


def test_a_still_video_stays_still_under_every_augmentation_of_one_clip(source: VideoDataset) -> None:
    source.prepare_cache()
    for video in source.cached or ():
        video.frames_TCHW.copy_(video.frames_TCHW[:1].clone().expand_as(video.frames_TCHW))
    (first, *_) = training_batches(source, RunConfig(clip=BOTH), replace(STAGE, augment=full_size(EVERYTHING)), 0)
    assert first.clips_NCTHW.shape == (6, 3, 8, 24, 24)
    assert (first.clips_NCTHW == first.clips_NCTHW[:, :, :1]).all()
    assert len({clip.numpy().tobytes() for clip in first.clips_NCTHW}) == 6


def test_one_option_changes_no_draw_of_another(source: VideoDataset) -> None:
    source.prepare_cache()

    def clips(**options: float) -> list[UncroppedClip]:
        config, augment = RunConfig(clip=CLIP), replace(AUGMENT, **options)  # type: ignore[arg-type]
        drawn = TrainingClips(source, config, replace(STAGE, augment=augment), epoch=1)
        return [drawn((0, position, position)) for position in range(12)]

    plain, turned = clips(), clips(rotate=30.0, static=0.5, brightness=0.2, operations=2)
    assert [(c.box.top, c.box.left, c.box.side, c.box.flip) for c in plain] == [
        (c.box.top, c.box.left, c.box.side, c.box.flip) for c in turned
    ]
    assert [c.colours for c in clips(brightness=0.2)] == [c.colours for c in turned]
    assert [c.operations for c in clips(operations=2)] == [c.operations for c in turned]
    stills = [(c.still.box, c.still.share) if c.still else None for c in clips(static=0.5, rotate=30.0)]
    assert stills == [(c.still.box, c.still.share) if c.still else None for c in turned]
    assert 2 <= sum(still is not None for still in stills) <= 10
    assert all(0 < still[1] <= 0.5 for still in stills if still is not None)


def test_crops_that_grow_show_the_same_in_fewer_pixels(source: VideoDataset) -> None:
    config, stage = RunConfig(clip=CLIP), replace(STAGE, epochs=10, augment=replace(AUGMENT, first_crop=8))
    sides = []
    for epoch in range(10):
        batch = next(training_batches(source, config, stage, epoch))
        sides.append(batch.clips_NCTHW.shape[3])
        assert batch.clips_NCTHW.shape[3:] == (sides[-1], sides[-1])
    assert sides == [8] * 4 + [16] * 3 + [24] * 3
    small, large = (next(training_batches(source, config, replace(stage, epochs=epochs), 0)) for epochs in (10, 1))
    assert large.clips_NCTHW.shape[3] == 24  # the only epoch
    drawn = TrainingClips(source, config, stage, epoch=0)
    order = epoch_order(len(source), stage.batch, seed=0, epoch=0, stream="train")
    clips = [drawn((0, n, int(video))) for n, video in enumerate(order[0])]
    expected = crop_batch([clip.frames_TCHW for clip in clips], [clip.box for clip in clips], 8)
    assert torch.equal(small.clips_NCTHW, expected)


def test_clips_that_grow_come_from_the_same_part_of_a_video(source: VideoDataset) -> None:
    augment = replace(AUGMENT, first_frames=2, window_min=0.5)
    config = RunConfig(clip=replace(CLIP, sampling="whole", frames=8))
    stage = replace(STAGE, epochs=10, augment=augment)
    counts = [next(training_batches(source, config, stage, epoch)).clips_NCTHW.shape[2] for epoch in range(10)]
    assert counts == [2] * 4 + [4] * 3 + [8] * 3
    both = (stage, replace(stage, augment=full_size(augment)))
    short, long = (TrainingClips(source, config, each, epoch=0)((0, 3, 3)) for each in both)
    assert torch.equal(short.frames_TCHW, long.frames_TCHW[[0, -1]])
    assert short.box == long.box


def test_the_single_video_of_a_set_has_no_still_of_another(source: VideoDataset) -> None:
    config, stage = RunConfig(clip=CLIP), replace(STAGE, augment=replace(AUGMENT, static=1.0))
    drawn = TrainingClips(source.select([3]), config, stage, epoch=0)
    assert [drawn((step, 0, 0)).still for step in range(5)] == [None] * 5


def test_steps_before_the_first_are_not_decoded(source: VideoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    frames = source.frames
    monkeypatch.setattr(source, "frames", lambda index, choose: (decoded.append(index), frames(index, choose))[1])
    assert len(epoch_digests(source, first_step=4)) == 1
    assert len(decoded) == BATCH.clips


def test_epochs_seeds_and_streams_differ(source: VideoDataset) -> None:
    found = [epoch_digests(source, **choice)[0] for choice in ({}, {"epoch": 4}, {"seed": 8}, {"stream": "alphas"})]  # type: ignore[arg-type]
    assert len(set(found)) == 4


def test_no_batch_draws_from_the_global_generator(source: VideoDataset) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        epoch_digests(source, first_step=4, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_holds_what_its_paths_say(source: VideoDataset) -> None:
    labels = {video.path: video.label for video in source.catalog.videos}
    seen: Counter[str] = Counter()
    for batch in training_batches(source, RunConfig(clip=CLIP), STAGE, epoch=0):
        assert batch.clips_NCTHW.shape == (6, 3, 4, 24, 24)
        assert batch.clips_NCTHW.dtype == torch.uint8
        assert batch.labels_N.tolist() == [labels[path] for path in batch.paths]
        seen.update(batch.paths)
    assert len(seen) == 30  # 32 videos, 5 batches of 6: none twice
    assert set(seen.values()) == {1}


@pytest.mark.parametrize(("videos", "steps"), [(6, 1), (11, 1), (12, 2), (1, 1), (4, 1)])
def test_an_epoch_has_whole_batches_only(videos: int, steps: int) -> None:
    order = epoch_order(videos, BATCH, seed=0, epoch=0, stream="train")
    assert order.shape == (steps, 6) == (steps_per_epoch(videos, BATCH), BATCH.clips)
    counts = Counter(order.ravel().tolist())
    assert set(counts) <= set(range(videos))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == min(videos, order.size)


def test_no_training_videos_is_an_error(source: VideoDataset) -> None:
    empty = VideoDataset(source.catalog.take([]), DataConfig(), 32)
    with pytest.raises(UserError, match="no training videos"):
        epoch_digests(empty)
    assert list(validation_batches(empty, CLIP, AUGMENT, 4)) == []


# The cache


def test_the_cache_holds_what_decoding_gives(source: VideoDataset) -> None:
    whole = [decode_video(source.catalog.root / video.path, short_side=32) for video in source.catalog.videos]
    assert source.prepare_cache()
    for index, video in enumerate(whole):
        cached = source.whole(index)
        assert torch.equal(cached.frames_TCHW, video.frames_TCHW)
        assert (cached.times_T == video.times_T).all()
        assert source.whole(index) is cached


def test_the_cache_is_filled_only_where_it_is_wanted_and_fits(catalog: Catalog) -> None:
    estimate = VideoDataset(catalog, DataConfig(), 32).estimated_bytes()
    real = sum(decode_video(catalog.root / video.path, short_side=32).frames_TCHW.numel() for video in catalog.videos)
    assert estimate == pytest.approx(real, rel=0.05)
    for cache, gib, filled in (("auto", 1.0, True), ("auto", 1e-6, False), ("none", 1.0, False), ("ram", 0.0, True)):
        assert VideoDataset(catalog, DataConfig(cache=cache, cache_gib=gib), 32).prepare_cache() is filled


def test_a_part_of_a_source_shares_the_cache(source: VideoDataset) -> None:
    source.prepare_cache()
    part = source.select([5, 2])
    assert [video.path for video in part.catalog.videos] == [source.catalog.videos[i].path for i in (5, 2)]
    assert part.whole(0) is source.whole(5)


# Validation, test and display


def test_validation_sees_the_centre_of_every_video_once_and_nothing_random(source: VideoDataset) -> None:
    batches = list(validation_batches(source, CLIP, AUGMENT, 5))
    assert [len(batch.labels_N) for batch in batches] == [5, 5, 5, 5, 5, 5, 2]
    assert [path for batch in batches for path in batch.paths] == [video.path for video in source.catalog.videos]
    assert digests(batches) == digests(validation_batches(source, CLIP, AUGMENT, 5))
    video = source.whole(0)
    wanted = frame_indices(video.times_T, video.duration, (video.duration - 0.8) / 2, CLIP)
    side = round(24 * 32 / 28)
    box = CropBox((32 - side) // 2, (32 - side) // 2, side)
    assert torch.equal(batches[0].clips_NCTHW[0], crop_resize(video.frames_TCHW[wanted], box, 24))


@pytest.mark.parametrize("cached", [False, True])
def test_every_video_has_each_of_its_views_once(source: VideoDataset, cached: bool) -> None:
    if cached:
        source.prepare_cache()
    batches = list(loader.test_batches(source, CLIP, TEST, 7, rows=None, workers=1))
    pairs = [(int(v), int(w)) for b in batches for v, w in zip(b.videos_N, b.views_N, strict=True)]
    assert pairs == [(video, view) for video in range(32) for view in range(6)]
    assert {len(b.videos_N) for b in batches} == {6}  # a batch of 7 holds no second video's
    clips_NCTHW = torch.cat([b.clips_NCTHW for b in batches])
    video = source.whole(1)
    # Video 1, view 4: the second clip of two starts in the middle of the room, and its second crop is the centre.
    wanted = frame_indices(video.times_T, video.duration, (video.duration - 0.8) / 2, CLIP)
    box = spatial_view_box(32, 32, 24, 32, 1, 3)
    assert torch.equal(clips_NCTHW[6 + 4], crop_resize(video.frames_TCHW[wanted], box, 24))


def test_the_frames_for_display_are_the_centre_view(source: VideoDataset) -> None:
    strip_THWC = loader.display_frames(source, 3, CLIP, TEST)
    single = replace(TEST, temporal_views=1, spatial_views=1)
    (first, *_) = loader.test_batches(source.select([3]), CLIP, single, 1, rows=None, workers=0)
    assert strip_THWC.shape == (4, 24, 24, 3)
    assert (strip_THWC == first.clips_NCTHW[0].permute(1, 2, 3, 0).numpy()).all()


# Faults


@pytest.fixture
def broken(catalog: Catalog, tmp_path: Path) -> VideoDataset:
    """Six good videos, one of which turns to noise after the list was made."""
    videos = []
    for number, video in enumerate(catalog.select("train").take(range(6)).videos):
        shutil.copy(catalog.root / video.path, tmp_path / f"{number}.mp4")
        videos.append(Video(f"{number}.mp4", video.label, "train"))
    (tmp_path / "4.mp4").write_bytes(b"\0" * 5000)
    return VideoDataset(Catalog.of(tmp_path, catalog.classes, tuple(videos)), DataConfig(cache="ram"), 32)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_cannot_be_read_is_named_in_one_line_and_not_replaced(broken: VideoDataset, workers: int) -> None:
    with pytest.raises(UserError, match=r"4\.mp4.*cannot be read \(unreadable") as caught:
        epoch_digests(broken, workers=workers)
    assert "\n" not in str(caught.value)


def test_a_video_that_cannot_be_read_stops_the_cache_and_the_views(broken: VideoDataset) -> None:
    for work in (
        broken.prepare_cache,
        lambda: list(validation_batches(broken, CLIP, AUGMENT, 4)),
        lambda: list(loader.test_batches(broken, CLIP, TEST, 4, rows=None, workers=0)),
    ):
        with pytest.raises(UserError, match=r"4\.mp4"):
            work()


def test_a_worker_that_is_killed_stops_the_epoch(tiny_shapes: Path) -> None:
    # In a process of its own: torch raises out of a signal handler, wherever the program is then.
    program = """
import multiprocessing, os, signal, sys, threading, time
from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, RunConfig, TrainConfig
from pvnas.data.listing import read_catalog
from pvnas.data.clips.loader import training_batches
from pvnas.data.clips.training_clips import TrainingClips, UncroppedClip
from pvnas.data.dataset import VideoDataset

class Slow(VideoDataset):
    def frames(self, *wanted):
        time.sleep(0.2)
        return super().frames(*wanted)

source = Slow(read_catalog(DataConfig(path=sys.argv[1])).select("train"), DataConfig(), 32)
augment = AugmentConfig(short_side_min=24, short_side_max=32, crop=24)
stage = TrainConfig(augment=augment, batch=BatchConfig(clips_per_shard=1))
config = RunConfig(data=DataConfig(workers=1), clip=ClipConfig(frames=4))
batches = training_batches(source, config, stage, epoch=0)
next(batches)
(worker,) = multiprocessing.active_children()
print("killing", flush=True)
threading.Timer(0.3, os.kill, (worker.pid, signal.SIGKILL)).start()
print(sum(1 for batch in batches), "more batches")
"""
    command = [sys.executable, "-c", program, str(tiny_shapes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "killing\n"
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("pvnas.errors.UserError: a process that decodes videos (process ")
    assert ") was killed" in done.stderr.splitlines()[-1]
