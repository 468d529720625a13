"""Where the time of a clip goes that is read from a file: open, seek, decode, convert, augment, collate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.bench.readers import clip_requests
from pvnas.config import AugmentConfig, ClipConfig
from pvnas.data.catalog import Catalog
from pvnas.data.clips.augment import crop_batch, random_crop_box
from pvnas.data.clips.sampling import training_indices
from pvnas.data.video.container import open_video
from pvnas.data.video.decode import Painter, stacked
from pvnas.data.video.seek import decode_runs, packets_and_table
from pvnas.runtime.random import generator

CLIPS_PER_BATCH = 8


class _TimedPainter(Painter):
    """A painter that counts the seconds of converting."""

    seconds = 0.0

    def paint(self, frame: Any) -> NDArray[np.uint8]:
        started = time.perf_counter()
        picture = super().paint(frame)
        self.seconds += time.perf_counter() - started
        return picture


def stage_milliseconds(catalog: Catalog, *, short_side: int, clips: int, augment: AugmentConfig) -> dict[str, float]:
    """Return the milliseconds of a clip by stage."""
    spent = dict.fromkeys(("open", "seek", "decode", "convert", "augment", "collate"), 0.0)
    batch = []
    for number, request in enumerate(clip_requests(len(catalog.videos), clips)):
        frames_TCHW = _read(catalog.root / catalog.videos[request.video].path, request.u, short_side, spent)
        started = time.perf_counter()
        height, width = frames_TCHW.shape[2:]
        box = random_crop_box(height, width, augment, generator(0, number), may_flip=True)
        batch.append(crop_batch([frames_TCHW], [box], augment.crop))
        spent["augment"] += time.perf_counter() - started
        if len(batch) == CLIPS_PER_BATCH or number == clips - 1:
            started = time.perf_counter()
            torch.cat(batch)
            spent["collate"] += time.perf_counter() - started
            batch = []
    return {stage: 1000.0 * seconds / clips for stage, seconds in spent.items()}


def _read(path: Path, u: float, short_side: int, spent: dict[str, float]) -> torch.Tensor:
    """Do what ``read_frames`` does with a sound file, adding up the seconds of each stage."""
    painter, began = _TimedPainter(short_side), time.perf_counter()
    with open_video(path) as (container, stream):
        opened = time.perf_counter()
        packets, table = packets_and_table(path, container, stream)
        assert table is not None, f"{path}: without usable time stamps there are no stages to tell apart"
        wanted = table.order_T[training_indices(table.times_T, table.duration, ClipConfig(), [u])]
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
