"""Segments: which frames they have and when, in files of many kinds, and that no other way to read them differs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered import numbers_of, told, write_numbered

from pvnas.config import ClipConfig
from pvnas.data.clips import sampling as sampling_rules
from pvnas.data.video import seek
from pvnas.data.video.decode import VideoError, decode_video
from pvnas.data.video.footage import Footage
from pvnas.data.video.segment import segment_of, within

TENTHS = np.arange(10) / 10  # ten frames, 0.1 s each


@pytest.mark.parametrize(
    ("start", "end", "first", "times", "duration"),
    [
        (0.0, math.inf, 0, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], 1.0),
        (0.2, 0.6, 2, [0.0, 0.1, 0.2, 0.3], 0.4),  # the frame that begins at its end is the next segment's
        (0.25, 0.6, 2, [0.0, 0.05, 0.15, 0.25], 0.35),  # what is shown at its start begins before it
        (0.25, 0.28, 2, [0.0], 0.03),  # shorter than a frame
        (0.8, 5.0, 8, [0.0, 0.1], 0.2),  # cut at the end of the video
        (0.95, math.inf, 9, [0.0], 0.05),
        (0.3 - 1e-9, 0.5 + 1e-9, 3, [0.0, 0.1], 0.2),  # rounding of numbers in lists
        (0.3 + 1e-9, 0.5 - 1e-9, 3, [0.0, 0.1], 0.2),
    ],
)
def test_the_frames_of_a_segment(start: float, end: float, first: int, times: list[float], duration: float) -> None:
    segment = segment_of(TENTHS, 1.0, start, end)
    assert segment.first == first
    assert segment.times_T[0] == 0  # exactly, whatever rounding makes of 0.3 - 0.3
    assert segment.times_T.tolist() == pytest.approx(times, abs=1e-6)
    assert segment.duration == pytest.approx(duration)


def test_all_of_a_video_is_itself_to_the_last_bit() -> None:
    times_T = np.sort(np.random.default_rng(0).uniform(0, 9, 50))
    times_T -= times_T[0]
    segment = segment_of(times_T, 9.5, 0.0, math.inf)
    assert (segment.first, segment.duration) == (0, 9.5)
    assert np.array_equal(segment.times_T, times_T)


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (1.0, 2.0, "the segment begins at 1 s, but the video ends at 1 s"),
        (3600.25, math.inf, "the segment begins at 3600.25 s, but the video ends at 1 s"),
        (0.5, 0.5, "the segment begins at 0.5 s and ends at 0.5 s"),
    ],
)
def test_a_segment_without_frames_says_why(start: float, end: float, text: str) -> None:
    with pytest.raises(VideoError) as caught:
        segment_of(TENTHS, 1.0, start, end)
    assert (caught.value.kind, caught.value.text) == ("empty", text)


GAPS = st.lists(st.floats(1e-3, 2.0), min_size=1, max_size=30)


@given(GAPS, st.floats(0, 1, exclude_max=True), st.floats(1e-5, 1.5))
def test_a_segment_shows_at_every_instant_what_the_video_shows_then(
    gaps: list[float], at: float, length: float
) -> None:
    ends = np.cumsum(gaps)
    times_T, duration = np.append(0.0, ends[:-1]), float(ends[-1])
    start = at * (duration - 1e-4)
    segment = segment_of(times_T, duration, start, start + length)
    shown = segment.times_T
    assert shown[0] == 0
    assert (np.diff(shown) > 0).all()
    assert shown[-1] < segment.duration == min(start + length, duration) - start
    for instant in np.linspace(2e-6, segment.duration - 2e-6, 7):
        in_video = np.searchsorted(times_T, start + instant, side="right") - 1
        near = np.abs(times_T - start - instant).min() < 2e-6
        assert near or segment.first + np.searchsorted(shown, instant, side="right") - 1 == in_video


@given(st.floats(0.1, 0.5), st.floats(0.1, 0.5))
def test_segments_that_follow_one_another_share_out_the_frames_that_begin_in_them(a: float, b: float) -> None:
    first, second = segment_of(TENTHS, 1.0, 0.0, a), segment_of(TENTHS, 1.0, a, a + b)
    ends_at = first.first + len(first.times_T)
    begins_inside = bool(np.abs(TENTHS - a).min() > 2e-6)
    assert second.first == ends_at - begins_inside  # the frame that is shown at the border is in both


@given(
    GAPS,
    st.floats(0, 1, exclude_max=True),
    st.floats(1e-5, 3.0),
    st.sampled_from(["dense", "segment"]),
    st.sampled_from(["clamp", "loop", "fit"]),
    st.sampled_from(["slowfast", "slowfast_offset", "mmaction2", "tsm"]),
)
def test_clips_of_any_segment_lie_in_it(
    gaps: list[float], at: float, length: float, sampling: str, short_videos: str, rule: str
) -> None:
    """Of one frame, of a millisecond, of a frame a second: whatever the settings ask for, there is an answer."""
    ends = np.cumsum(gaps)
    times_T, duration = np.append(0.0, ends[:-1]), float(ends[-1])
    start = at * (duration - 1e-4)
    segment = segment_of(times_T, duration, start, start + length)
    clip = ClipConfig(sampling=sampling, short_videos=short_videos)  # type: ignore[arg-type]
    for views in (1, 3):
        indices = sampling_rules.test_indices(segment.times_T, segment.duration, clip, views, rule)
        assert indices.shape == (views, clip.frames)
        assert indices.min() >= 0
        assert indices.max() < len(segment.times_T)
    drawn = [0.999] * sampling_rules.draws(clip)
    indices = sampling_rules.training_indices(segment.times_T, segment.duration, clip, drawn)
    assert 0 <= indices.min() <= indices.max() < len(segment.times_T)


# ---- files

UNEVEN = [0, 40, 400, 440, 480, 900, 1300, 1310, 1700, 2000]
KINDS = {
    "a.mp4": ("libx264", None),
    "reordered.mkv": ("libx264", None),
    "uneven.mkv": ("libx264", UNEVEN),
    "a.avi": ("mpeg4", None),  # reordered in a container without time stamps: decoded in order
    "a.ts": ("mpeg2video", None),
    "vp8.webm": ("libvpx", None),
}


def everything(times_T: np.ndarray, duration: float) -> np.ndarray:
    return np.arange(len(times_T))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("many_bytes", [False, True])
def test_a_segment_of_any_file_is_cut_out_of_the_whole(
    tmp_path: Path, name: str, many_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, stamps = KINDS[name]
    path = write_numbered(tmp_path / name, len(stamps) if stamps else 40, rate=25, codec=codec, stamps=stamps)
    if many_bytes:
        monkeypatch.setattr(seek, "SEGMENTED_BYTES", 0)
    whole = decode_video(path, short_side=32)
    for start, end in ((0.0, 0.3), (0.2, 0.6), (0.5, math.inf), (0.41, 0.43), (1.19, 1.5)):
        cut = segment_of(whole.times_T, whole.duration, start, end)
        expected = whole.frames_TCHW[cut.first : cut.first + len(cut.times_T)]
        footage = Footage(path, start, end)
        video = footage.whole(short_side=32)
        assert torch.equal(video.frames_TCHW, expected)
        assert (video.times_T.tolist(), video.duration) == (cut.times_T.tolist(), cut.duration)
        last_first = footage.frames(lambda times_T, duration: np.array([len(times_T) - 1, 0]), short_side=32)
        assert torch.equal(last_first, expected[[-1, 0]])


def test_golden_frames(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", rate=10)
    assert numbers_of(decode_video(path).frames_TCHW) == list(range(40))
    assert told(Footage(path, 1.0, 1.4).whole()) == [(0.0, 10), (0.1, 11), (0.2, 12), (0.3, 13)]
    assert told(Footage(path, 1.05, 1.3).whole()) == [(0.0, 10), (0.05, 11), (0.15, 12)]
    assert told(Footage(path, 3.75).whole()) == [(0.0, 37), (0.05, 38), (0.15, 39)]
    assert told(Footage(path, 0.0, 0.05).whole()) == [(0.0, 0)]
    uneven = write_numbered(tmp_path / "b.mkv", len(UNEVEN), stamps=UNEVEN)
    assert told(Footage(uneven, 0.3, 1.31).whole()) == [(0.0, 1), (0.1, 2), (0.14, 3), (0.18, 4), (0.6, 5), (1.0, 6)]


def test_of_a_long_file_only_the_segment_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_numbered(tmp_path / "a.mp4", rate=10)
    monkeypatch.setattr(seek, "SEGMENTED_BYTES", 0)
    read = []
    sought = seek._sought

    def spy(container: object, stream: object, table: seek.PacketTable, first: int, end: int) -> object:
        for packet in sought(container, stream, table, first, end):
            read.append(packet.pts)
            yield packet

    monkeypatch.setattr(seek, "_sought", spy)
    Footage(path, 2.0, 2.4).whole()
    assert 4 <= len(read) <= 16  # of 40: the group of eight that it lies in, and the one before
    assert seek._table_of_large_file.cache_info().currsize


def test_indices_of_a_segment_are_those_of_the_video() -> None:
    chosen = within(lambda times_T, duration: np.array([0, len(times_T) - 1]), 0.25, 0.6)(TENTHS, 1.0)
    assert chosen.tolist() == [2, 5]
