"""Videos opened as a config says, and their frames: out of files, a pack of them, or what is kept decoded in memory.

torch is imported when frames are asked for: listing a folder needs none. Legend: T frames, C channels, H and W pixels.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvnas.config import DataConfig
from pvnas.data.cache_room import decoded_pixels
from pvnas.data.catalog import SPLITS, Catalog
from pvnas.data.listing import FORMATS, read_catalog
from pvnas.data.listing.registry import Entry
from pvnas.data.listing.splits import check_classes, complete_splits, shares_of
from pvnas.data.memory_cache import keep_decoded
from pvnas.data.pack.format import INFO, PackInfo
from pvnas.data.pack.read import Pack, open_pack
from pvnas.data.video.decode import DecodedVideo, VideoError, channels_first, in_colours
from pvnas.data.video.footage import Footage
from pvnas.data.video.segment import Choose
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FRAMES_OF_UNKNOWN_LENGTH = 300


class Shape(NamedTuple):
    """What decoding a video has shown: how many frames, and their size in pixels."""

    frames: int
    height: int
    width: int


class VideoDataset:
    """The videos of a catalogue, decoded on demand, read from a pack, or kept decoded at ``short_side`` pixels.

    Raises UserError for a video that cannot be read, with its path: it was whole when it was listed, and no other video
    takes its place.

    Worker processes are forked after the cache is filled and read it where it is. Shared memory in its place would cost
    an open file for each video, more than a process may have by default.
    """

    def __init__(
        self,
        catalog: Catalog,
        config: DataConfig,
        short_side: int,
        pack: Pack | None = None,
        shapes: Mapping[str, Shape] | None = None,
        colours: int = 3,
    ) -> None:
        """``shapes``: of the videos by name, as far as they are known from decoding; else their headers are asked.

        ``colours``: channels of the frames, 3 or, of grey levels, 1.
        """
        self.catalog, self.config, self.short_side, self.pack = catalog, config, short_side, pack
        self.colours = colours
        self.shapes = shapes or {}
        self.cached: list[DecodedVideo] | None = None
        """The videos decoded, where they are kept in memory."""

    def __len__(self) -> int:
        return len(self.catalog.videos)

    @property
    def device(self) -> "torch.device":
        """Where the frames are."""
        import torch

        return self.cached[0].frames_TCHW.device if self.cached else torch.device("cpu")

    def workers(self, asked: int) -> int:
        """Return how many processes may read: what lies on the GPU needs none, and none can reach it."""
        return 0 if self.device.type == "cuda" else asked

    def pins_memory(self) -> bool:
        """Return whether batches go through page-locked memory on their way to a GPU."""
        import torch

        return torch.cuda.is_available() and self.device.type == "cpu"

    def pack_shards(self) -> NDArray[np.int64] | None:
        """Return the shard (V,) of the pack that each video lies in, None unless an epoch goes shard after shard."""
        if self.config.order != "shards":
            return None
        if self.pack is None:
            raise UserError("data.order shards is for packs; write one with: pvnas data pack DATA PACK")
        return self.pack.pack_shards[self.catalog.videos.rows]

    def of_splits(self, *splits: str) -> "VideoDataset":
        """Return the videos of these splits; what is cached is shared."""
        wanted = [SPLITS.index(split) for split in splits]
        return self.select(np.flatnonzero(np.isin(self.catalog.videos.splits, wanted)).tolist())

    def select(self, indices: Sequence[int]) -> "VideoDataset":
        """Return some of the videos; what is cached is shared."""
        whose = self.catalog.take(indices), self.config, self.short_side, self.pack, self.shapes
        part = VideoDataset(*whose, self.colours)
        part.cached = None if self.cached is None else [self.cached[i] for i in indices]
        return part

    def frames(self, index: int, choose: Choose) -> "Tensor":
        """Return the (T, ``colours``, H, W) uint8 frames of a video that ``choose(times_T, duration)`` asks for."""
        import torch

        if self.cached is not None:
            video = self.cached[index]
            wanted, frames_TCHW = choose(video.times_T, video.duration), video.frames_TCHW
            if frames_TCHW.is_cuda:
                return frames_TCHW[torch.from_numpy(wanted)]
            # Numpy copies whole frames, where torch's indexing goes from number to number.
            return channels_first(frames_TCHW.permute(0, 2, 3, 1).numpy()[wanted])
        if self.pack is not None:
            row = self.catalog.videos.rows.item(index)
            times_T, duration = self.pack.times(row)
            return in_colours(self.pack.frames(row, choose(times_T, duration)), self.colours)
        with self._named(index) as footage:
            return in_colours(footage.frames(choose, short_side=self.short_side), self.colours)

    def prepare_cache(self, device: "torch.device | None" = None, progress: Progress | None = None) -> bool:
        """Decode all videos into memory, or onto ``device``, as the config says; return whether they are there."""
        return keep_decoded([self], device, progress)

    def whole(self, index: int) -> DecodedVideo:
        """Return a whole video, its shorter side scaled to ``short_side``; as it is kept, if it is."""
        if self.cached is not None:
            return self.cached[index]
        if self.pack is not None:
            row = self.catalog.videos.rows.item(index)
            times_T, duration = self.pack.times(row)
            video = DecodedVideo(self.pack.frames(row, np.arange(len(times_T))), times_T, duration)
        else:
            with self._named(index) as footage:
                video = footage.whole(short_side=self.short_side)
        return replace(video, frames_TCHW=in_colours(video.frames_TCHW, self.colours))

    def estimated_bytes(self) -> float:
        """Return the memory that the decoded videos take."""
        return sum(map(self.decoded_bytes, range(len(self))))

    def decoded_bytes(self, index: int) -> float:
        """Return the memory that a decoded video takes: of what is known, else of what its header says."""
        video = self.catalog.videos[index]
        if self.pack is not None:
            row = self.catalog.videos.rows.item(index)
            return float(self.colours * math.prod(self.pack.size(row)) * self.pack.length(row))
        shape = self.shapes.get(video.name)
        if shape is None:
            with self._named(index) as footage:
                frames, height, width = footage.claimed_size()
            shape = Shape(frames or FRAMES_OF_UNKNOWN_LENGTH, height, width)
        return self.colours * decoded_pixels(*shape, self.short_side)

    @contextmanager
    def _named(self, index: int) -> Iterator[Footage]:
        """Yield a video's footage; a VideoError becomes a UserError with its path and name in it."""
        video = self.catalog.videos[index]
        try:
            yield Footage.of(self.catalog, video, self.config.frame_rate)
        except VideoError as error:
            # A repr keeps a file name with control characters on one line.
            name = str(self.catalog.root / video.name)
            raise UserError(f"{name!r} cannot be read ({error}); mend it or take it away") from None


@dataclass(frozen=True)
class OpenedVideos:
    """A catalogue and how its frames are read."""

    catalog: Catalog
    config: DataConfig
    pack: Pack | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)  # of videos by name, as far as they are known

    @property
    def info(self) -> PackInfo | None:
        """What the pack says of itself."""
        return self.pack.info if self.pack else None

    def dataset(self, split: str | tuple[str, ...], short_side: int, colours: int = 3) -> VideoDataset:
        """Return the videos of one split (train, val or test) or several; ``colours``: channels of their frames."""
        splits = (split,) if isinstance(split, str) else split
        return VideoDataset(self.catalog.select(*splits), self.config, short_side, self.pack, self.shapes, colours)


def open_videos(config: DataConfig, seed: int) -> OpenedVideos:
    """Return the videos to train on, with all splits: those that are named, the others held out of train.

    A pack and the files that it was made of have the same videos in the same order and the same splits. Raises
    UserError.
    """
    pack = _pack(config)
    if pack is None:
        return OpenedVideos(read_catalog(config, seed), config)
    shares = shares_of(config)
    places = [(video.path, video.start, video.end) for video in pack.catalog.videos]
    catalog = pack.catalog.take(np.array(sorted(range(len(places)), key=places.__getitem__)))
    # A pack keeps only the splits that its list named.
    entries = [Entry(v.path, catalog.classes[v.label], v.split, v.group) for v in catalog.videos]
    format = FORMATS.get(pack.info.source.format)
    splits = complete_splits(entries, format is not None and format.validation_is_test, shares, seed)
    codes = np.array([SPLITS.index(split) for split in splits], dtype=np.uint8)
    catalog = replace(catalog, videos=replace(catalog.videos, splits=codes))
    check_classes(catalog, shares)
    return OpenedVideos(catalog, config, pack)


def list_videos(config: DataConfig) -> Catalog:
    """Return the catalogue of a folder, list or pack as its lists say. Raises UserError."""
    return list_all(config).catalog


def list_all(config: DataConfig) -> OpenedVideos:
    """Return all videos of a folder, list or pack, as its lists say. Raises UserError."""
    pack = _pack(config)
    return OpenedVideos(pack.catalog if pack else read_catalog(config, as_listed=True), config, pack)


def names_pack(config: DataConfig) -> bool:
    """Return whether the config names a pack. Raises UserError for a URL that is to be read as anything else."""
    remote = "://" in config.path
    if config.format == "auto":
        return remote or (Path(config.path) / INFO).is_file()
    if remote and config.format != "pack":
        raise UserError(f"{config.path} cannot be read as {config.format}: behind a URL there can only be a pack")
    return config.format == "pack"


def _pack(config: DataConfig) -> Pack | None:
    """Return the pack that the config names, None for files."""
    return open_pack(config.path) if names_pack(config) else None
