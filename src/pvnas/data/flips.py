"""What a left-right flip does to a label: in data sets whose classes tell left from right it makes another class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

MIRRORED = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
NEVER = -1
# "Swiping Left", "swipe_left", "SwipeLeft" and "swipe-left" are the same words.
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# "pulling it right out", a class of Something-Something V2, has no side.
ADVERB = re.compile(r"(?i)\bright(?=[ _-](out|away|after|before|behind|back)\b)")
COUNTERCLOCKWISE = re.compile(r"(?i)(counter|anti)[ _-]?clockwise")


def flipped_labels(classes: Sequence[str], flip: Literal["auto", "true", "false", "swap"]) -> tuple[int, ...]:
    """Return for each class the label of its mirrored clips, NEVER for a class whose clips are not mirrored.

    `true` keeps every label, `auto` does so unless a class name tells left from right, `swap` gives such a class the
    label of its counterpart (of Something-Something V2: 86 and 87, 93 and 94, 166 and 167), or NEVER where it has none.
    """
    if flip == "false" or (flip == "auto" and sided_classes(classes)):
        return (NEVER,) * len(classes)
    if flip != "swap":
        return tuple(range(len(classes)))
    label_of = {_words(name): label for label, name in enumerate(classes)}
    mirrored = (tuple(MIRRORED.get(word, word) for word in _words(name)) for name in classes)
    return tuple(label_of.get(words, NEVER) for words in mirrored)


def sided_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names that tell left from right, or one sense of rotation from the other."""
    return tuple(name for name in classes if not MIRRORED.keys().isdisjoint(_words(name)))


def flip_message(classes: Sequence[str], flip: str, stage: str) -> str | None:
    """Return one line that tells a person what becomes of flips in a stage, None where there is nothing to tell."""
    sided = sided_classes(classes)
    if not sided or flip == "false":
        return None
    option = f"--{stage}.augment.flip"
    if flip == "auto":
        return f"{stage}: no flips, since {sided[0]!r} tells left from right; {option} swap flips and swaps such labels"
    if flip == "true":
        return (
            f"warning: {stage}: flips are on, and {sided[0]!r} is a class that a flip may turn into another; "
            f"switch them off with {option} false, or swap the labels too with {option} swap"
        )
    labels = flipped_labels(classes, "swap")
    single = [name for name, label in zip(classes, labels, strict=True) if label == NEVER]
    pairs = sum(a < b for a, b in enumerate(labels))
    lone = f"; without a counterpart, so never flipped: {', '.join(map(repr, single))}" if single else ""
    return f"{stage}: flips swap the labels of {pairs} pairs of classes{lone}"


def _words(name: str) -> tuple[str, ...]:
    name = ADVERB.sub("just", COUNTERCLOCKWISE.sub("Counterclockwise", name))
    return tuple(word.lower() for word in WORD.findall(name))
