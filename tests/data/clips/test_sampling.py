"""Clips in time: the golden table of four tools' rules, and what holds for any video and any rule."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvnas.config import ClipConfig
from pvnas.data.clips import sampling  # by the module: pytest would take test_starts for a test
from pvnas.data.clips.sampling import centre_start, frame_indices, training_start, window_seconds

RULES = ("slowfast", "slowfast_offset", "mmaction2", "tsm")
EVEN, STRIDED = [0, 9, 18, 27, 36, 45, 54, 63], [0, 8, 16, 24, 32, 40, 48, 56]
# Ten clips of 300 frames at 30 fps, a window of 64: starts, frames inside the clip, the last frame used.
GOLDEN = {
    "slowfast": ([0, 23, 47, 70, 94, 118, 141, 165, 188, 212], EVEN, 275),
    "slowfast_offset": ([0, 26, 52, 78, 104, 130, 156, 182, 208, 234], EVEN, 297),
    "mmaction2": ([0, 27, 54, 81, 108, 135, 162, 189, 216, 243], STRIDED, 299),
    "tsm": ([0, 26, 52, 78, 104, 131, 157, 183, 209, 236], STRIDED, 292),
}


def times(frames: int, rate: float) -> tuple[np.ndarray, float]:
    """Return (times_T, duration) of a video of constant rate."""
    return np.arange(frames) / rate, frames / rate


def clips(frames: int, rate: float, clip: ClipConfig, rule: str, views: int = 10) -> list[list[int]]:
    times_T, duration = times(frames, rate)
    starts = sampling.test_starts(duration, clip, views, rule)
    return [frame_indices(times_T, duration, start, clip, rule).tolist() for start in starts]


@pytest.mark.parametrize("rule", RULES)
def test_ten_clips_of_a_video_of_30_fps_are_those_of_the_tools(rule: str) -> None:
    starts, inside, last = GOLDEN[rule]
    found = clips(300, 30, ClipConfig(), rule)
    assert found == [[start + offset for offset in inside] for start in starts]
    assert max(map(max, found)) == last


@pytest.mark.parametrize("rule", RULES)
def test_ten_clips_of_a_video_of_25_fps_are_the_frames_shown_at_the_same_instants(rule: str) -> None:
    starts, inside, _ = GOLDEN[rule]
    exact = [Fraction(236 * i, 10) for i in range(10)] if rule == "slowfast" else starts
    offsets = [9 * k for k in range(8)] if inside is EVEN else inside
    assert clips(250, 25, ClipConfig(), rule) == [
        [math.floor((s + o) * Fraction(25, 30)) for o in offsets] for s in exact
    ]


@given(
    gaps=st.lists(st.integers(1, 40), max_size=60),
    start=st.integers(0, 200),
    factor=st.sampled_from([0.5, 2.0, 4.0]),
    short_videos=st.sampled_from(["clamp", "fit"]),
)
def test_a_video_played_faster_with_a_window_as_much_shorter_gives_the_same_frames(
    gaps: list[int], start: int, factor: float, short_videos: Literal["clamp", "fit"]
) -> None:
    times_T = np.concatenate([[0], np.cumsum(gaps)]) / 32  # in exact binary fractions, as are the factors
    duration = float(times_T[-1]) + 1 / 32
    clip = ClipConfig(window=64, window_rate=32.0, frames=8, short_videos=short_videos)
    faster = ClipConfig(window=64, window_rate=32.0 * factor, frames=8, short_videos=short_videos)
    expected = frame_indices(times_T, duration, start / 32, clip)
    assert frame_indices(times_T / factor, duration / factor, start / 32 / factor, faster).tolist() == expected.tolist()


@given(frames=st.integers(1, 63), start=st.integers(0, 30))
def test_loop_is_modulo_the_number_of_frames(frames: int, start: int) -> None:
    times_T, duration = times(frames, 30)
    found = frame_indices(times_T, duration, start / 30, ClipConfig(short_videos="loop"), "tsm")
    assert found.tolist() == [(start + offset) % frames for offset in STRIDED]


def slowfast_reference(frames: int, clip_index: int) -> list[int]:
    """PySlowFast's own arithmetic in whole frames for a video of 30 fps."""
    start = clip_index * max(frames - 64, 0) / 10
    return np.clip(np.linspace(start, start + 63, 8), 0, frames - 1).astype(int).tolist()


@given(frames=st.integers(1, 2000), view=st.integers(0, 9))
def test_the_default_rule_is_slowfasts_for_every_length_at_30_fps(frames: int, view: int) -> None:
    assert clips(frames, 30, ClipConfig(), "slowfast")[view] == slowfast_reference(frames, view)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (30.0, [0, 9, 18, 27, 36, 45, 54, 63]),
        (15.0, [0, 4, 9, 13, 18, 22, 27, 31]),
        (60.0, [0, 18, 36, 54, 72, 90, 108, 126]),
        (12.0, [0, 3, 7, 10, 14, 18, 21, 25]),
    ],
)
def test_a_window_is_seconds_whatever_the_files_rate(rate: float, expected: list[int]) -> None:
    times_T, duration = times(round(rate * 10), rate)
    assert frame_indices(times_T, duration, 0.0, ClipConfig()).tolist() == expected


def test_a_frame_of_30000_by_1001_fps_is_never_missed_by_rounding() -> None:
    clip = ClipConfig(window_rate=30000 / 1001)
    times_T, duration = times(300, 30000 / 1001)
    for first in range(200):
        found = frame_indices(times_T, duration, times_T[first], clip)
        assert found.tolist() == [first + offset for offset in EVEN]


def test_variable_rate_takes_the_frame_that_is_shown_at_the_instant() -> None:
    times_T = np.array([0.0, 0.1, 1.0, 1.05, 3.0])
    found = frame_indices(times_T, 3.5, 0.0, ClipConfig(frames=4, window=4, window_rate=1.0))  # at 0, 1, 2 and 3 s
    assert found.tolist() == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("clamp", [0, 9, 18, 27, 29, 29, 29, 29]),
        ("loop", [0, 9, 18, 27, 6, 15, 24, 3]),
        ("fit", [0, 4, 8, 12, 16, 21, 25, 29]),
    ],
)
def test_a_video_of_30_frames_under_each_rule_for_short_ones(
    rule: Literal["clamp", "loop", "fit"], expected: list[int]
) -> None:
    times_T, duration = times(30, 30)
    assert frame_indices(times_T, duration, 0.0, ClipConfig(short_videos=rule)).tolist() == expected


@pytest.mark.parametrize("short_videos", ["clamp", "loop", "fit"])
def test_a_video_as_long_as_the_window_is_the_same_under_each_rule_for_short_ones(
    short_videos: Literal["clamp", "loop", "fit"],
) -> None:
    times_T, duration = times(64, 30)
    assert frame_indices(times_T, duration, 0.0, ClipConfig(short_videos=short_videos)).tolist() == EVEN


def test_training_starts_fill_the_room_and_the_centre_is_its_middle() -> None:
    clip = ClipConfig()
    room = 10.0 - window_seconds(clip)
    assert training_start(10.0, clip, 0.0) == 0.0
    assert training_start(10.0, clip, 0.999) == pytest.approx(0.999 * room)
    assert training_start(1.0, clip, 0.999) == 0.0
    assert centre_start(10.0, clip) == pytest.approx(room / 2)
    assert sampling.test_starts(10.0, clip, 1, "slowfast").tolist() == [centre_start(10.0, clip)]


@given(
    gaps=st.lists(st.floats(0.001, 2.0), min_size=0, max_size=80),
    rule=st.sampled_from(RULES),
    short_videos=st.sampled_from(["clamp", "loop", "fit"]),
    clip_frames=st.integers(1, 16),
    window=st.integers(16, 128),
    views=st.integers(1, 12),
)
def test_any_video_under_any_rule_gives_frames_that_exist(
    gaps: list[float],
    rule: str,
    short_videos: Literal["clamp", "loop", "fit"],
    clip_frames: int,
    window: int,
    views: int,
) -> None:
    clip = ClipConfig(frames=clip_frames, window=window, short_videos=short_videos)
    times_T = np.concatenate([[0.0], np.cumsum(gaps)])
    duration = float(times_T[-1]) + 0.04
    starts = sampling.test_starts(duration, clip, views, rule)
    assert starts.shape == (views,)
    assert (starts >= 0).all()
    assert (np.diff(starts) >= 0).all()
    for start in starts:
        found = frame_indices(times_T, duration, start, clip, rule)
        assert found.shape == (clip_frames,)
        assert found.min() >= 0
        assert found.max() < len(times_T)
        if short_videos != "loop":
            assert (np.diff(found) >= 0).all()


@given(
    frames=st.integers(64, 3000), u=st.floats(0, 1, exclude_max=True), rate=st.sampled_from([12.0, 25.0, 29.97, 60.0])
)
def test_a_long_video_is_never_repeated(frames: int, u: float, rate: float) -> None:
    clip = ClipConfig()
    times_T, duration = times(frames + round(rate * 3), rate)
    found = frame_indices(times_T, duration, training_start(duration, clip, u), clip)
    assert len(set(found.tolist())) == clip.frames


# Segment sampling

SEGMENTS = ClipConfig(sampling="segment")
# Eight segments of a 300-frame video: the middles as PySlowFast, and as TSM and MMAction2 take them.
SEGMENT_GOLDEN = {
    "slowfast": [18, 56, 93, 131, 168, 205, 243, 280],
    "slowfast_offset": [18, 56, 93, 131, 168, 205, 243, 280],
    "tsm": [18, 56, 93, 131, 168, 206, 243, 281],
    "mmaction2": [18, 56, 93, 131, 168, 206, 243, 281],
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rate", [12.0, 25.0, 30.0, 30000 / 1001])
def test_segment_middles_are_those_of_the_tools_at_any_rate(rule: str, rate: float) -> None:
    times_T, duration = times(300, rate)
    assert sampling.test_indices(times_T, duration, SEGMENTS, 1, rule).tolist() == [SEGMENT_GOLDEN[rule]]


@given(frames=st.integers(1, 400), rate=st.sampled_from([12.0, 25.0, 30000 / 1001]))
def test_segment_middles_by_the_formulas(frames: int, rate: float) -> None:
    times_T, duration = times(frames, rate)
    tick, seg = frames / 8, (frames - 1) / 8
    tsm = [int(tick / 2 + tick * i) for i in range(8)]
    slowfast = [(round(seg * i) + round(seg * (i + 1))) // 2 for i in range(8)]
    assert sampling.test_indices(times_T, duration, SEGMENTS, 1, "tsm")[0].tolist() == tsm
    assert sampling.test_indices(times_T, duration, SEGMENTS, 1, "slowfast")[0].tolist() == slowfast


@given(frames=st.integers(8, 400), u=st.lists(st.floats(0, 0.999), min_size=8, max_size=8))
def test_a_training_clip_takes_one_frame_out_of_each_segment(frames: int, u: list[float]) -> None:
    times_T, duration = times(frames, 30)
    assert sampling.draws(SEGMENTS) == 8
    found = sampling.training_indices(times_T, duration, SEGMENTS, u)
    for segment, index in enumerate(found.tolist()):
        assert math.floor(frames / 8 * segment + 1e-4) <= index <= math.ceil(frames / 8 * (segment + 1))


def test_views_of_segments_are_spread_over_them() -> None:
    times_T, duration = times(320, 30)
    views = sampling.test_indices(times_T, duration, SEGMENTS, 4, "slowfast")
    assert views[:, 0].tolist() == [5, 15, 25, 35]
    assert (np.diff(views, axis=1) == 40).all()


def test_a_dense_clip_hangs_on_one_draw() -> None:
    times_T, duration = times(300, 30)
    clip = ClipConfig()
    assert sampling.draws(clip) == 1
    expected = frame_indices(times_T, duration, training_start(duration, clip, 0.25), clip)
    assert sampling.training_indices(times_T, duration, clip, [0.25]).tolist() == expected.tolist()
    centre = frame_indices(times_T, duration, centre_start(duration, clip), clip)
    assert sampling.centre_indices(times_T, duration, clip).tolist() == centre.tolist()
    starts = sampling.test_starts(duration, clip, 10, "tsm")
    rows = [frame_indices(times_T, duration, start, clip, "tsm").tolist() for start in starts]
    assert sampling.test_indices(times_T, duration, clip, 10, "tsm").tolist() == rows


def notes(videos: list[tuple[int, float]], **options: object) -> list[str]:
    frames, seconds = zip(*videos, strict=True) if videos else ((), ())
    clip = ClipConfig(**options)  # type: ignore[arg-type]
    return sampling.repetition_notes(np.array(frames, dtype=np.int64), np.array(seconds, dtype=np.float64), clip)


def test_what_clips_hold_that_a_video_cannot_fill_is_said_and_nothing_of_others() -> None:
    whole = [(64, 64 / 30), (300, 10.0), (40, 10.0)]
    assert notes([]) == notes(whole) == []
    short, slow = (63, 2.1), (50, 10.0 + 40 / 3)
    assert notes([*whole, short, short, slow]) == [
        "2 of 6 videos are shorter than a clip's window (2.13 s): their clips repeat the last frame "
        "(clip.short_videos clamp; loop and fit are the other ways)",
        "1 of 6 videos have fewer than 3.33 frames a second, the slowest 2.14: frames repeat in their clips",
    ]
    assert "begin again with the first frame (clip.short_videos loop;" in notes([short], short_videos="loop")[0]
    assert "take all of the video" in notes([short], short_videos="fit")[0]
    assert notes([(8, 0.3), (7, 100.0)], sampling="segment") == [
        "1 of 2 videos have fewer than 8 frames: frames repeat in their clips"
    ]


@pytest.mark.parametrize("rate, repeats", [(3.4, False), (2.5, True), (30.0, False)])
def test_a_note_on_slow_videos_is_true_of_their_clips(rate: float, repeats: bool) -> None:
    times_T = np.arange(200) / rate
    indices = sampling.centre_indices(times_T, 200 / rate, ClipConfig())
    assert (len(set(indices.tolist())) < 8) == repeats
    assert bool(notes([(200, 200 / rate)])) == repeats


# ---- windows of another length


def test_a_window_of_another_length_spreads_the_frames_by_as_much() -> None:
    times_T, duration = times(300, 30.0)
    clip = ClipConfig(frames=4, window=31)
    for length, expected in ((1.0, [0, 10, 20, 30]), (0.5, [0, 5, 10, 15]), (2.0, [0, 20, 40, 60])):
        assert sampling.training_indices(times_T, duration, clip, [0.0], length).tolist() == expected
    last = sampling.training_indices(times_T, duration, clip, [0.9999999], 2.0)
    assert last.tolist() == [238, 258, 278, 298]  # the window ends with the video


@pytest.mark.parametrize("short_videos", ["clamp", "loop", "fit"])
def test_a_longer_window_ends_with_the_video_and_a_shorter_one_of_a_short_video_is_a_share_of_it(
    short_videos: Literal["clamp", "loop", "fit"],
) -> None:
    times_T, duration = times(31, 30.0)
    clip = ClipConfig(frames=4, window=31, short_videos=short_videos)
    assert sampling.training_indices(times_T, duration, clip, [0.5], 3.0).tolist() == [0, 10, 20, 30]
    longer = ClipConfig(frames=4, window=62, short_videos=short_videos)
    plain = sampling.training_indices(times_T, duration, longer, [0.5]).tolist()
    assert sampling.training_indices(times_T, duration, longer, [0.5], 3.0).tolist() == plain
    half = sampling.training_indices(times_T, duration, longer, [0.0], 0.5).tolist()
    assert half == ([0, 5, 10, 15] if short_videos == "fit" else [0, 10, 20, 30])


def test_without_a_window_a_part_of_the_video_is_looked_at() -> None:
    times_T, duration = times(101, 10.0)
    whole = ClipConfig(frames=5, sampling="whole")
    assert sampling.training_indices(times_T, duration, whole, [], 0.5, 0.0).tolist() == [0, 12, 25, 37, 50]
    assert sampling.training_indices(times_T, duration, whole, [], 0.5, 1.0).tolist() == [50, 62, 75, 87, 100]
    assert sampling.training_indices(times_T, duration, whole, [], 1.7, 0.3).tolist() == [0, 25, 50, 75, 100]
    segment = ClipConfig(frames=5, sampling="segment")
    middle = sampling.training_indices(times_T, duration, segment, [0.5] * 5, 0.5, 0.5).tolist()
    assert middle == [30, 40, 50, 60, 70]  # of 25.25 to 75.75 the middle of each fifth, in tenths of seconds
