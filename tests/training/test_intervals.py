"""Intervals against published values, and what must hold of any counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvnas.training.intervals import mean_interval, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_intervals(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_one_class_is_its_wilson_interval_and_many_of_one_video_are_not_sure():
    assert mean_interval([3], [7]) == pytest.approx(wilson(3, 7))
    low, high = mean_interval([1] * 10, [1] * 10)
    assert high == 1.0
    assert low == pytest.approx(1 - (1 - wilson(1, 1)[0]) / 10**0.5)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(any), min_size=1, max_size=50))
def test_the_mean_lies_within_an_interval_that_is_not_empty(counts):
    hits, n = [right for right, _ in counts], [right + wrong for right, wrong in counts]
    low, high = mean_interval(hits, n)
    mean = sum(h / total for h, total in zip(hits, n, strict=True)) / len(n)
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    assert high - low > 0.01
