"""The choice of a config for videos, a machine and a number of hours: a function of numbers, which reads nothing.

(But for a budget of milliseconds: then it measures a network of each size, once.)

Learning needs a number of steps, not of epochs: few videos get more epochs than many. With more time come first enough
steps at a small width, then more width and pixels. The recipe stands in ``presets.laptop``, all else that a plan rests
on in the values below.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pvnas.config import LOCATION_FIELDS, AugmentConfig, RunConfig
from pvnas.data.clips.augment import CROP_STEP, crop_of_epoch, frames_of_epoch
from pvnas.data.clips.loader import steps_per_epoch
from pvnas.data.clips.mirrored_views import views_of_a_video
from pvnas.deploy.latency import ProcessClock
from pvnas.errors import UserError
from pvnas.plan.facts import Facts, Speed, Speeds, StepSize
from pvnas.preflight import check_budget, check_latency, timed
from pvnas.presets import laptop
from pvnas.search.latency import AIM as AIM_OF_FIT
from pvnas.search.latency import Timing
from pvnas.settings import all_fields, check_config, differences, get_field, plain, set_field
from pvnas.space.genotype import Genotype

AIM = 0.9
"""Share of the hours that a plan fills."""
LENIENT_SECONDS = 120.0
"""By so much the least that can be run may take longer than was asked for: it is said, and run."""
FIXED_SECONDS = 20.0  # start of the program, report
EPOCH_SECONDS = 0.15  # its checkpoint and curves
FORWARD = 0.35
"""Of a training step's time that a clip takes which the network only looks at, in validation and test."""
SHARE_OF_ANY_CLIP = 0.3
"""Of a step's time that clips take however small they are: of 72 pixels and 16 frames took those of 40 pixels 0.56, of
56 pixels 0.64, of 48 pixels and 8 frames 0.38, on two threads."""
SEARCH_SHARE, SEARCH_STEPS = 0.2, 350
"""The search takes so many steps, and no larger share of the time."""
MOST_EPOCHS = 400
FEWEST_EPOCHS = 10
"""Before a network larger than the one measured first is taken."""
VALIDATIONS = 50
TEST_SHARE = 0.1
"""Of the time; views of the test are left out where it would take more."""
CLIPS = (16, 8, 4)
"""Of a batch: the largest number that leaves STEPS_OF_EPOCH steps in an epoch, else the last."""
STEPS_OF_EPOCH = 4
LONG_SECONDS = 10.0
"""Videos longer than this are seen in windows, shorter ones as a whole."""
FILM_SECONDS = 60.0
"""Of videos longer than this a run sees so little that decoding all of them would take longer than seeking in them."""
CROP_OF_SIDE = 0.8
"""Largest crop, as a share of the videos' shorter side: a larger one shows no more."""


class Size(NamedTuple):
    """Sizes of networks and clips, and how many steps of training there must be time for before they are chosen."""

    width: int
    crop: int
    search_width: int
    steps: int


SIZES = (
    Size(8, 48, 8, 0),
    Size(12, 56, 8, 600),
    Size(16, 72, 12, 1200),
    Size(24, 72, 12, 8000),
    Size(24, 96, 12, 10_000),
    Size(32, 96, 16, 12_000),
    Size(32, 112, 16, 14_000),
    Size(48, 112, 16, 16_000),
    Size(64, 128, 24, 20_000),
)
"""JHMDB had no more of width 24 than of 16 after 3,016 steps of 72 pixels (54.3 % on a fold, in 1.6 times the time)."""
MEASURED_FIRST = 2

Wishes = Mapping[str, object]
"""Fields of the config by dotted name that a person has set: they stay, and the rest is planned around them."""


@dataclass(frozen=True)
class Plan:
    """A config, and the seconds that its parts will take."""

    config: RunConfig
    search: float
    train: float
    test: float
    rest: float
    """Reading and checking videos, measuring, and what goes before and after."""
    search_steps: int
    train_steps: int
    sizes: tuple[StepSize, StepSize]
    """Of the steps of search and training."""

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.search + self.train + self.test + self.rest


# ---- the choice


def choose(facts: Facts, speeds: Speeds, hours: float, wishes: Wishes) -> Plan:
    """Return the plan that fills so many hours best, for the speeds that are known so far.

    Raises UserError, with the least hours, where not even one epoch of each stage fits by far.
    """
    there = AIM * 3600 * hours
    sizes = _within_budget(sizes_for(facts), facts, wishes)
    plans = [fitted(sized_config(facts, size, wishes), facts, speeds, there, wishes) for size in sizes]
    fitting = [
        (plan, plan.train_steps >= _needed_steps(size, plan.config, facts, wishes))
        for size, plan in zip(sizes, plans, strict=True)
        if plan.seconds <= there
    ]
    if enough := [plan for plan, has_enough in fitting if has_enough]:
        return enough[-1]
    if fitting:  # as many steps as there is time for, in the smallest network
        return fitting[0][0]
    least = min(plans, key=lambda plan: plan.seconds)
    if least.seconds <= 3600 * hours + LENIENT_SECONDS:
        return least
    raise UserError(_too_little(least, hours))


def sizes_for(facts: Facts) -> list[Size]:
    """Return the sizes that these videos have the pixels for, at least the first ones."""
    return [size for n, size in enumerate(SIZES) if n <= MEASURED_FIRST or size.crop <= CROP_OF_SIDE * facts.short_side]


def _within_budget(sizes: Sequence[Size], facts: Facts, wishes: Wishes) -> list[Size]:
    """Return the sizes of which a network keeps the budget. Raises UserError where none does."""

    def keeps(size: Size) -> bool:
        try:
            check(sized_config(facts, size, wishes))
        except UserError:
            return False
        return True

    def check(config: RunConfig) -> None:
        check_budget(config, len(facts.classes))
        check_latency(config, len(facts.classes), share=AIM_OF_FIT, measure=timed_once)

    kept = [size for size in sizes if keeps(size)]
    if not kept:
        check(sized_config(facts, sizes[0], wishes))
    return kept


_TIMINGS: dict[tuple[str, Genotype], Timing] = {}


def timed_once(clock: ProcessClock, genotype: Genotype) -> Timing:
    """Return how long a network takes; a plan asks for it again and again."""
    key = repr(clock.use), genotype
    if key not in _TIMINGS:
        _TIMINGS[key] = timed(clock, genotype)
    return _TIMINGS[key]


def forget_timings() -> None:
    """Let the next plan measure anew: the machine may be another one by then."""
    _TIMINGS.clear()


def _needed_steps(size: Size, config: RunConfig, facts: Facts, wishes: Wishes) -> int:
    """Return the steps that there must be time for before a size is chosen: never more than the most epochs have."""
    if "train.epochs" in wishes:
        return 0
    per_epoch = steps_per_epoch(videos_trained_on(config, facts), config.train.batch)
    needed = max(size.steps, FEWEST_EPOCHS * per_epoch) if size in SIZES[MEASURED_FIRST + 1 :] else size.steps
    return min(needed, MOST_EPOCHS * per_epoch)


def _too_little(plan: Plan, hours: float) -> str:
    if not math.isfinite(plan.seconds):
        return "not even the smallest network's step has enough memory here; give it more, or another --device"
    least = plan.seconds / 3600 / AIM
    digits = 1 - math.floor(math.log10(least))
    least = math.ceil(least * 10**digits) / 10**digits
    return (
        f"{hours:g} hours are too few: the least for these videos here is about --hours {least:g} "
        f"(reading {plan.rest:.0f} s, one epoch of search {plan.search:.0f} s and of training {plan.train:.0f} s, "
        f"test {plan.test:.0f} s), in which little is learnt"
    )


# ---- a config


def sized_config(facts: Facts, size: Size, wishes: Wishes) -> RunConfig:
    """Return the config of a size for these videos, all but its epochs. Raises UserError for wishes that cannot be."""
    config = laptop()
    for name, value in wishes.items():
        set_field(config, name, value)
    choices: dict[str, object] = {"train.width": size.width, "search.width": size.search_width}
    if facts.seconds[1] > LONG_SECONDS:
        choices |= {"clip.sampling": "dense", "test.temporal_views": 8}
    if facts.seconds[1] > FILM_SECONDS:
        choices["data.cache"] = "none"
    for stage, videos in (("search", facts.train), ("train", videos_trained_on(config, facts))):
        choices[f"{stage}.batch.clips_per_shard"] = clips_of_batch(videos)
    _put(config, choices, wishes)
    _put(config, _pixels(size.crop, config, wishes), wishes)
    needed = 1.1 * facts.decoded_bytes(config)
    if config.data.cache == "auto" and needed <= facts.memory:
        _put(config, {"data.cache_gib": max(config.data.cache_gib, float(math.ceil(needed / 2**30)))}, wishes)
    if not facts.are_kept(config) and facts.cores >= 4:
        _put(config, {"data.workers": min(8, facts.cores // 2)}, wishes)
    check_config(config)
    return config


def _put(config: RunConfig, choices: Mapping[str, object], wishes: Wishes) -> None:
    """Set fields, but none that a person has set."""
    for name, value in choices.items():
        if name not in wishes:
            set_field(config, name, value)


def _pixels(crop: int, config: RunConfig, wishes: Wishes) -> dict[str, int]:
    """Return crops and short sides in the proportions of ``presets.laptop``; a crop that is set sets the others."""
    parts = {name: f"{name}.augment." for name in ("train", "search")} | {"test": "test."}
    given = [get_field(config, f"{prefix}crop") for prefix in parts.values() if f"{prefix}crop" in wishes]
    base, choices = laptop(), dict[str, int]()
    for prefix in parts.values():
        own = get_field(config, f"{prefix}crop") if f"{prefix}crop" in wishes else (given or [crop])[0]
        choices[f"{prefix}crop"] = own
        for side in ("short_side_min", "short_side_max") if "augment" in prefix else ("short_side",):
            share = get_field(base, prefix + side) / get_field(base, f"{prefix}crop")
            choices[prefix + side] = max(own, round(own * share))
    largest = choices["train.augment.crop"]
    growth = largest * (1 - base.train.augment.first_crop / base.train.augment.crop)
    choices["train.augment.first_crop"] = largest - round(growth / CROP_STEP) * CROP_STEP
    return choices


def clips_of_batch(videos: int) -> int:
    """Return the clips of a batch for so many training videos."""
    return next((clips for clips in CLIPS if videos >= STEPS_OF_EPOCH * clips), CLIPS[-1])


def videos_trained_on(config: RunConfig, facts: Facts) -> int:
    """Return the videos that the final training sees."""
    return facts.train + (facts.validation if config.train.final_on == "train+validation" else 0)


# ---- its time


def fitted(config: RunConfig, facts: Facts, speeds: Speeds, there: float, wishes: Wishes) -> Plan:
    """Return the plan of a config with the epochs and views for which ``there`` seconds are enough, one at least."""
    kept = facts.are_kept(config)
    sizes = StepSize.of(config, "search", kept=kept), StepSize.of(config, "train", kept=kept)
    searching, training = (speeds.of(size) for size in sizes)
    rest = FIXED_SECONDS + facts.spent + (facts.frames * speeds.decode if kept else 0.0)
    test = _fit_test(config, facts, training, there, wishes)
    left = max(0.0, there - rest - test)

    per_epoch = steps_per_epoch(facts.train, config.search.batch)
    epoch = EPOCH_SECONDS + per_epoch * config.search.batch.clips * _seconds(
        searching, config, _share_of_work(config.search.augment, config.clip.frames)
    )
    epoch += facts.validation * _seconds(searching, config, FORWARD) * config.search.validate
    epochs = min(math.ceil(SEARCH_STEPS / per_epoch), int(SEARCH_SHARE * left / epoch), MOST_EPOCHS)
    _put(config, {"search.epochs": max(1, epochs)}, wishes)
    search, search_steps = config.search.epochs * epoch, config.search.epochs * per_epoch

    per_epoch = steps_per_epoch(videos_trained_on(config, facts), config.train.batch)
    epoch = EPOCH_SECONDS + per_epoch * config.train.batch.clips * _seconds(
        training, config, _share_of_work(config.train.augment, config.clip.frames)
    )
    if config.train.final_on == "train":  # else nothing is left to validate it on
        _put(config, {"train.validate_every": max(1, min(MOST_EPOCHS, int(left / epoch)) // VALIDATIONS)}, wishes)
        epoch += facts.validation * _seconds(training, config, FORWARD) / config.train.validate_every
    epochs = min(int(max(0.0, left - search) / epoch), MOST_EPOCHS)
    _put(config, {"train.epochs": max(1, epochs)}, wishes)
    _put(config, _schedules(config), wishes)
    train, train_steps = config.train.epochs * epoch, config.train.epochs * per_epoch
    return Plan(config, search, train, test, rest, search_steps, train_steps, sizes)


def _share_of_work(augment: AugmentConfig, frames: int) -> float:
    """Return what a clip costs in the mean over the epochs, in which it may grow, as a share of a whole one's."""
    pixels = [
        (crop_of_epoch(augment, epoch, MOST_EPOCHS) / augment.crop) ** 2
        * frames_of_epoch(augment, frames, epoch, MOST_EPOCHS)
        / frames
        for epoch in range(MOST_EPOCHS)
    ]
    return SHARE_OF_ANY_CLIP + (1 - SHARE_OF_ANY_CLIP) * sum(pixels) / len(pixels)


def _seconds(speed: Speed, config: RunConfig, share_of_step: float = 1.0) -> float:
    """Return the seconds of a clip: processes of their own read beside the network."""
    step = share_of_step * speed.step
    return max(step, speed.read / config.data.workers) if config.data.workers else step + speed.read


def _fit_test(config: RunConfig, facts: Facts, speed: Speed, there: float, wishes: Wishes) -> float:
    """Return the seconds of the test, with views left out of the config while it takes too large a share."""
    test = config.test

    def seconds() -> float:
        views = views_of_a_video(test, facts.classes)
        return facts.test * (views * FORWARD * speed.step + test.temporal_views * speed.read)

    for fewer in ({"test.flip": "false"}, {"test.spatial_views": 1}, {"test.temporal_views": 1}):
        if seconds() > TEST_SHARE * there:
            _put(config, fewer, wishes)
    return seconds()


def _schedules(config: RunConfig) -> dict[str, object]:
    """Return what counts in epochs, in the proportions of ``presets.laptop``."""
    base = laptop()
    drops = base.search.weights.schedule.step_epochs / base.search.epochs
    warmup = base.train.weights.schedule.warmup_epochs / base.train.epochs
    return {
        "search.weights.schedule.step_epochs": round(drops * config.search.epochs, 2),
        "train.weights.schedule.warmup_epochs": round(warmup * config.train.epochs, 2),
    }


# ---- the command


def repeating_command(config: RunConfig, data: str) -> str:
    """Return the command that repeats a plan exactly, its own machine and videos provided."""
    here = {name for name in LOCATION_FIELDS if name != "data.path" and get_field(config, name)}
    changed = differences(laptop(), config).keys()
    names = [name for name in all_fields() if name in changed and (name not in LOCATION_FIELDS or name in here)]
    options = [word for name in names for word in (f"--{name}", plain(get_field(config, name)))]
    return shlex.join(["pvnas", "run", data, "--preset", "laptop", *options])
