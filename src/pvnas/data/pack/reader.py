"""Clips out of a pack, reading and decoding the frames they need and nothing else.

row ─ catalogue ─▶ json range ─▶ times, sizes ─ indices ─▶ ranges of frames ─▶ JPEG ─▶ (T, C, H, W)
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pvnas.data.catalog import TextColumn
from pvnas.data.pack.index import Places
from pvnas.data.pack.info import DamageError, PackInfo, shown
from pvnas.data.pack.member import Sample, parse_sample
from pvnas.data.pack.storage import Storage
from pvnas.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES_KEPT = 64


class PackReader:
    """Reads clips by a video's row in the pack (``VideoTable.rows``); threads and forked processes may share one.

    All methods raise UserError, in one line with video and shard, for what is damaged or cannot be read.
    """

    def __init__(self, storage: Storage, info: PackInfo, places: Places, paths: TextColumn) -> None:
        self._storage, self._places, self._paths = storage, places, paths
        self._names = [shard.name for shard in info.shards]
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes_read = 0
        """Bytes read in this process so far."""

    def __len__(self) -> int:
        return len(self._paths)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_pid", "_kept", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    @property
    def shards(self) -> NDArray[np.int64]:
        """Return the shard (N,) that each video lies in."""
        return self._places.shards.astype(np.int64)

    def size(self, row: int) -> tuple[int, int]:
        """Return height and width of a video's frames in pixels, without reading."""
        return self._places.heights.item(row), self._places.widths.item(row)

    def length(self, row: int) -> int:
        """Return the number of a video's frames, without reading."""
        return self._places.frames.item(row)

    def times(self, row: int) -> tuple[NDArray[np.float64], float]:
        """Return when a video's frames begin (T,), from 0, and its duration, in seconds."""
        sample = self._sample(row)
        return sample.times_T, sample.duration

    def frames(self, row: int, indices: NDArray[np.int64]) -> Tensor:
        """Return the (T, C, H, W) uint8 RGB frames at these indices, a view of (T, H, W, C) in memory."""
        import torch

        sample = self._sample(row)
        wanted = indices.tolist()
        if wanted and not (min(wanted) >= 0 and max(wanted) < len(sample.times_T)):
            raise IndexError(f"frames {min(wanted)} to {max(wanted)} of a video with {len(sample.times_T)}")
        height, width = self.size(row)
        frames_THWC = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        found = self._read(row, sample, sorted(set(wanted)))
        decoded: dict[int, int] = {}
        for place, index in enumerate(wanted):
            if index in decoded:
                frames_THWC[place] = frames_THWC[decoded[index]]
                continue
            decoded[index] = place
            try:
                decode_jpeg(found[index], frames_THWC[place])
            except DamageError as damage:
                raise self._fault(row, f"frame {index} {damage}") from None
        return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)

    def about(self, row: int) -> dict[str, Any]:
        """Return what else the video's json member says; claims, to be shown and compared at most."""
        return self._sample(row).about

    def _sample(self, row: int) -> Sample:
        if self._pid != os.getpid():  # the parent's lock may have been held when this process was forked
            self._reset()
        with self._lock:
            if row in self._kept:
                self._kept.move_to_end(row)
                return self._kept[row]
        places = self._places
        content = self._bytes(row, places.json_offsets.item(row), places.json_sizes.item(row))
        height, width = self.size(row)
        try:
            sample = parse_sample(
                content, frames=self.length(row), size=places.mjpeg_sizes.item(row), height=height, width=width
            )
        except DamageError as damage:
            raise self._fault(row, str(damage)) from None
        with self._lock:
            self._kept[row] = sample
            if len(self._kept) > SAMPLES_KEPT:
                self._kept.popitem(last=False)
        return sample

    def _read(self, row: int, sample: Sample, indices: list[int]) -> dict[int, memoryview]:
        """Return the JPEG files of frames in rising order; near ones are read at once."""
        offset = self._places.mjpeg_offsets.item(row)
        bounds = [(i, sample.starts.item(i), sample.starts.item(i + 1)) for i in indices]
        found: dict[int, memoryview] = {}
        for run in _runs(bounds, self._storage.gap):
            first, end = run[0][1], run[-1][2]
            content = memoryview(self._bytes(row, offset + first, end - first))
            for index, start, stop in run:
                found[index] = content[start - first : stop - first]
        return found

    def _bytes(self, row: int, start: int, size: int) -> bytes:
        try:
            content = self._storage.read(self._names[self._places.shards.item(row)], start, size)
        except DamageError as damage:
            raise self._fault(row, str(damage)) from None
        with self._lock:
            self.bytes_read += size
        return content

    def _fault(self, row: int, text: str) -> UserError:
        shard = self._names[self._places.shards.item(row)]
        return UserError(
            f"{self._storage.place}/{shard}: video {shown(self._paths[row])}: {text}; copy the shard anew: "
            "what is damaged can be found with pvnas data verify"
        )


def decode_jpeg(content: memoryview | bytes, frame_HWC: NDArray[np.uint8]) -> None:
    """Decode a JPEG file of exactly this size into an array. Raises DamageError, before decoding for another size."""
    check_jpeg(content, *frame_HWC.shape[:2])
    try:
        simplejpeg.decode_jpeg(content, colorspace="RGB", fastdct=False, fastupsample=False, buffer=frame_HWC)
    except ValueError as error:
        raise DamageError(f"is no whole JPEG ({error})") from None


def check_jpeg(content: memoryview | bytes, height: int, width: int) -> None:
    """Raise DamageError unless the header is that of a JPEG file of this size."""
    try:
        found = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        raise DamageError("is no JPEG") from None
    if found[:2] != (height, width):
        raise DamageError(f"is {found[1]}x{found[0]}, not {width}x{height} pixels")


def _runs(bounds: Iterable[tuple[int, int, int]], gap: int) -> list[list[tuple[int, int, int]]]:
    """Return ranges (index, start, end) in groups of which each is cheaper to read at once."""
    runs: list[list[tuple[int, int, int]]] = []
    for bound in bounds:
        if runs and bound[1] - runs[-1][-1][2] <= gap:
            runs[-1].append(bound)
        else:
            runs.append([bound])
    return runs
