"""A training clip before its batch is cropped: which frames, which box of them, and what is done to their pixels.

Everything random hangs on (seed, stream, epoch, step, position in the batch). The numbers of the crop and of the frames
come from one generator, those of all other augmentation from others, so that nothing changes where it is off.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pvnas.config import ClipConfig, RunConfig, SearchConfig, TrainConfig
from pvnas.data.clips.appearance import Colours, Still, drawn_colours
from pvnas.data.clips.augment import NEVER, CropBox, crop_of_epoch, flipped_labels, frames_of_epoch, random_crop_box
from pvnas.data.clips.chances import Chances
from pvnas.data.clips.rand_augment import Operation, drawn_operations
from pvnas.data.clips.sampling import draws, training_indices
from pvnas.data.dataset import VideoDataset
from pvnas.runtime.random import key

Key = tuple[int, int, int]  # step, position in the batch, video
STILL_SHARE = 0.5  # of the clips that have a still frame mixed in, where any have


class UncroppedClip(NamedTuple):
    frames_TCHW: Tensor
    box: CropBox
    label: int
    path: str
    colours: Colours | None = None
    still: Still | None = None
    operations: tuple[tuple[Operation, float], ...] = ()
    keeps_rgb: bool = True


@dataclass(frozen=True)
class TrainingClips:
    """The random clips of an epoch, the same whoever asks for one and when."""

    videos: VideoDataset
    config: RunConfig
    stage: SearchConfig | TrainConfig
    epoch: int
    stream: str = "train"

    @property
    def side(self) -> int:
        """Of this epoch's crops, in pixels."""
        return crop_of_epoch(self.stage.augment, self.epoch, self.stage.epochs)

    @cached_property
    def clip(self) -> ClipConfig:
        """How this epoch's clips are made."""
        config = self.config.clip
        frames = frames_of_epoch(self.stage.augment, config.frames, self.epoch, self.stage.epochs)
        return replace(config, frames=frames)

    @cached_property
    def _labels(self) -> tuple[int, ...]:
        """Of the mirrored clips of each class."""
        return flipped_labels(self.videos.catalog.classes, self.stage.augment.flip)

    def seed(self, purpose: str, step: int, position: int) -> int:
        """Return the seed of what is drawn for one purpose in one place of a step."""
        return key(self.config.seed, self.stream, purpose, self.epoch, step, position)

    def generator(self, purpose: str, step: int, position: int) -> torch.Generator:
        """Return the generator of what is drawn for one purpose in one place of a step."""
        return torch.Generator().manual_seed(self.seed(purpose, step, position))

    def __call__(self, clip_key: Key) -> UncroppedClip:
        """Return the clip of (step, position in the batch, video). Raises UserError for a video that cannot be read."""
        step, position, index = clip_key
        clip, augment = self.clip, self.stage.augment
        draw = self.generator("clip", step, position)
        chances = Chances.drawn(self.generator("augment", step, position))
        u = [float(torch.rand((), generator=draw, dtype=torch.float64)) for _ in range(draws(clip))]
        length = augment.window_min + chances.window * (augment.window_max - augment.window_min)
        frames_TCHW = self.videos.frames(
            index,
            lambda times_T, duration: training_indices(times_T, duration, clip, u, length, chances.window_start),
        )
        box = self._box(index, frames_TCHW, draw, chances)
        video = self.videos.catalog.videos[index]
        return UncroppedClip(
            frames_TCHW,
            box,
            self._labels[video.label] if box.flip else video.label,
            video.name,
            drawn_colours(augment, chances),
            self._still(clip_key, chances),
            self._operations(step, position),
            chances.drop_rgb >= augment.drop_rgb,
        )

    def _box(self, index: int, frames_TCHW: Tensor, draw: torch.Generator, chances: Chances) -> CropBox:
        height, width = frames_TCHW.shape[2:]
        may_flip = self._labels[self.videos.catalog.videos[index].label] != NEVER
        return random_crop_box(height, width, self.stage.augment, draw, may_flip=may_flip, chances=chances)

    def _operations(self, step: int, position: int) -> tuple[tuple[Operation, float], ...]:
        n, magnitude = self.stage.augment.operations, self.stage.augment.magnitude
        return tuple(drawn_operations(n, magnitude, self.generator("operations", step, position))) if n else ()

    def _still(self, clip_key: Key, chances: Chances) -> Still | None:
        """Return a frame of another video for half of the clips, with a box of its own; None without another one."""
        step, position, index = clip_key
        most, n = self.stage.augment.static, len(self.videos)
        if most == 0.0 or chances.static >= STILL_SHARE or n < 2:
            return None
        other = (index + 1 + int(chances.static_video * (n - 1))) % n
        frame_1CHW = self.videos.frames(
            other, lambda times_T, _: np.array([int(chances.static_frame * len(times_T))], dtype=np.int64)
        )
        draw = self.generator("static", step, position)
        box = self._box(other, frame_1CHW, draw, Chances.drawn(draw))
        return Still(frame_1CHW, box, most * (1.0 - chances.static_share))
