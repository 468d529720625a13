"""How long a clip takes this machine: a few real steps of search and training on a few of the videos.

The stages' own batches and steps, one after another as the run will make them, so that reading, cropping and
augmentation count as they will.
"""

import math
import statistics
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pvnas.config import RunConfig
from pvnas.data.clips.augment import full_size
from pvnas.data.dataset import VideoDataset
from pvnas.plan.facts import Speed, Speeds, StepSize
from pvnas.runtime.device import is_want_of_memory
from pvnas.runtime.loop import Stage
from pvnas.runtime.progress import Progress
from pvnas.search.stage import SearchStage
from pvnas.space.genotype import random_genotype
from pvnas.training.log import EpochLog
from pvnas.training.stage import TrainStage, derived_network

FRAMES = 3000
"""Of the videos that are decoded for it; a single one may have more."""
SECONDS, SHARE = 4.0, 0.01
"""Of the steps of a stage, and of all the time there is; one is made in any case."""
STEPS = 6
WARM_UP = {"cpu": 1, "cuda": 3}
"""Steps before: of the first one memory is new, and on a GPU the second records what the third replays."""
CONVOLUTIONS = 8
"""Of each cell of the network that is measured: all of its operations. Searches that decide keep few without
parameters: six of JHMDB found 0.59 to 0.85 G multiply-accumulates (width 24, 16×72×72), where random cells have 0.43
in the mean and these have 0.74."""
NO_MEMORY = Speed(math.inf, 0.0)


def few_videos(frames_V: NDArray[np.int64], most: int) -> list[int]:
    """Return which videos, of so many frames, measure well: about the median length, as many as FRAMES allow."""
    nearest = np.argsort(np.abs(frames_V - np.median(frames_V)), kind="stable")[:most]
    few: list[int] = nearest[: max(1, int((np.cumsum(frames_V[nearest]) <= FRAMES).sum()))].tolist()
    return few


def measured(
    speeds: Speeds,
    sizes: Sequence[StepSize],
    config: RunConfig,
    videos: VideoDataset,
    device: torch.device,
    hours: float,
) -> Speeds:
    """Return the speeds with those of the sizes that were unknown; ``videos``: some that the config's clips come from.

    ``hours``: of the whole run, of which this takes little. Where a step asks for more memory than there is, its time
    is infinite.
    """
    decode, clips = speeds.decode, dict(speeds.clips)
    if sizes[0].kept:
        started = time.perf_counter()
        videos.prepare_cache(device)
        frames = sum(len(videos.whole(index).frames_TCHW) for index in range(len(videos)))
        decode = (time.perf_counter() - started) / frames
    config = deepcopy(config)
    config.data.workers = 0
    for part in (config.search, config.train):
        part.augment = full_size(part.augment)  # what smaller clips save is reckoned
    config.search.epochs = config.train.epochs = WARM_UP["cuda"] + STEPS
    for size in sizes:
        if size in clips:
            continue
        try:
            clips[size] = _speed_of(
                _stage(size.stage, config, videos, device), size.clips, min(SECONDS, SHARE * 3600 * hours)
            )
        except (MemoryError, RuntimeError) as error:
            if not is_want_of_memory(error):
                raise
            clips[size] = NO_MEMORY
    return Speeds(clips, decode)


def _stage(name: str, config: RunConfig, videos: VideoDataset, device: torch.device) -> Stage:
    """Return a stage as a run makes it, that of a training with a network as large as those that searches find."""
    log = EpochLog(Path(), Progress(), tensorboard=False)  # which writes at the end of an epoch
    if name == "search":
        return SearchStage(config, videos, videos, Path(), device, log)
    network = derived_network(config, random_genotype(0, CONVOLUTIONS), len(videos.catalog.classes))
    return TrainStage(config, network, videos, videos, device, log)


def _speed_of(stage: Stage, clips: int, seconds: float) -> Speed:
    """Return the median seconds of a clip in the stage's steps, each on the first batch of an epoch of its own."""
    reads, steps = list[float](), list[float]()
    warm_up = WARM_UP[stage.device.type]
    for epoch in range(warm_up + STEPS):
        started = time.perf_counter()
        batch = next(stage.batches(epoch, 0))
        read = time.perf_counter() - started
        stage.step(epoch, 0, batch)
        if stage.device.type == "cuda":
            torch.cuda.synchronize(stage.device)
        if epoch >= warm_up:
            reads.append(read / clips)
            steps.append((time.perf_counter() - started - read) / clips)
        if steps and clips * (sum(reads) + sum(steps)) > seconds:
            break
    return Speed(statistics.median(steps), statistics.median(reads))
