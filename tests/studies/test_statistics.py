"""Intervals that know of seeds and of videos: by hand, beside theory, and what must hold for any runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvnas.studies.statistics import Difference, in_words, paired_difference, spread


def runs(rows: list[list[bool]]) -> list[dict[str, bool]]:
    return [{f"v{number}": right for number, right in enumerate(row)} for row in rows]


def alone(run: Mapping[str, bool]) -> dict[str, str]:
    return {name: name for name in run}


RIGHT = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4)


@given(rows=st.tuples(RIGHT, RIGHT), films=st.integers(1, 5))
def test_the_other_way_round_is_the_negative_and_the_mean_lies_inside(
    rows: tuple[list[list[bool]], list[list[bool]]], films: int
) -> None:
    n = min(map(len, rows))
    ours, theirs = (runs(each[:n]) for each in rows)
    group_of = {name: f"film {number % films}" for number, name in enumerate(ours[0])}
    one, other = (paired_difference(a, b, group_of, draws=500) for a, b in ((ours, theirs), (theirs, ours)))
    assert one.points == pytest.approx(-other.points)
    assert one.low == pytest.approx(-other.high)
    assert one.low <= one.points + 1e-9
    assert one.high >= one.points - 1e-9
    assert (one.seeds, one.videos, one.groups) == (n, 5, min(films, 5))
    same = paired_difference(ours, ours, group_of, draws=100)
    assert (same.points, same.low, same.high) == (0, 0, 0)


def test_by_hand() -> None:
    ours, theirs = runs([[True, True, False, True]] * 2), runs([[True, False, False, False]] * 2)
    found = paired_difference(ours, theirs, alone(ours[0]))
    assert found.points == 50.0
    assert found[3:] == (2, 4, 4)


def test_many_videos_of_one_seed_have_the_interval_of_a_normal_distribution() -> None:
    generator = np.random.default_rng(1)
    rows = [[(generator.random(600) < share).tolist()] for share in (0.6, 0.5)]
    ours, theirs = (runs(row) for row in rows)
    gains = np.array(list(ours[0].values()), float) - np.array(list(theirs[0].values()), float)
    half = 1.96 * 100 * gains.std(ddof=1) / math.sqrt(600)
    found = paired_difference(ours, theirs, alone(ours[0]))
    assert found.low == pytest.approx(found.points - half, abs=0.4)
    assert found.high == pytest.approx(found.points + half, abs=0.4)


def test_videos_of_one_film_and_seeds_that_differ_widen_the_interval() -> None:
    """Twenty films of five videos that are right or wrong together know as much as twenty videos."""
    generator = np.random.default_rng(0)
    films = generator.random(20) < 0.7
    ours, theirs = runs([np.repeat(films, 5).tolist()]), runs([[False] * 100])
    group_of = {f"v{number}": str(number // 5) for number in range(100)}
    apart, together = (paired_difference(ours, theirs, groups) for groups in (alone(ours[0]), group_of))
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(math.sqrt(5), rel=0.1)
    steady, moody = [[True] * 50 + [False] * 50] * 4, [[True] * 100, [False] * 100] * 2
    widths = [
        (found := paired_difference(runs(rows), runs([[False] * 100] * 4), alone(ours[0]))).high - found.low
        for rows in (steady, moody)
    ]
    assert widths[1] > 3 * widths[0]


def test_runs_of_other_videos_or_seeds_are_not_paired() -> None:
    ours = runs([[True, False]])
    for theirs in (runs([[True]]), runs([[True, False]] * 2)):
        with pytest.raises(ValueError, match="paired runs are of the same seeds and the same test videos"):
            paired_difference(ours, theirs, alone(ours[0]))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.4, 6.0, "The interval is above zero: these runs support it."),
        (-6.0, -0.4, "The interval is below zero: these runs speak against it."),
        (-1.0, 6.0, "The interval contains zero: these runs show neither that it holds nor that it does not."),
    ],
)
def test_words_say_what_an_interval_shows(low: float, high: float, verdict: str) -> None:
    said = in_words("wider is better", Difference(2.5, low, high, 3, 238, 60))
    assert said == (
        f"Claim: wider is better. Measured: +2.5 points (95 % interval {low:+.1f} to {high:+.1f}; 3 seeds of each, "
        f"238 test videos of 60 groups). {verdict}"
    )


def test_spread() -> None:
    assert spread([1.0, 3.0]) == (2, 2.0, pytest.approx(math.sqrt(2)))
    assert spread([4.0]) == (1, 4.0, None)
