"""The presets: functions that return a full config, each of which says what it changes.

Nothing here imports torch, so that ``pvnas --help`` answers at once.
"""

from collections.abc import Callable
from dataclasses import replace

from pvnas.config import (
    AugmentConfig,
    BatchConfig,
    ClipConfig,
    RunConfig,
    ScheduleConfig,
    SearchConfig,
    TestConfig,
    TrainConfig,
    WeightOptimizerConfig,
)


def pvnas_l() -> RunConfig:
    """PV-NAS-L on Kinetics-400: the paper's search, then K=1 and width 64 (sections 3 to 5 of the paper)."""
    config = RunConfig(preset="pvnas-l")
    config.data.validation_share = 0.0  # the paper trains on every training video
    config.search.batch = BatchConfig(shards=32, clips_per_shard=32)
    config.train.batch = BatchConfig(shards=32, clips_per_shard=8)
    config.train.weights.schedule.warmup_epochs = 36
    return config


def pvnas_search() -> RunConfig:
    """The paper's search on Kinetics-400; the derived network is PV-NAS-L."""
    return replace(pvnas_l(), preset="pvnas-search")


def pvnas_m() -> RunConfig:
    """PV-NAS-M on Kinetics-400: K=2 and width 100."""
    config = replace(pvnas_l(), preset="pvnas-m")
    config.train.width, config.train.repeat = 100, 2
    return config


def ucf101() -> RunConfig:
    """The paper's UCF-101 retraining from scratch (table 3): 128 epochs, drop-path 0.1, crops of 112 pixels (D)."""
    config = replace(pvnas_l(), preset="ucf101")
    config.train.epochs = 128
    config.train.weights.schedule.warmup_epochs = 16
    config.train.drop_path = 0.1
    config.train.augment = AugmentConfig(short_side_min=128, short_side_max=256, crop=112)
    config.test.short_side = config.test.crop = 128
    return config


def laptop() -> RunConfig:
    """Few videos, learnt from scratch by how things move: what `pvnas run DATA --hours H` begins with.

    The sizes are those that it chooses for an hour of JHMDB (690 short videos to learn from) on two CPU cores.
    """
    config = _on_a_cpu("laptop")
    # Twice the paper's frames, which the stem halves: what a body does in a tenth of a second tells actions apart.
    config.stem = "stride4-time2"
    config.clip = ClipConfig(input="flow", frames=16, sampling="whole", window=64, short_videos="fit")
    config.train.weights.weight_decay, config.train.weights.decay_on = 2e-3, "kernels"
    config.train.dropout, config.train.ema, config.train.final_on = 0.5, 0.99, "train+validation"
    config.train.width, config.train.epochs, config.train.weights.schedule.warmup_epochs = 16, 192, 7
    for part in (config.search, config.train):
        # Crops of 0.7 to 1 of the height: smaller ones leave out whoever acts too often.
        part.augment = AugmentConfig(short_side_min=72, short_side_max=103, crop=72)
        part.augment.aspect, part.augment.rotate, part.augment.window_min = 1.25, 10.0, 0.7
    config.train.augment.first_crop, config.train.augment.first_frames = 40, 8
    config.test = TestConfig(temporal_views=4, spatial_views=3, short_side=80, crop=72, flip="auto")
    return config


def demo() -> RunConfig:
    """The generated `shapes` videos on two CPU cores in about five minutes; flips would swap its classes."""
    config = _on_a_cpu("demo")
    config.clip = ClipConfig(window=32, short_videos="fit")
    for part in (config.search, config.train):
        part.augment = AugmentConfig(short_side_min=56, short_side_max=60, crop=56, flip="false")
    config.search.epochs, config.search.width = 3, 8
    config.search.weights.schedule.step_epochs = 1.5
    config.train.epochs, config.train.width = 14, 16
    config.train.dropout, config.train.label_smoothing = 0.1, 0.0
    config.test = TestConfig(temporal_views=2, spatial_views=1, short_side=56, crop=56)
    return config


def _on_a_cpu(preset: str) -> RunConfig:
    """Return what presets for a CPU have in common: small networks, small batches, few steps."""
    config = RunConfig(preset=preset)
    config.search = SearchConfig(epochs=10, width=12, batch=BatchConfig(clips_per_shard=16))
    # A few hundred steps, where the paper makes 17,600: alpha takes larger ones, and the drops come sooner.
    config.search.alphas.lr = 0.01
    config.search.weights.schedule.step_epochs = 4
    config.train = TrainConfig(epochs=50, width=24, batch=BatchConfig(clips_per_shard=16))
    schedule = ScheduleConfig(kind="cosine", warmup_epochs=2)
    config.train.weights = WeightOptimizerConfig(weight_decay=5e-4, schedule=schedule)
    config.train.label_smoothing = 0.1
    return config


def tiny() -> RunConfig:
    """A first try of a folder or a command, in a minute or two: the networks learn next to nothing."""
    config = replace(demo(), preset="tiny", stem="stride2", threads=1)  # layers this small lose by sharing their work
    for part in (config.search, config.train):
        part.epochs, part.width = 2, 4
        part.batch = BatchConfig(shards=2, clips_per_shard=2)
        part.augment = AugmentConfig(short_side_min=24, short_side_max=28, crop=24, flip="false")
    config.clip.frames = 4
    config.test = TestConfig(temporal_views=2, spatial_views=1, short_side=24, crop=24)
    return config


PRESETS: dict[str, Callable[[], RunConfig]] = {
    make.__name__.replace("_", "-"): make for make in (tiny, demo, laptop, pvnas_search, pvnas_l, pvnas_m, ucf101)
}
