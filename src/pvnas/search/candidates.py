"""Networks of several widths and depths within one budget, between which short trainings on validation decide.

Log scores say which cells are better, not which width: a wide network of cheap operations and a narrow one of dear
operations may cost the same. So for each depth the widest network is taken that keeps the budget with the cells that
the search prefers, and wider ones that keep it with cheaper cells; each is trained shortly, the better half longer, and
so on (successive halving; Jamieson and Talwalkar, 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import Tensor

from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.search.budget import Limits, derive_within
from pvnas.search.derive import derive
from pvnas.search.history import price_table
from pvnas.space.cost_table import Price
from pvnas.space.genotype import Genotype

STEP, WIDEST = 4, 1024
"""Of widths: what lies between two, and the most."""
REPEATS = (1, 2, 3)
MOST = 6
"""Candidates of a fit, beside the search's own cells."""
LEFT_OUT = -1.0
WELL_USED = 0.85
"""Share of a budget below which a network is left out where the next width keeps it with cheaper cells."""


class Round(NamedTuple):
    """One round of short trainings."""

    candidates: int
    """That take part, at most: the best of the round before."""
    share: float
    """Of the epochs of the training."""


ROUNDS = (Round(MOST + 1, 1 / 16), Round(MOST // 2, 1 / 8))


class Candidate(NamedTuple):
    """A network within the budget."""

    width: int
    repeat: int
    genotype: Genotype
    price: Price

    @property
    def name(self) -> str:
        """A folder's name for it."""
        return f"width-{self.width}-repeat-{self.repeat}"


def sized(config: RunConfig, width: int, repeat: int) -> RunConfig:
    """Return a config of another width and depth of the derived network."""
    return replace(config, train=replace(config.train, width=width, repeat=repeat))


def tried_for(config: RunConfig, epochs: int) -> RunConfig:
    """Return the config of a short training: so many epochs, on the training videos alone, validated once."""
    train, schedule, shorter = config.train, config.train.weights.schedule, epochs / config.train.epochs
    schedule = replace(
        schedule,
        warmup_epochs=round(shorter * schedule.warmup_epochs, 2),
        step_epochs=shorter * schedule.step_epochs,
    )
    weights = replace(train.weights, schedule=schedule)
    train = replace(train, epochs=epochs, weights=weights, final_on="train", validate_every=epochs)
    return replace(config, train=train, tensorboard=False)


def candidates(
    config: RunConfig, classes: int, alphas: Mapping[str, Tensor], limits: Limits, most: int = MOST
) -> list[Candidate]:
    """Return networks of several widths and depths within the limits, each of the best cells that keep them there.

    Among them is one of the cells that are best without limits, where there is one: of those the most costly. Raises
    UserError where nothing is within the limits.
    """
    free, found = derive(alphas), dict[tuple[int, int], Candidate]()
    repeats = REPEATS if "*K" in config.train.layout else (config.train.repeat,)

    def within(width: int, repeat: int) -> Genotype | None:
        try:
            return derive_within(alphas, price_table(sized(config, width, repeat), classes), limits)
        except UserError:
            return None

    def usage(width: int, repeat: int) -> float:
        price = price_table(sized(config, width, repeat), classes).of(free) if width else Price(0, 0)
        return max((price._asdict()[name] / limit for name, limit in limits.given.items()), default=1.0)

    def has_any(repeat: int, width: int) -> bool:
        return within(width, repeat) is not None

    def has_free(repeat: int, width: int) -> bool:
        return within(width, repeat) == free

    def add(width: int, repeat: int, genotype: Genotype) -> None:
        price = price_table(sized(config, width, repeat), classes).of(genotype)
        found[width, repeat] = Candidate(width, repeat, genotype, price)

    widest_free = {repeat: largest(partial(has_free, repeat)) for repeat in repeats}
    for repeat in repeats:
        widest, first = largest(partial(has_any, repeat)), max(widest_free[repeat], STEP)
        if widest_free[repeat] + STEP <= widest and usage(widest_free[repeat], repeat) < WELL_USED:
            first = widest_free[repeat] + STEP
        number = max(1, most // len(repeats))
        for n in range(number if widest else 0):  # the very widest has room for the cheapest operations alone
            width = first + (widest - first) * n // number // STEP * STEP
            if genotype := within(width, repeat):
                add(width, repeat, genotype)
    if not any(each.genotype == free for each in found.values()):
        repeat = max(repeats, key=lambda repeat: usage(widest_free[repeat], repeat))
        if widest_free[repeat]:
            add(widest_free[repeat], repeat, free)
    if not found:
        derive_within(alphas, price_table(sized(config, STEP, min(repeats)), classes), limits)  # which says why
    return list(found.values())


def best_of(
    found: Sequence[Candidate], epochs: int, score: Callable[[Candidate, int], float]
) -> tuple[Candidate, list[Tried]]:
    """Return the best candidate by rounds of short trainings, and what each has shown.

    ``epochs``: of the whole training; ``score``: trains a candidate for some epochs and returns its validation top-1 in
    percent. Of equal ones the cheaper is better.
    """
    left, tried, before = list(found), list[Tried](), 0
    for each in ROUNDS:
        left, short = left[: each.candidates], max(1, round(each.share * epochs))
        if len(left) > 1 and short > before:
            scores = {candidate.name: score(candidate, short) for candidate in left}
            tried += [Tried(c.width, c.repeat, c.price.macs, short, scores[c.name]) for c in left]
            left.sort(key=lambda candidate: (-scores[candidate.name], candidate.price.macs))
        before = short
    return left[0], tried


class Tried(NamedTuple):
    """A short training."""

    width: int
    repeat: int
    macs: int
    epochs: int
    top1: float
    """On validation, percent; LEFT_OUT where it diverged or had too little memory."""


def largest(keeps: Callable[[int], bool], step: int = STEP) -> int:
    """Return the largest width in steps that keeps what narrower ones keep too; 0 where not even the least does."""
    low, high = 0, WIDEST // step + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle * step) else (low, middle)
    return low * step
