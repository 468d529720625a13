"""What a plan is made from: numbers about the videos and the machine, and how long a clip takes it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pvnas.config import RunConfig
from pvnas.data.clips.network_input import frames_read


@dataclass(frozen=True)
class Facts:
    """The videos that can be used, and the machine."""

    classes: tuple[str, ...]
    train_K: tuple[int, ...]
    """Training videos of each class; likewise those of validation and test."""
    validation_K: tuple[int, ...]
    test_K: tuple[int, ...]
    seconds: tuple[float, float, float]
    """Length of the shortest video, the median one and the longest."""
    short_side: int
    """Shorter side of the median video, in pixels."""
    frames: float
    """Of all videos together."""
    squares: float
    """Frames of all videos, each counted with its longer side over its shorter one: pixels at a side of one pixel."""
    packed: bool = False
    """Whether they lie in a pack, whose frames keep their size."""
    memory: float = 0.0
    """Bytes that decoded videos may take beside the networks."""
    cores: int = 1
    gpu: str = ""
    """Name of the GPU that the networks run on; empty for the CPU."""
    spent: float = 0.0
    """Seconds that have gone by: listing, checking, measuring."""

    @property
    def train(self) -> int:
        return sum(self.train_K)

    @property
    def validation(self) -> int:
        return sum(self.validation_K)

    @property
    def test(self) -> int:
        return sum(self.test_K)

    @property
    def videos(self) -> int:
        return self.train + self.validation + self.test

    def decoded_bytes(self, config: RunConfig) -> float:
        """Return the memory that all videos take as a config reads them."""
        side = self.short_side if self.packed else config.decoded_short_side
        return config.clip.colours * self.squares * side * side

    def are_kept(self, config: RunConfig) -> bool:
        """Return whether the run will keep all videos decoded in memory."""
        if config.data.cache != "auto":
            return config.data.cache != "none"
        room = min(self.memory, config.data.cache_gib * 2**30)
        return self.decoded_bytes(config) <= room


UNKNOWN = Facts(("a", "b"), (64, 64), (0, 0), (0, 0), (1.0, 1.0, 1.0), 240, 0.0, 0.0)
"""Of videos that nothing is known about yet."""


class StepSize(NamedTuple):
    """What a step's time hangs on."""

    stage: str
    """search or train."""
    width: int
    crop: int
    frames: int
    """Of a clip as it is read."""
    clips: int
    """Of a global batch."""
    kept: bool
    """Whether clips come out of memory."""

    @classmethod
    def of(cls, config: RunConfig, stage: str, *, kept: bool) -> "StepSize":
        """Return the size of the steps that a config asks for."""
        part = config.search if stage == "search" else config.train
        return cls(stage, part.width, part.augment.crop, frames_read(config.clip), part.batch.clips, kept)

    @property
    def work(self) -> float:
        """What a clip costs, in no unit: its pixels, by a width of which half the operations grow with the square."""
        return float(self.frames * self.crop**2 * self.width**1.5)


class Speed(NamedTuple):
    """Seconds of one clip: its share of a step, and of what reads, crops and changes it."""

    step: float
    read: float


@dataclass(frozen=True)
class Speeds:
    """What was measured."""

    clips: Mapping[StepSize, Speed] = field(default_factory=dict)
    decode: float = 0.0
    """Seconds of a frame of a video that is decoded to be kept."""

    def of(self, size: StepSize) -> Speed:
        """Return the speed at this size: as measured, or that of the nearest measured one by the work of a clip.

        Narrow networks are slow for their work, so that a guess at a wider one is rather too slow. What had not enough
        memory was measured as infinite, and so is what has more work; of less work, it is worth a try.
        """
        if size in self.clips:
            return self.clips[size]
        alike = {known: speed for known, speed in self.clips.items() if known.stage == size.stage}
        if any(known.work <= size.work for known, speed in alike.items() if speed.step == math.inf):
            return Speed(math.inf, 0.0)
        finite = [known for known, speed in alike.items() if speed.step < math.inf]
        if not finite:
            return Speed(0.0, 0.0)
        # One of the same kind of reading, then the nearest.
        nearest = min(finite, key=lambda known: (known.kept != size.kept, abs(known.work - size.work)))
        speed = alike[nearest]
        pixels = size.frames * size.crop**2 / (nearest.frames * nearest.crop**2)
        return Speed(speed.step * size.work / nearest.work, speed.read * max(1.0, pixels))
