"""Clips per second of every reader in one run: files (by us and by others), packs and memory.

A clip is what one training sample needs: 8 frames of a random window of 64, at the short side that is asked for. The
readers take turns, so that a machine that gets slower gets slower for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pvnas.config import ClipConfig, DataConfig
from pvnas.data.catalog import Catalog
from pvnas.data.clips.sampling import training_indices
from pvnas.data.dataset import VideoDataset
from pvnas.data.pack import open_pack, pack_videos
from pvnas.data.video.decode import decode_video

ROUNDS = 5


@dataclass(frozen=True)
class ClipRequest:
    """One clip to read."""

    video: int
    u: float
    """Where in the video its window begins, in [0, 1)."""


def clip_requests(videos: int, clips: int) -> list[ClipRequest]:
    """Return the clips that every reader reads: the videos in turn, at random positions."""
    draw = np.random.default_rng(0)
    return [ClipRequest(number % videos, float(draw.random())) for number in range(clips)]


def reading_rates(catalog: Catalog, folder: Path, *, short_side: int, clips: int, peers: bool) -> dict[str, float]:
    """Return clips per second by reader: ``direct.pvnas``, ``direct.<peer>``, ``packed`` and ``ram``.

    ``folder`` takes the pack. Peers are given the frames that we would take, which they could not know without us.
    """
    requests = clip_requests(len(catalog.videos), clips)
    memory = VideoDataset(catalog, DataConfig(cache="ram"), short_side)
    memory.prepare_cache()
    datasets = {
        "direct.pvnas": VideoDataset(catalog, DataConfig(cache="none"), short_side),
        "packed": _packed(catalog, folder, short_side),
        "ram": memory,
    }
    readers: dict[str, Callable[[ClipRequest], Any]] = {name: partial(_read, data) for name, data in datasets.items()}
    if peers:
        frames = _frames_of(requests, catalog, short_side)
        readers |= {f"direct.{name}": partial(_read_as, peer, frames) for name, peer in installed_peers().items()}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            started = time.perf_counter()
            for request in requests:
                read(request)
            seconds[name].append(time.perf_counter() - started)
    return {name: clips / median(of_rounds) for name, of_rounds in seconds.items()}


def _read(dataset: VideoDataset, request: ClipRequest) -> Any:
    def choose(times_T: Any, duration: float) -> Any:
        return training_indices(times_T, duration, ClipConfig(), [request.u])

    return dataset.frames(request.video, choose)


def _packed(catalog: Catalog, folder: Path, short_side: int) -> VideoDataset:
    pack_videos(catalog, folder, short_side=short_side)
    pack = open_pack(str(folder))
    row_of = {path: row for row, path in enumerate(pack.catalog.videos.paths)}
    ordered = pack.catalog.take([row_of[path] for path in catalog.videos.paths])
    return VideoDataset(ordered, DataConfig(cache="none"), short_side, pack)


# How others read a clip: each as its own manual says, on one thread. They return (T, H, W, C) or (T, C, H, W) uint8
# frames at the wanted indices of a video of ``rate`` frames a second, scaled to ``size`` = (height, width).


@dataclass(frozen=True)
class _Frames:
    path: Path
    indices: list[int]
    rate: float
    size: tuple[int, int]


def _frames_of(requests: Sequence[ClipRequest], catalog: Catalog, short_side: int) -> dict[ClipRequest, _Frames]:
    """Return what a peer is told of each clip."""
    frames = {}
    for number, video in enumerate(catalog.videos):
        path = catalog.root / video.path
        whole = decode_video(path, short_side=short_side)
        height, width = whole.frames_TCHW.shape[2:]
        for request in (request for request in requests if request.video == number):
            indices = training_indices(whole.times_T, whole.duration, ClipConfig(), [request.u]).tolist()
            frames[request] = _Frames(path, indices, whole.rate, (height, width))
    return frames


def _read_as(peer: Callable[[_Frames], Any], frames: dict[ClipRequest, _Frames], request: ClipRequest) -> Any:
    return peer(frames[request])


def installed_peers() -> dict[str, Callable[[_Frames], Any]]:
    """Return the readers of the packages that are installed and can be imported here, PyAV's own among them."""
    peers: dict[str, tuple[str, Callable[[_Frames], Any]]] = {
        "pyav": ("av", _read_pyav),
        "torchcodec": ("torchcodec.decoders", partial(_read_torchcodec, mode="exact")),
        # Times taken from the average rate: not exact where the rate varies.
        "torchcodec_approximate": ("torchcodec.decoders", partial(_read_torchcodec, mode="approximate")),
        "decord": ("decord", _read_decord),
    }
    return {name: read for name, (module, read) in peers.items() if _imports(module)}


def _imports(module: str) -> bool:
    try:
        import_module(module)
    except (ImportError, OSError, RuntimeError):  # not installed, or without a matching FFmpeg on the system
        return False
    return True


def _read_pyav(frames: _Frames) -> Any:
    """Seek to the key frame before the first wanted frame, decode on, convert the wanted ones."""
    import av

    wanted, pictures = set(frames.indices), {}
    with av.open(str(frames.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        container.seek(round(frames.indices[0] / frames.rate / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            index = round(frame.time * frames.rate)
            if index in wanted:
                height, width = frames.size
                pictures[index] = frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
                if len(pictures) == len(wanted):
                    break
    return np.stack([pictures[index] for index in frames.indices])


def _read_torchcodec(frames: _Frames, mode: str) -> Any:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    resize = [Resize(frames.size)]
    decoder = VideoDecoder(str(frames.path), num_ffmpeg_threads=1, seek_mode=mode, transforms=resize)
    return decoder.get_frames_at(indices=frames.indices).data


def _read_decord(frames: _Frames) -> Any:
    import decord

    height, width = frames.size
    reader = decord.VideoReader(str(frames.path), ctx=decord.cpu(0), width=width, height=height, num_threads=1)
    return reader.get_batch(frames.indices).asnumpy()
