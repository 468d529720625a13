"""Windows cut as frames come: what a segment of the same seconds has, over the whole video, with few frames held."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvnas.config import ClipConfig, TestConfig
from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.clips.sampling import test_indices as indices_of_test
from pvnas.data.clips.view_frames import views_chosen
from pvnas.data.clips.window_frames import decode_windows
from pvnas.data.clips.windows import Pace, Window, WindowCutter
from pvnas.data.video.footage import Footage
from pvnas.data.video.segment import segment_of

DENSE = ClipConfig(frames=4, window=32)
CLIPS = [
    DENSE,
    ClipConfig(frames=4, sampling="whole"),
    ClipConfig(frames=4, sampling="segment"),
    ClipConfig(frames=4, input="motion", window=32, short_videos="fit"),
]


def cut(times: list[float], duration: float, clip: ClipConfig, pace: Pace) -> tuple[list[Window], int]:
    """Return the windows of frames that show their number, and how many frames were held at most."""
    cutter, windows, held = WindowCutter(clip, "slowfast", pace), [], 0
    for number, time in enumerate(times):
        windows += cutter.add(time, np.full((1, 1, 1), number, np.int64))
        held = max(held, len(cutter._shot._times))
    return [*windows, *cutter.finish(duration)], held


def numbers(window: Window) -> list[int]:
    return [int(number) for number in window.frames_FHWC.ravel()]


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0.01, 0.3), min_size=1, max_size=80),
    clip=st.sampled_from(CLIPS),
    window=st.floats(0.4, 3.0),
    part=st.floats(0.2, 1.0),
)
def test_windows_have_the_frames_of_segments(gaps: list[float], clip: ClipConfig, window: float, part: float) -> None:
    times_T, pace = np.concatenate([[0.0], np.cumsum(gaps)]), Pace(window, window * part, ends_at_cuts=False)
    duration = float(times_T[-1]) + gaps[-1]
    windows, held = cut(times_T.tolist(), duration, clip, pace)
    for found in windows:
        segment = segment_of(times_T, duration, found.start, found.end)
        expected = segment.first + indices_of_test(segment.times_T, segment.duration, clip, 1, "slowfast")[0]
        assert numbers(found) == expected.tolist()
    assert windows[0].start == 0
    assert windows[-1].end == pytest.approx(duration)
    assert all(later.start <= former.end + 1e-9 for former, later in pairwise(windows)), "nothing is left out"
    assert [found.number for found in windows] == list(range(len(windows)))
    most = max(np.searchsorted(times_T, times_T + window + pace.stride) - np.arange(len(times_T)))
    assert held <= most + 1, "no more is held than a window and what lies between two"


def test_a_short_video_is_one_window() -> None:
    windows, _ = cut([0.0, 0.1, 0.2], 0.3, DENSE, Pace(2.0, 1.0, False))
    assert [(w.number, w.start, w.end) for w in windows] == [(0, 0.0, 0.3)]
    assert cut([], 0.0, DENSE, Pace(2.0, 1.0, False)) == ([], 0)


def test_the_last_window_ends_with_the_video() -> None:
    times = [number / 10 for number in range(27)]
    windows, _ = cut(times, 2.7, DENSE, Pace(1.0, 0.5, False))
    assert [round(w.start, 6) for w in windows] == [0.0, 0.5, 1.0, 1.5, 1.7]
    assert windows[-1].end == 2.7


def test_what_stands_still_for_hours_is_not_looked_at_again_and_again() -> None:
    times = [0.0, 0.5, 1.0, 100_000.0, 100_000.5, 100_001.0]
    windows, _ = cut(times, 100_001.5, DENSE, Pace(1.0, 0.5, False))
    assert [w.start for w in windows] == [0.0, 0.5, 1.0, 99_999.5, 100_000.0, 100_000.5]


def test_no_window_reaches_over_a_cut() -> None:
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(3)]
    cutter, windows = WindowCutter(DENSE, "slowfast", Pace(1.0, 0.5)), list[Window]()
    for number in range(60):  # of 3 s, 0.4 s and the rest of 6 s; what moves in a shot is no cut
        scene = scenes[0 if number < 30 else 1 if number < 34 else 2]
        windows += cutter.add(number / 10, np.roll(scene, number, axis=1) if number >= 34 else scene)
    windows += cutter.finish(6.0)
    spans = [(round(w.start, 6), round(w.end, 6)) for w in windows]
    assert spans[:6] == [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5), (2, 3), (3, 3.4)]
    assert spans[6] == (3.4, 4.4)
    assert spans[-1] == (5.0, 6.0)
    assert [w.number for w in windows] == list(range(len(windows)))
    np.testing.assert_array_equal(windows[5].frames_FHWC, np.stack([scenes[1]] * 4))


def test_where_all_frames_differ_none_is_a_cut() -> None:
    rng = np.random.default_rng(0)
    cutter, windows = WindowCutter(DENSE, "slowfast", Pace(1.0, 0.5)), list[Window]()
    for number in range(80):
        windows += cutter.add(number / 10, rng.integers(0, 256, (24, 32, 3), np.uint8))
    assert len(windows) > 11, "windows of a second, but for what the first frames tell"
    assert all(window.end - window.start == pytest.approx(1.0) for window in windows[2:])


def test_windows_of_a_folder_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(30):
        Image.fromarray(np.full((24, 32, 3), 8 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "0.png").write_bytes(b"broken")
    (tmp_path / "7.png").write_bytes(b"broken")
    pace, test = Pace(1.0, 0.5, ends_at_cuts=False), TestConfig(short_side=24)
    *items, end = [
        item for item in decode_windows([Video(str(tmp_path), 0, "test")], DENSE, test, pace, Limits(), 10.0) if item
    ]
    assert end == (0, 3.0)
    for _, window in items:
        footage = Footage(tmp_path, window.start, window.end, 10.0)
        expected = footage.pictures(views_chosen(DENSE, TestConfig(temporal_views=1)), short_side=24)
        np.testing.assert_array_equal(window.frames_FHWC, expected)


def test_windows_of_a_file_are_those_of_its_segments(tiny_shapes: Path) -> None:
    path = min(tiny_shapes.rglob("*.mp4"))
    test, pace, windows, seconds = TestConfig(temporal_views=1, short_side=24), Pace(0.5, 0.2), list[Window](), 0.0
    for item in decode_windows([Video(str(path), 0, "test")], DENSE, test, pace, Limits(), 25.0):
        match item:
            case (0, Window() as window):
                windows.append(window)
            case (0, float() as length):
                seconds = length
    assert seconds == pytest.approx(windows[-1].end)
    assert len(windows) > 3
    for window in windows:
        footage = Footage(path, window.start, window.end)
        expected = footage.pictures(views_chosen(DENSE, test), short_side=24)
        np.testing.assert_array_equal(window.frames_FHWC, expected)


def test_every_video_has_its_end(tiny_shapes: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(min(tiny_shapes.rglob("*.mp4")).read_bytes()[:700])
    paths = [*sorted(tiny_shapes.rglob("*.mp4"))[:3], broken, tmp_path / "none.mp4"]
    videos = [Video(str(path), 0, "test") for path in paths]
    ends = {}
    for item in decode_windows(videos, DENSE, TestConfig(), Pace(1.0, 0.5), Limits(), 25.0):
        if item is not None and not isinstance(item[1], Window):
            ends[item[0]] = item[1]
    assert sorted(ends) == [0, 1, 2, 3, 4]
    assert all(isinstance(ends[number], float) for number in (0, 1, 2))
    assert "unreadable" in str(ends[3])
    assert "missing" in str(ends[4])
