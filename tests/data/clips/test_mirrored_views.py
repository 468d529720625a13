"""Mirrored views of the test: only where a mirrored video shows a class that is known before it is seen."""

import pytest

from pvnas.config import TestConfig
from pvnas.data.clips.mirrored_views import mirror_message, mirrored_labels, views_of_a_video
from pvnas.errors import UserError
from pvnas.settings import load_config

PLAIN = ("wave", "clap")
PAIR = ("Swipe Left", "wave", "Swipe Right")
LONE = ("turn left", "wave")


@pytest.mark.parametrize(
    "classes, flip, labels",
    [
        (PLAIN, "false", None),
        (PLAIN, "auto", (0, 1)),
        (PLAIN, "swap", (0, 1)),
        (PAIR, "auto", None),
        (PAIR, "true", (0, 1, 2)),
        (PAIR, "swap", (2, 1, 0)),
        (LONE, "swap", None),
    ],
)
def test_which_class_a_mirrored_view_shows(classes, flip, labels):
    assert mirrored_labels(classes, flip) == labels
    test = TestConfig(temporal_views=4, spatial_views=3, flip=flip)
    assert views_of_a_video(test, classes) == (24 if labels else 12)
    assert (mirror_message(classes, flip) is None) == (labels is not None or flip == "false")


def test_why_nothing_is_mirrored_is_one_line():
    assert mirror_message(PAIR, "auto").endswith("--test.flip swap swaps their scores")
    assert (
        mirror_message(LONE, "swap")
        == "test: no mirrored views, since 'turn left' has no counterpart that it would show"
    )


def test_a_network_that_is_trained_on_no_mirrored_clip_is_shown_none():
    with pytest.raises(UserError, match=r"set --test\.flip false or --train\.augment\.flip auto$"):
        load_config("tiny", overrides={"test.flip": "auto"})  # whose training has flips off
    assert load_config("laptop", overrides={"test.flip": True}).test.flip == "true"
