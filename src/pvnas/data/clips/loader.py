"""Batches of clips: of training, reproducible whoever decodes them, and of validation and test, without chance.

Every random choice is keyed by (seed, epoch, step, sample), the order of an epoch's videos by (seed, epoch, stream).
Legend: V videos, N clips of a global batch, C channels, T frames, H and W pixels.
"""

import errno
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, RunConfig, SearchConfig, TestConfig, TrainConfig
from pvnas.data.balance import balanced_order, balanced_order_of_groups, groups_of
from pvnas.data.clips import augment as crops
from pvnas.data.clips.appearance import recoloured, with_stills
from pvnas.data.clips.augment import CropBox, crop_batch
from pvnas.data.clips.mirrored_views import mirrored_labels, views_of_a_video
from pvnas.data.clips.mixup import mixed
from pvnas.data.clips.network_input import frames_read
from pvnas.data.clips.rand_augment import changed_by
from pvnas.data.clips.sampling import centre_indices
from pvnas.data.clips.training_clips import Key, TrainingClips, UncroppedClip
from pvnas.data.clips.view_frames import views_chosen
from pvnas.data.clips.workers import (
    INSTEAD,
    TOO_MANY_FILES,
    explained_want,
    items_ahead,
    lacks_files,
    not_ended_while_started,
    prepare_worker,
    shared,
)
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.runtime.device import copied_to
from pvnas.runtime.distributed import ALONE, World
from pvnas.runtime.random import generator
from pvnas.runtime.signals import ends_waits

# Steps' worth of videos that a pack's shards are shuffled within: far enough for chance, near enough for a slow disk.
WINDOW_STEPS = 16
SECONDS_FOR_SIGNAL = 0.5
KILLED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


def positions(batch: BatchConfig, world: World) -> range:
    """Return the positions in a global batch whose clips this process reads: those of its own logical shards.

    Raises UserError where the logical shards cannot be dealt out evenly.
    """
    if batch.shards % world.size:
        raise UserError(
            f"{batch.shards} logical shards cannot be dealt out to {world.size} processes; "
            "start a number of processes that divides batch.shards"
        )
    return world.part(batch.clips)


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
    balanced_V: NDArray[np.int32] | None = None,
    groups_V: NDArray[np.int32] | None = None,
) -> NDArray[np.int64]:
    """Return the videos (steps, N) of an epoch; the remainder is left out.

    A permutation of all videos by (seed, epoch, stream); given the shard of a pack that each video lies in, one that
    goes through the shards in a random order (see ``_pack_order``); given labels to balance by, an order in which each
    class comes equally often, and with groups each group of a class (see ``balanced_order``). A pack's shards and
    labels do not go together (settings.check_config).
    """
    if n_videos == 0:
        raise UserError("no training videos; add some, or lower --data.validation_share and --data.test_share")
    draw = generator(seed, stream, "order", epoch)
    steps = steps_per_epoch(n_videos, batch)
    if balanced_V is not None and groups_V is not None:
        return balanced_order_of_groups(balanced_V, groups_V, steps * batch.clips, draw).reshape(steps, batch.clips)
    if balanced_V is not None:
        return balanced_order(balanced_V, steps * batch.clips, draw).reshape(steps, batch.clips)
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
    windows = []
    for first in range(0, steps, WINDOW_STEPS):
        window = line[first * batch.clips : min(first + WINDOW_STEPS, steps) * batch.clips]
        shuffled = [stretch[_permutation(len(stretch), draw)] for stretch in window.reshape(batch.shards, -1)]
        windows.append(np.hstack([stretch.reshape(-1, batch.clips_per_shard) for stretch in shuffled]))
    return np.concatenate(windows)


def _permutation(n: int, draw: torch.Generator) -> NDArray[np.int64]:
    return torch.randperm(n, generator=draw).numpy()


# ---- batches


class Extras(NamedTuple):
    """What a batch may have beside clips and labels; None where the config leaves it off."""

    other_labels_N: Tensor | None = None  # int64, of the clips that these are mixed with
    other_shares_N: Tensor | None = None  # float32, how much of each clip and of its loss is theirs
    keeps_rgb_N: Tensor | None = None  # float32, 0 for a clip whose colours the network does not see, else 1

    def there(self) -> dict[str, Tensor]:
        """Return those that the batch has, by name."""
        return {name: tensor for name, tensor in self._asdict().items() if tensor is not None}

    def chunk(self, parts: int) -> list[Self]:
        """Return the extras of equal parts of the batch."""
        tensors = ([None] * parts if tensor is None else tensor.chunk(parts) for tensor in self)
        return [type(self)(*part) for part in zip(*tensors, strict=True)]


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class Batch:
    """Clips of one step, shard after shard."""

    clips_NCTHW: Tensor  # uint8
    labels_N: Tensor  # int64
    paths: tuple[str, ...]
    extras: Extras = NO_EXTRAS

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory; the name is what torch's DataLoader looks for."""
        return self._of([tensor.pin_memory() for tensor in self._tensors()])

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device; out of page-locked memory the copy runs beside other work."""
        return self._of(copied_to(device, self._tensors()))

    def _tensors(self) -> list[Tensor]:
        return [self.clips_NCTHW, self.labels_N, *self.extras.there().values()]

    def _of(self, tensors: Sequence[Tensor]) -> Self:
        clips_NCTHW, labels_N, *more = tensors
        extras = Extras(**dict(zip(self.extras.there(), more, strict=True)))
        return replace(self, clips_NCTHW=clips_NCTHW, labels_N=labels_N, extras=extras)


@dataclass(frozen=True)
class ViewBatch:
    """Views of test videos."""

    clips_NCTHW: Tensor  # uint8
    videos_N: Tensor  # int64, index of the video in the catalog
    views_N: Tensor  # int64; view v is temporal clip v // S and spatial crop v % S of S crops, then these mirrored


def training_batches(
    videos: VideoDataset,
    config: RunConfig,
    stage: SearchConfig | TrainConfig,
    epoch: int,
    first_step: int = 0,
    stream: str = "train",
    world: World = ALONE,
) -> Iterator[Batch]:
    """Yield the batches of an epoch from ``first_step`` on, with random clips, crops and flips.

    ``stage``: the part of the config that says how. The batches are the same for any number of workers and however
    often the run was interrupted; of several processes each gets the clips of its own logical shards (``positions``).
    Raises UserError for a video that cannot be read and where a worker process is killed.
    """
    augment, batch, seed, table = stage.augment, stage.batch, config.seed, videos.catalog.videos
    order = epoch_order(
        len(videos),
        batch,
        seed=seed,
        epoch=epoch,
        stream=stream,
        pack_shards_V=videos.pack_shards(),
        balanced_V=table.labels if stage.balance in ("batches", "groups") else None,
        groups_V=groups_of(table) if stage.balance == "groups" else None,
    )
    # One step at a time: as lists, a large epoch would be a hundred megabytes of small objects.
    read_here = positions(batch, world)
    keys = ([(step, n, int(order[step, n])) for n in read_here] for step in range(first_step, len(order)))
    make = partial(augmented_batch, TrainingClips(videos, config, stage, epoch, stream))
    size = len(read_here) * clip_bytes(config.clip, augment.crop)
    workers, pin = videos.workers(config.data.workers), videos.pins_memory()
    yield from load(make, keys, workers=workers, item_bytes=size, pin=pin)


def augmented_batch(random_clip: TrainingClips, keys: Sequence[Key]) -> Batch:
    """Return the batch of the clips of these keys, whole shards of one step: cropped, changed, mixed."""
    augment, clips, side = random_clip.stage.augment, list(map(random_clip, keys)), random_clip.side
    batch = _batch(clips, side)
    clips_NCTHW = with_stills(batch.clips_NCTHW, [clip.still for clip in clips], side)
    if augment.operations:
        changed = [changed_by(x, clip.operations) for x, clip in zip(clips_NCTHW, clips, strict=True)]
        clips_NCTHW = torch.stack(changed).contiguous(memory_format=torch.channels_last_3d)
    colours = [clip.colours for clip in clips if clip.colours is not None]
    if colours:  # of all clips, or of none
        clips_NCTHW = recoloured(clips_NCTHW, colours)
    batch = replace(batch, clips_NCTHW=clips_NCTHW)
    if augment.drop_rgb:
        keeps_rgb_N = torch.tensor([float(clip.keeps_rgb) for clip in clips], device=clips_NCTHW.device)
        batch = replace(batch, extras=Extras(keeps_rgb_N=keeps_rgb_N))
    return _mixed_batch(batch, random_clip, keys) if augment.mixup or augment.cutmix else batch


def _mixed_batch(batch: Batch, random_clip: TrainingClips, keys: Sequence[Key]) -> Batch:
    """Return the batch with the clips of each shard mixed with one another."""
    clips_per_shard, parts = random_clip.stage.batch.clips_per_shard, []
    for first in range(0, len(keys), clips_per_shard):
        step, position, _ = keys[first]
        here = slice(first, first + clips_per_shard)
        seed = random_clip.seed("mix", step, position // clips_per_shard)
        parts.append(mixed(batch.clips_NCTHW[here], batch.labels_N[here], random_clip.stage.augment, seed))
    clips_NCTHW, others_N, shares_N = map(torch.cat, zip(*parts, strict=True))
    extras = batch.extras._replace(other_labels_N=others_N, other_shares_N=shares_N)
    return replace(batch, clips_NCTHW=clips_NCTHW, extras=extras)


def validation_batches(
    videos: VideoDataset,
    clip: ClipConfig,
    augment: AugmentConfig,
    clips_per_batch: int,
    *,
    workers: int = 0,
    world: World = ALONE,
) -> Iterator[Batch]:
    """Yield the centre crop of the centre clip of every video once; the last batch may be smaller.

    Of several processes each gets a part of the batches.
    """

    def centre_clip(index: int) -> UncroppedClip:
        frames_TCHW = videos.frames(index, lambda times_T, duration: centre_indices(times_T, duration, clip))
        video = videos.catalog.videos[index]
        height, width = frames_TCHW.shape[2:]
        return UncroppedClip(frames_TCHW, crops.validation_box(height, width, augment), video.label, video.name)

    rows = range(len(videos))
    firsts = rows[::clips_per_batch]
    batches = (rows[firsts[batch] : firsts[batch] + clips_per_batch] for batch in world.part(len(firsts)))
    size = clips_per_batch * clip_bytes(clip, augment.crop)
    yield from load(
        lambda rows: _batch(list(map(centre_clip, rows)), augment.crop),
        batches,
        workers=videos.workers(workers),
        item_bytes=size,
    )


def test_batches(
    videos: VideoDataset,
    clip: ClipConfig,
    test: TestConfig,
    clips_per_batch: int,
    *,
    workers: int,
    rows: range | None,
) -> Iterator[ViewBatch]:
    """Yield every view of the videos of these rows (None: of all) once, video after video.

    A batch has all views of as many videos as go into one, or some views of a single video: so it is the same whatever
    process makes it, if the rows begin where ``rows_of_test`` says.
    """
    # One video at a time, so that what is in memory hangs on the views of a video and not on the batch.
    classes = videos.catalog.classes
    mirrored = mirrored_labels(classes, test.flip) is not None
    views = partial(_views, videos, clip=clip, test=test, mirrored=mirrored)
    size = views_of_a_video(test, classes) * clip_bytes(clip, test.crop)
    rows = range(len(videos)) if rows is None else rows
    views_of_each = zip(rows, load(views, rows, workers=videos.workers(workers), item_bytes=size), strict=True)
    while group := list(islice(views_of_each, videos_per_batch(test, classes, clips_per_batch))):
        clips = [clips_VCTHW for _, clips_VCTHW in group]
        videos_N = torch.cat([torch.full((len(each),), row) for row, each in group])
        views_N = torch.cat([torch.arange(len(each)) for each in clips])
        views_NCTHW = torch.cat(clips)
        del group, clips  # not to hold them while the next ones are made
        parts = (tensor.split(clips_per_batch) for tensor in (views_NCTHW, videos_N, views_N))
        yield from map(ViewBatch, *parts)


def videos_per_batch(test: TestConfig, classes: Sequence[str], clips_per_batch: int) -> int:
    """Return how many videos have all their views in one batch of the test: at least one."""
    return max(1, clips_per_batch // views_of_a_video(test, classes))


def rows_of_test(videos: VideoDataset, test: TestConfig, clips_per_batch: int, world: World) -> range:
    """Return the videos that this process tests: those of a part of the batches."""
    each = videos_per_batch(test, videos.catalog.classes, clips_per_batch)
    batches = world.part(-(-len(videos) // each))
    return range(len(videos))[batches.start * each : batches.stop * each]


def _views(videos: VideoDataset, index: int, clip: ClipConfig, test: TestConfig, mirrored: bool) -> Tensor:
    """Return the (V, C, T, H, W) views of one video, temporal clips first; it is decoded once for all of them."""

    return cropped_views(videos.frames(index, views_chosen(clip, test)), clip, test, mirrored=mirrored)


def cropped_views(frames_TCHW: Tensor, clip: ClipConfig, test: TestConfig, *, mirrored: bool) -> Tensor:
    """Return the (V, C, T, H, W) views of the frames that ``views_chosen`` has chosen, temporal clips first.

    ``mirrored``: behind them, in the same order, all of them mirrored left to right.
    """
    clips = frames_TCHW.split(frames_read(clip))
    boxes = [_view_box(clips[0], test, view) for view in range(test.spatial_views)]
    repeated = [frames_TCHW for frames_TCHW in clips for _ in boxes]
    views_NCTHW = crop_batch(repeated, boxes * len(clips), test.crop)
    return torch.cat([views_NCTHW, views_NCTHW.flip(4)]) if mirrored else views_NCTHW


def _view_box(frames_TCHW: Tensor, test: TestConfig, view: int) -> CropBox:
    height, width = frames_TCHW.shape[2:]
    return crops.spatial_view_box(height, width, test.crop, test.short_side, view, test.spatial_views)


def display_frames(videos: VideoDataset, index: int, clip: ClipConfig, test: TestConfig) -> NDArray[np.uint8]:
    """Return the (frames_read, H, W, C) uint8 frames of a video's centre view, cropped as for the network."""
    frames_TCHW = videos.frames(index, lambda times_T, duration: centre_indices(times_T, duration, clip))
    box = _view_box(frames_TCHW, test, test.spatial_views // 2)
    return crop_batch([frames_TCHW], [box], test.crop)[0].permute(1, 2, 3, 0).cpu().numpy()


def _batch(clips: Sequence[UncroppedClip], size: int) -> Batch:
    clips_NCTHW = crop_batch([clip.frames_TCHW for clip in clips], [clip.box for clip in clips], size)
    labels_N = torch.tensor([clip.label for clip in clips], device=clips_NCTHW.device)
    return Batch(clips_NCTHW, labels_N, tuple(clip.path for clip in clips))


def clip_bytes(clip: ClipConfig, crop: int) -> int:
    """Return the bytes of a clip as a batch holds it."""
    return clip.colours * frames_read(clip) * crop * crop


def load(
    make: Callable[[Any], Any], keys: Iterable[Any], *, workers: int, item_bytes: int, pin: bool = False
) -> Iterator[Any]:
    """Yield ``make(key)`` of each key, in order, made by ``workers`` processes; with 0 in this one.

    ``item_bytes``: of the largest. A stop request ends the wait for an item. Raises the UserError of a ``make`` in the
    main process, and one where worker processes cannot be had, or one of them is killed.
    """
    loader: DataLoader[Any] = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=keys,
        collate_fn=lambda batch: batch,
        num_workers=workers,
        pin_memory=pin,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=items_ahead(workers, item_bytes) if workers else None,
        worker_init_fn=prepare_worker,
        generator=torch.Generator(),  # else it draws from the global one, which belongs to the network's dropout
    )
    iterator = _started(loader, workers)
    try:
        while (item := _next(iterator, workers)) is not None:
            if isinstance(item, UserError):
                raise item
            yield item
    finally:
        if workers:
            iterator._shutdown_workers()  # not when the last traceback that holds it is forgotten
            for worker in iterator._workers:
                worker.kill()


def _started(loader: DataLoader[Any], workers: int) -> Any:
    """Return the iterator of a loader. Raises UserError where its processes cannot be started."""
    try:
        with not_ended_while_started():
            return iter(loader)
    except OSError as error:
        if not workers:
            raise
        raise UserError(
            f"{workers} processes that decode videos cannot be started ({error.strerror or error}): {INSTEAD[3:]}"
        ) from None


class _Made(Dataset[Any]):
    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, key: Any) -> Any:
        try:
            item = self.make(key)
            return item if get_worker_info() is None else shared(item)
        except UserError as error:  # a DataLoader would hand it on as the text of its whole traceback
            return UserError(str(error))


def _next(iterator: Any, workers: int) -> Any:
    """Return what comes next, None at the end; a stop request ends the wait for it.

    Raises UserError where a worker process died: killed, most likely.
    """
    try:
        with ends_waits():
            return next(iterator, None)
    except (RuntimeError, EOFError, OSError) as error:
        if not workers or "in DataLoader worker process" in str(error):
            raise  # a mistake in the work itself, with the worker's traceback as its text
        # The end of a pipe may be seen before the signal of the worker's death, whose handler (torch's) raises wherever
        # the program is at that moment: let it be here.
        text = str(error)
        try:
            time.sleep(SECONDS_FOR_SIGNAL)
        except RuntimeError as named_error:
            text += f" {named_error}"
        if explained := explained_want(text):
            raise UserError(explained) from None
        if lacks_files() or any(worker.exitcode == errno.EMFILE for worker in iterator._workers):
            raise UserError(TOO_MANY_FILES) from None
        named = KILLED.search(text)
        which = f" (process {named[1]})" if named else ""
        raise UserError(
            f"a process that decodes videos{which} was killed, perhaps for want of memory; "
            "start the same command again, with a smaller --data.workers if it happens twice"
        ) from None
