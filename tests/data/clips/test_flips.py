"""What a flip does to labels: pairs of mirrored classes, classes without a counterpart, and the data sets' own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvnas.data.clips.augment import NEVER, flip_message, flipped_labels, sided_classes

PLAIN = ("run", "jump", "wright")
JESTER = ("Swiping Left", "Swiping Right", "Turning_Hand_Clockwise", "Turning_Hand_Counterclockwise", "Stop Sign")


def test_without_sides_every_clip_may_be_flipped() -> None:
    assert flipped_labels(PLAIN, "auto") == flipped_labels(PLAIN, "true") == flipped_labels(PLAIN, "swap") == (0, 1, 2)
    assert flipped_labels(PLAIN, "false") == (NEVER,) * 3
    assert [flip_message(PLAIN, flip, "train") for flip in ("auto", "true", "false", "swap")] == [None] * 4


def test_with_sides_flips_are_off_unless_asked_for() -> None:
    assert flipped_labels(JESTER, "auto") == (NEVER,) * 5
    assert flipped_labels(JESTER, "true") == (0, 1, 2, 3, 4)
    assert flipped_labels(JESTER, "swap") == (1, 0, 3, 2, 4)


@pytest.mark.parametrize(
    "left, right",
    [
        ("SwipeLeft", "SwipeRight"),
        ("turn_left", "turn-right"),
        ("LEFT hook", "right hook"),
        ("from left to right", "from right to left"),
        ("rotate clockwise", "rotate counter-clockwise"),
        ("rotate Clockwise", "rotate anticlockwise"),
    ],
)
def test_counterparts_are_found_whatever_the_spelling(left: str, right: str) -> None:
    assert flipped_labels((left, "other", right), "swap") == (2, 1, 0)


def test_a_class_without_a_counterpart_is_never_flipped() -> None:
    classes = ("left hook", "jab", "upper right cut")
    assert flipped_labels(classes, "swap") == (NEVER, 1, NEVER)
    message = flip_message(classes, "swap", "search")
    assert message == (
        "search: flips swap the labels of 0 pairs of classes; "
        "without a counterpart, so never flipped: 'left hook', 'upper right cut'"
    )


def test_what_a_person_is_told() -> None:
    assert "--train.augment.flip swap" in (flip_message(JESTER, "auto", "train") or "")
    warning = flip_message(JESTER, "true", "search") or ""
    assert warning.startswith("warning: search: flips are on, and 'Swiping Left'")
    assert "--search.augment.flip false" in warning
    assert flip_message(JESTER, "swap", "train") == "train: flips swap the labels of 2 pairs of classes"
    assert flip_message(JESTER, "false", "train") is None


def test_something_something_has_three_pairs(shared_data: Path) -> None:
    labels = json.loads((shared_data / "annotations/ssv2/something-something-v2-labels.derived.json").read_text())
    classes = sorted(labels, key=lambda name: int(labels[name]))
    swapped = flipped_labels(classes, "swap")
    assert {(a, b) for a, b in enumerate(swapped) if a < b} == {(86, 87), (93, 94), (166, 167)}
    assert NEVER not in swapped
    assert len(sided_classes(classes)) == 6


def test_jesters_own_labels(shared_data: Path) -> None:
    lines = (shared_data / "annotations/jester/classInd.txt").read_text().splitlines()
    classes = [line.split(" ", 1)[1] for line in lines if line.strip()]
    swapped = flipped_labels(classes, "swap")
    names = {frozenset((classes[a], classes[b])) for a, b in enumerate(swapped) if a != b}
    assert NEVER not in swapped
    assert all(len(pair) == 2 for pair in names)
    assert frozenset(("Swiping_Left", "Swiping_Right")) in names
    assert any("Clockwise" in name for pair in names for name in pair)
