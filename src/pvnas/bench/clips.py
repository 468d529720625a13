"""Clips per second of every way to a clip, in one run: files (ours and others), packs, memory; and where the time goes.

A clip is what one training sample needs: 8 frames of a random window of 64, at the short side that is asked for. The
ways take turns, so that a machine that gets slower gets slower for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.bench.peers import Read, installed_peers
from pvnas.config import AugmentConfig, ClipConfig, DataConfig
from pvnas.data.catalog import Catalog
from pvnas.data.clips.augment import crop_batch, random_crop_box
from pvnas.data.clips.sampling import training_indices
from pvnas.data.dataset import VideoDataset
from pvnas.data.pack import open_pack, pack_videos
from pvnas.data.video.container import open_video
from pvnas.data.video.decode import Painter, decode_video, stacked
from pvnas.data.video.seek import decode_runs, packets_and_table
from pvnas.runtime.random import generator

ROUNDS = 5
COLLATED = 8


@dataclass(frozen=True)
class Wanted:
    """One clip to read."""

    video: int
    u: float
    """Where in the video its window begins, in [0, 1)."""


Way = Callable[[Wanted], Any]


def wanted_clips(videos: int, clips: int, seed: int = 0) -> list[Wanted]:
    """Return the clips that every way reads: the videos in turn, at random places."""
    draw = np.random.default_rng(seed)
    return [Wanted(number % videos, float(draw.random())) for number in range(clips)]


def measure_ways(
    catalog: Catalog, folder: Path, *, short_side: int, clips: int, peers: bool, rounds: int = ROUNDS
) -> dict[str, float]:
    """Return clips per second by way: ``direct.pvnas``, ``direct.<peer>``, ``packed`` and ``ram``.

    ``folder`` takes the pack. Peers are given the frames that we would take, which they could not know without us.
    """
    clip, wanted = ClipConfig(), wanted_clips(len(catalog.videos), clips)
    ways = {
        "direct.pvnas": _through(VideoDataset(catalog, DataConfig(cache="none"), short_side), clip),
        "packed": _through(_packed(catalog, folder, short_side), clip),
        "ram": _through(_in_memory(catalog, short_side), clip),
    }
    if peers:
        ways |= {f"direct.{name}": way for name, way in _peer_ways(catalog, clip, wanted, short_side).items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, read in ways.items():
            started = time.perf_counter()
            for clip_wanted in wanted:
                read(clip_wanted)
            seconds[name].append(time.perf_counter() - started)
    return {name: clips / median(found) for name, found in seconds.items()}


def _through(source: VideoDataset, clip: ClipConfig) -> Way:
    def read(wanted: Wanted) -> Any:
        return source.frames(wanted.video, lambda times_T, length: training_indices(times_T, length, clip, [wanted.u]))

    return read


def _packed(catalog: Catalog, folder: Path, short_side: int) -> VideoDataset:
    pack_videos(catalog, folder, short_side=short_side)
    pack = open_pack(str(folder))
    row_of = {path: row for row, path in enumerate(pack.catalog.videos.paths)}
    ordered = pack.catalog.take([row_of[path] for path in catalog.videos.paths])
    return VideoDataset(ordered, DataConfig(cache="none"), short_side, pack.reader())


def _in_memory(catalog: Catalog, short_side: int) -> VideoDataset:
    source = VideoDataset(catalog, DataConfig(cache="ram"), short_side)
    source.prepare_cache()
    return source


def _peer_ways(catalog: Catalog, clip: ClipConfig, wanted: Sequence[Wanted], short_side: int) -> dict[str, Way]:
    """Return the peers' ways, which are told the indices, the rate and the size that a clip has."""
    known: dict[Wanted, tuple[Path, list[int], float, tuple[int, int]]] = {}
    for number, video in enumerate(catalog.videos):
        whole = decode_video(catalog.root / video.path, short_side=short_side)
        height, width = whole.frames_TCHW.shape[2:]
        for each in (each for each in wanted if each.video == number):
            indices = training_indices(whole.times_T, whole.duration, clip, [each.u]).tolist()
            known[each] = catalog.root / video.path, indices, whole.rate, (height, width)
    return {name: _telling(read, known) for name, read in installed_peers().items()}


def _telling(read: Read, known: Mapping[Wanted, tuple[Path, list[int], float, tuple[int, int]]]) -> Way:
    return lambda each: read(*known[each])


# ---- where the time goes


class _TimedPainter(Painter):
    """A painter that counts the seconds of converting."""

    seconds = 0.0

    def paint(self, frame: Any) -> NDArray[np.uint8]:
        started = time.perf_counter()
        picture = super().paint(frame)
        self.seconds += time.perf_counter() - started
        return picture


def measure_stages(catalog: Catalog, *, short_side: int, clips: int, augment: AugmentConfig) -> dict[str, float]:
    """Return the milliseconds of a clip by stage: open, seek, decode, convert, augment, collate."""
    clip, spent = ClipConfig(), dict.fromkeys(("open", "seek", "decode", "convert", "augment", "collate"), 0.0)
    made = []
    for number, wanted in enumerate(wanted_clips(len(catalog.videos), clips)):
        path = catalog.root / catalog.videos[wanted.video].path
        frames_TCHW = _read_in_stages(path, wanted.u, clip, short_side, spent)
        started = time.perf_counter()
        height, width = frames_TCHW.shape[2:]
        box = random_crop_box(height, width, augment, generator(0, number), may_flip=True)
        made.append(crop_batch([frames_TCHW], [box], augment.crop))
        spent["augment"] += time.perf_counter() - started
        if len(made) == COLLATED or number == clips - 1:
            started = time.perf_counter()
            torch.cat(made)
            spent["collate"] += time.perf_counter() - started
            made = []
    return {stage: 1000.0 * seconds / clips for stage, seconds in spent.items()}


def _read_in_stages(path: Path, u: float, clip: ClipConfig, short_side: int, spent: dict[str, float]) -> torch.Tensor:
    """Do what ``read_frames`` does with a sound file, adding up the seconds of each stage."""
    painter, began = _TimedPainter(short_side), time.perf_counter()
    with open_video(path) as (container, stream):
        opened = time.perf_counter()
        packets, table = packets_and_table(path, container, stream)
        assert table is not None, f"{path}: without usable time stamps there are no stages to tell apart"
        wanted = table.order_T[training_indices(table.times_T, table.duration, clip, [u])]
        needed = set(wanted.tolist())
        listed = time.perf_counter()
        painter.fit(stream.codec_context.width, stream.codec_context.height)
        pictures = decode_runs(container, stream, packets, table, needed, table.runs(needed), painter)
        decoded = time.perf_counter()
    frames_TCHW = stacked([pictures[packet] for packet in wanted.tolist()])
    spent["open"] += opened - began
    spent["seek"] += listed - opened
    spent["decode"] += decoded - listed - painter.seconds
    spent["convert"] += painter.seconds + time.perf_counter() - decoded
    return frames_TCHW
