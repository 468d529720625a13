"""Views of the test that are seen mirrored as well: whether they are, how many views that makes, which class they show.

Nothing here hangs on the training's flips: what becomes of classes that tell left from right is asked of their names.
"""

from collections.abc import Sequence
from typing import Literal

from pvnas.config import TestConfig
from pvnas.data.clips.augment import NEVER, flipped_labels

Flip = Literal["auto", "true", "false", "swap"]


def mirrored_labels(classes: Sequence[str], flip: Flip) -> tuple[int, ...] | None:
    """Return for each class the class that its videos show when they are mirrored; None where no view is mirrored.

    None is: with `false`; with `auto` where a class name tells left from right; with `swap` where such a class has no
    counterpart, since nobody knows before the test of which class a video is.
    """
    labels = flipped_labels(classes, flip)
    return labels if sorted(labels) == list(range(len(classes))) else None


def views_of_a_video(test: TestConfig, classes: Sequence[str]) -> int:
    """Return how many views the test has of each video, mirrored ones too."""
    return test.temporal_views * test.spatial_views * (1 if mirrored_labels(classes, test.flip) is None else 2)


def mirror_message(classes: Sequence[str], flip: Flip) -> str | None:
    """Return one line that says why no view is mirrored though the config asks for it; None where nothing is to say."""
    if flip == "false" or mirrored_labels(classes, flip) is not None:
        return None
    if flip == "auto":
        return "test: no mirrored views, since class names tell left from right; --test.flip swap swaps their scores"
    lone = next(name for name, label in zip(classes, flipped_labels(classes, flip), strict=True) if label == NEVER)
    return f"test: no mirrored views, since {lone!r} has no counterpart that it would show"
