"""What `pvnas bench search` measures: one search step as the search makes it, beside the plain supernet's."""

from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pvnas.bench.roofline import Work, answer, compare, count_bytes, count_macs, measure_variants, measure_work
from pvnas.config import BatchConfig, RunConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.clips.loader import Batch
from pvnas.data.clips.network_input import network_input
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.fast.kernels.choice import by_pytorch
from pvnas.runtime.device import describe_machine, keep_freed_memory
from pvnas.runtime.progress import Progress
from pvnas.runtime.spinning import adapt_spinning
from pvnas.search.stage import SearchStage
from pvnas.search.step import StepBatches
from pvnas.space.genotype import is_reduction
from pvnas.space.layout import parse_layout
from pvnas.space.stem import side_after_stem
from pvnas.training.log import EpochLog

# In multiply-accumulates, as the algorithm asks for them: forward twice, the gradient of the inputs twice, that of the
# weights once. What the half-steps share counts twice.
FORWARDS_OF_A_STEP = 5
SUPERNETS = ("fast", "plain")
POOLED = 3
"""Pixels that PyTorch's pooling wants on each side, whatever the padding."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One setting of the benchmark."""

    width: int = 16
    batch: int = 4
    """Clips of a step, in one shard."""
    frames: int = 8
    height: int = 64
    side: int = 64
    """Width of a frame, in pixels."""
    classes: int = 20
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    checkpointing: bool = False
    """Whether the fast supernet keeps each cell's output alone."""


def bench_search(shape: Shape, *, steps: int, rounds: int, plain: bool = True) -> dict[str, Any]:
    """Return seconds, clips/s, peak memory, MACs, bytes and the share of the roofline of a search step.

    Raises UserError where a supernet does not get through, for want of memory most likely.
    """
    side = side_after_stem(RunConfig().stem, min(shape.height, shape.side))
    for _ in filter(is_reduction, parse_layout(RunConfig().search.layout)):
        side = (side + 1) // 2
    if plain and side < POOLED:
        raise UserError(
            f"frames of {shape.height}x{shape.side} leave {side}x{side} pixels after the reductions, too few for the "
            "pooling of the plain supernet; give at least 33x33 with --clip, or leave it out: --no-plain"
        )
    settings = {"shape": asdict(shape), "steps": steps}
    supernets = SUPERNETS if plain else SUPERNETS[:1]
    measured = measure_variants("pvnas.bench.search", supernets, settings, clips=shape.batch, rounds=rounds)
    result = settings | {"rounds": rounds, **measured}
    if plain:
        result |= compare(measured["fast"], measured["plain"])
    return result | {"machine": describe_machine()}


def make_stage(shape: Shape, *, plain: bool) -> SearchStage:
    """Return the search's own stage, on videos that are never read."""
    config = RunConfig()
    config.precision, config.search.width = shape.precision, shape.width  # type: ignore[assignment]
    config.search.checkpointing = shape.checkpointing
    config.search.batch = BatchConfig(shards=1, clips_per_shard=shape.batch)
    classes = [f"class {n}" for n in range(shape.classes)]
    videos = [Video(f"{n}.mp4", n % shape.classes, "train") for n in range(shape.batch)]
    dataset = VideoDataset(Catalog.of(Path("."), classes, videos), config.data, shape.height)
    log = EpochLog(Path("."), Progress(), tensorboard=False)
    return SearchStage(config, dataset, dataset, Path("."), torch.device(shape.device), log, plain=plain)


def make_batch(shape: Shape) -> StepBatches:
    """Return a batch of random clips, as the loader would give it."""
    draw = torch.Generator().manual_seed(0)
    size = (shape.batch, shape.frames, shape.height, shape.side, 3)
    clips_NCTHW = torch.randint(0, 256, size, dtype=torch.uint8, generator=draw).permute(0, 4, 1, 2, 3)
    batch = Batch(clips_NCTHW, torch.arange(shape.batch) % shape.classes, ("",) * shape.batch)
    if shape.device == "cuda":
        batch = batch.pin_memory()
    return StepBatches(batch, batch)


def measure(variant: str, shape: dict[str, Any], steps: int, count: bool) -> dict[str, Any]:
    """Measure one supernet in this process."""
    setting = Shape(**shape)
    torch.set_num_threads(setting.threads)
    if variant != "plain":  # which is PyTorch as it comes
        keep_freed_memory()
        adapt_spinning()
    device = torch.device(setting.device)
    stage, batch = make_stage(setting, plain=variant == "plain"), make_batch(setting)

    def step() -> None:
        stage.step(0, 0, batch)

    def work() -> Work:
        # Without kernels of our own, whose arithmetic PyTorch does not count; of one clip.
        network, clip_NCTHW = (
            deepcopy(stage.network),
            network_input(batch.weight.clips_NCTHW[:1].to(device), stage.config.clip),
        )
        with by_pytorch():
            macs = FORWARDS_OF_A_STEP * setting.batch * count_macs(lambda: network(clip_NCTHW))
        stage.graphs = None  # of a recorded step nothing is seen
        return Work(macs, count_bytes(step))

    return measure_work(step, work if count else None, device, setting.precision, repeats=steps)


if __name__ == "__main__":
    answer(measure)
