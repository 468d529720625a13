"""What is said of a plan before it is run: what was chosen and why, and what can and cannot be expected of it."""

import math
from collections.abc import Iterator, Sequence

from pvnas.config import LOCATION_FIELDS, RunConfig
from pvnas.data.clips.augment import smallest_size
from pvnas.plan.choose import (
    AIM,
    MEASURED_FIRST,
    MOST_EPOCHS,
    SIZES,
    Plan,
    Wishes,
    fitted,
    sized_config,
    sizes_for,
    videos_trained_on,
)
from pvnas.plan.facts import Facts, Speeds
from pvnas.runtime.memory import shown_bytes
from pvnas.settings import get_field, plain
from pvnas.training.intervals import wilson

FEW_OF_CLASS = 30
"""Training videos of a class below which a network from scratch mostly learns them by heart."""
SHORT_TRAINING = 300
"""Steps of training below which next to nothing is learnt."""
SHORT_SEARCH = 100
"""Steps of search below which chance decides."""
NAMES_SHOWN = 3


def reasons(plan: Plan, facts: Facts, speeds: Speeds, hours: float, wishes: Wishes) -> Iterator[str]:
    """Yield what was chosen and why, a line each."""
    config = plan.config
    machine = f"{facts.cores} core{'s' * (facts.cores > 1)}" + (f", {facts.gpu}" if facts.gpu else "")
    yield (
        f"plan for {spoken(3600 * hours)}: {facts.videos} videos of {len(facts.classes)} classes ({facts.train} for "
        f"training, {facts.validation} for validation, {facts.test} for the test); {machine}"
    )
    yield f"clips: {_clips(config, facts)}"
    search, train = (speeds.of(size) for size in plan.sizes)
    rates = [1 / (speed.step + speed.read) for speed in (search, train)]
    yield (
        f"measured: {rates[0]:.3g} clips/s of the search (width {config.search.width}, {config.search.augment.crop} "
        f"pixels), {rates[1]:.3g} of the training (width {config.train.width}, {config.train.augment.crop} pixels), "
        f"batches of {config.search.batch.clips} and {config.train.batch.clips}"
    )
    yield (
        f"time: search {_epochs(config.search.epochs, plan.search_steps)}, {spoken(plan.search)}; training "
        f"{_epochs(config.train.epochs, plan.train_steps)}, {spoken(plan.train)}; test {spoken(plan.test)}; reading "
        f"and the rest {spoken(plan.rest)}: about {spoken(plan.seconds)} in all"
    )
    yield f"why: {_why(plan, facts, wishes)}"
    if set_by_hand := [name for name in wishes if name not in LOCATION_FIELDS]:
        yield "as you set: " + ", ".join(f"{name} {plain(get_field(config, name))}" for name in set_by_hand)


def _epochs(epochs: int, steps: int) -> str:
    return f"{epochs} epoch{'s' * (epochs > 1)} ({_steps(steps)})"


def _steps(steps: int) -> str:
    return f"{steps} step{'s' * (steps > 1)}"


def _clips(config: RunConfig, facts: Facts) -> str:
    """Return how clips come out of the videos, and from where."""
    low, median, high = facts.seconds
    how = {
        "whole": f"{config.clip.frames} frames from the first to the last",
        "segment": f"a frame out of each of {config.clip.frames} parts",
        "dense": f"{config.clip.frames} frames out of a window of {config.clip.window / config.clip.window_rate:.1f} s",
    }[config.clip.sampling]
    size = shown_bytes(facts.decoded_bytes(config))
    place = f"kept in memory ({size})" if facts.are_kept(config) else f"read from the disk (decoded they take {size})"
    return (
        f"{how} of videos of {low:.3g} to {high:.3g} s (median {median:.3g} s, shorter side {facts.short_side} "
        f"pixels), {place}; seen as {config.clip.input}{_growth(config)}"
    )


def _growth(config: RunConfig) -> str:
    """Return from what size the training's clips grow."""
    augment, frames = config.train.augment, config.clip.frames
    crop, few = smallest_size(augment, frames)
    grows = [
        f"from {first} to {last} {what}"
        for first, last, what in ((crop, augment.crop, "pixels"), (few, frames, "frames"))
        if first < last
    ]
    return f"; in training they grow {' and '.join(grows)}" if grows else ""


def _why(plan: Plan, facts: Facts, wishes: Wishes) -> str:
    """Return why the sizes and epochs are these."""
    config = plan.config
    if "train.epochs" in wishes:
        return "as many epochs as you set, in the largest network that has the time for them"
    if config.train.epochs >= MOST_EPOCHS:
        return f"{MOST_EPOCHS} epochs are the most that these videos are shown: more would be learning by heart"
    width, crop = config.train.width, config.train.augment.crop
    size = next((size for size in sizes_for(facts) if (size.width, size.crop) == (width, crop)), None)
    if size is None:
        return "as many steps as there is time for, around what you set"
    if not size.steps:
        return "the smallest network, so that it makes as many steps as there is time for"
    return (
        "as many steps as there is time for, in the largest network and clips for which they are enough "
        f"(at least {min(size.steps, plan.train_steps)})"
    )


def expectations(plan: Plan, facts: Facts, speeds: Speeds, hours: float, wishes: Wishes) -> Iterator[str]:
    """Yield what can and cannot be expected of the run, a line each: of few videos, little time, small tests."""
    yield from _of_time(plan, facts, speeds, hours, wishes)
    yield from _of_classes(plan.config, facts)
    yield from _of_test(plan.config, facts)


def _of_time(plan: Plan, facts: Facts, speeds: Speeds, hours: float, wishes: Wishes) -> Iterator[str]:
    if plan.seconds > 3600 * hours:
        yield (
            f"expect: about {spoken(plan.seconds)}, longer than {spoken(3600 * hours)}: an epoch of each stage is the "
            "least that can be run"
        )
    if "search.epochs" not in wishes and plan.search_steps < SHORT_SEARCH:
        yield f"expect: cells hardly better than drawn ones: {_steps(plan.search_steps)} of search cannot tell much"
    if "train.epochs" in wishes or plan.train_steps >= SIZES[MEASURED_FIRST].steps:
        return
    if plan.config.train.epochs >= MOST_EPOCHS:
        return
    more = enough_hours(facts, speeds, wishes)
    better = f"; {SIZES[MEASURED_FIRST].steps} steps or {MOST_EPOCHS} epochs take about --hours {more:.2g} here"
    if plan.train_steps < SHORT_TRAINING:
        yield (
            f"expect: next to nothing: {_steps(plan.train_steps)} of training cannot teach anything; this only shows "
            f"that everything runs{better}"
        )
    else:
        yield f"expect: an early result: with more than {plan.train_steps} steps of training it would be better{better}"


def enough_hours(facts: Facts, speeds: Speeds, wishes: Wishes) -> float:
    """Return the hours in which the size that is measured first makes its steps."""
    size = SIZES[MEASURED_FIRST]
    one = fitted(sized_config(facts, size, wishes), facts, speeds, 0.0, wishes)
    per_epoch = max(1, one.train_steps // one.config.train.epochs)
    epochs = min(MOST_EPOCHS, math.ceil(size.steps / per_epoch))
    train = one.train / one.config.train.epochs * epochs
    search = train / 4  # a fifth of both
    return (train + search + one.rest + one.test) / 3600 / AIM


def _of_classes(config: RunConfig, facts: Facts) -> Iterator[str]:
    known_K = facts.train_K
    if config.train.final_on == "train+validation":
        known_K = tuple(a + b for a, b in zip(facts.train_K, facts.validation_K, strict=True))
    single = [name for name, n in zip(facts.classes, known_K, strict=True) if n == 1]
    if single:
        has = "has a single training video" if len(single) == 1 else "have a single training video each"
        yield f"expect: {_names(single)} {has}: that video is learnt, not what its class has in common"
    a_class = videos_trained_on(config, facts) / len(facts.classes)
    if a_class < FEW_OF_CLASS:
        chance = max(known_K) / sum(known_K)
        yield (
            f"expect: {a_class:.3g} training videos a class, where a network that starts from nothing needs hundreds: "
            "it will know most of them by heart, and on new videos be somewhere between "
            f"guessing ({100 * chance:.0f} %, always the largest class) and what their motion alone gives away"
        )


def _of_test(config: RunConfig, facts: Facts) -> Iterator[str]:
    """Yield how wide the 95 % intervals of accuracies from so few videos are."""
    lacking = {
        "test": "nothing will say how good the network is",
        "validation": "no curve will show from when on the network learns by heart",
    }
    numbers = {"test": facts.test} | ({"validation": facts.validation} if config.train.final_on == "train" else {})
    for what, n in numbers.items():
        half = round(n / 2)
        low, high = wilson(half, n) if n else (0.0, 0.0)
        if not n:
            yield f"expect: no {what} videos: {lacking[what]}"
        elif high - low > 0.1:
            yield (
                f"expect: {half} right of {n} {what} video{'s' * (n > 1)} will be {100 * half / n:.0f} %, and may mean "
                f"anything from {100 * low:.0f} to {100 * high:.0f} % (95 % interval)"
            )
    missing = [name for name, n in zip(facts.classes, facts.test_K, strict=True) if facts.test and not n]
    if missing:
        yield f"expect: nothing about {_names(missing)}: no test video"


def _names(names: Sequence[str]) -> str:
    """Return names of classes, the first few."""
    more = f" and {len(names) - NAMES_SHOWN} more classes" if len(names) > NAMES_SHOWN else ""
    return ", ".join(map(repr, names[:NAMES_SHOWN])) + more


def spoken(seconds: float) -> str:
    """Return a time as a person says it: 40 s, 12 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
