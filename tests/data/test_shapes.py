"""The generated set: its classes differ in motion only, its files are sound, it overwrites nothing of others."""

from __future__ import annotations

import csv
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from pvnas.data import shapes
from pvnas.errors import UserError

REVERSES = [
    ("grow", "shrink"),
    ("move_down", "move_up"),
    ("move_right", "move_left"),
    ("turn_clockwise", "turn_counterclockwise"),
]


def decoded(path: Path) -> np.ndarray:
    """Decode all frames, uint8 (T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class CountedProgress:
    """Counts the steps of all work."""

    steps = 0

    def task(self, title: str, total: int) -> AbstractContextManager[CountedProgress]:
        return nullcontext(self)

    def advance(self, steps: int = 1) -> None:
        self.steps += steps


def drawn(name: str, seed: int = 3) -> np.ndarray:
    return shapes.draw_video(name, np.random.default_rng(seed))


@pytest.mark.parametrize("motion, reverse", REVERSES)
@pytest.mark.parametrize("seed", range(3))
def test_the_reverse_of_a_draw_is_its_exact_reversal_before_encoding(motion: str, reverse: str, seed: int) -> None:
    assert np.array_equal(drawn(motion, seed), drawn(reverse, seed)[::-1])
    assert not np.array_equal(drawn(motion, seed), drawn(reverse, seed))


@pytest.mark.parametrize("motion, reverse", REVERSES)
def test_the_reverse_is_exact_after_decoding_too(tmp_path: Path, motion: str, reverse: str) -> None:
    for name in (motion, reverse):
        shapes.encode(tmp_path / f"{name}.mp4", drawn(name))
    assert np.array_equal(decoded(tmp_path / f"{motion}.mp4"), decoded(tmp_path / f"{reverse}.mp4")[::-1])


def test_a_file_is_close_to_what_was_drawn_and_has_no_predicted_frames(tmp_path: Path) -> None:
    video = drawn("turn_clockwise")
    shapes.encode(tmp_path / "a.mp4", video)
    error = decoded(tmp_path / "a.mp4").astype(float) - video
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 30  # dB
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.frames, float(stream.average_rate)) == ("h264", 32, 30.0)
        assert {frame.pict_type for frame in container.decode(stream)} == {PictureType.I}


@pytest.mark.parametrize("moving", shapes.COORDINATES)
def test_only_the_named_coordinate_moves_and_it_moves_far(moving: str) -> None:
    for seed in range(50):
        poses = shapes.draw_poses(moving, np.random.default_rng(seed), 32)
        tracks = {name: getattr(poses, name) for name in shapes.COORDINATES}
        assert all(np.ptp(track) == 0 for name, track in tracks.items() if name != moving)
        track = tracks[moving]
        assert (np.diff(track) > 0).all()
        if moving == "radius":
            assert 1.6 <= track[-1] / track[0] <= 2.5
        elif moving == "angle":
            assert 90 <= np.rad2deg(np.ptp(track)) <= 200
        else:
            assert 0.4 <= np.ptp(track) <= 0.55


def test_a_single_frame_has_the_same_distribution_of_poses_in_all_motions() -> None:
    """Deciles of each coordinate over 400 draws, all frames pooled, agree between moving and standing still."""
    steps = np.linspace(0.1, 0.9, 9)
    draws = {
        moving: [shapes.draw_poses(moving, np.random.default_rng([seed, 7]), 32) for seed in range(400)]
        for moving in shapes.COORDINATES
    }
    for name in ("x", "y", "radius"):
        pooled = {
            moving: np.concatenate([getattr(poses, name) for poses in drawn_poses])
            for moving, drawn_poses in draws.items()
        }
        spread = np.ptp(pooled[name])
        deciles = np.stack([np.quantile(values, steps) for values in pooled.values()])
        assert np.ptp(deciles, axis=0).max() < 0.12 * spread


def test_classes_move_as_their_names_say() -> None:
    def outline_moments(image: np.ndarray, background: np.ndarray) -> tuple[float, float, float]:
        rows, columns = np.nonzero(np.abs(image.astype(int) - background).sum(-1) > 60)
        return columns.mean(), rows.mean(), len(rows)

    for seed in range(5):
        for name, sign, moment in (("move_right", 1, 0), ("move_left", -1, 0), ("move_down", 1, 1), ("move_up", -1, 1)):
            video = drawn(name, seed)
            # What the shape uncovers in the end is the background: the median over time shows most of it.
            background = np.median(video, axis=0)
            first, last = (outline_moments(video[index], background)[moment] for index in (0, -1))
            assert sign * (last - first) > 8, (name, seed)

    u_THW, v_THW = shapes._shape_coordinates(
        shapes.Poses(*(np.array(each) for each in ([0.5, 0.5], [0.5, 0.5], [0.0, np.pi / 2], [0.5, 0.5]))), 64
    )
    # Turned by 90 degrees clockwise, the shape's right-hand end (u = 1) is found at the bottom of the picture.
    assert u_THW[0, 32, 63] == pytest.approx(1, abs=0.05)
    assert u_THW[1, 63, 32] == pytest.approx(1, abs=0.05)
    assert v_THW[0, 63, 32] == pytest.approx(1, abs=0.05)


def test_the_background_stands_still_and_appearance_differs_between_draws() -> None:
    video = drawn("grow")
    still = (video == video[0]).all(axis=(0, 3)).mean()
    assert 0.4 < still < 0.98
    assert not np.array_equal(drawn("grow", 1)[0], drawn("grow", 2)[0])


def test_the_written_set_has_the_splits_and_one_group_per_video(tiny_shapes: Path) -> None:
    with (tiny_shapes / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == set(shapes.CLASSES)
    for name in shapes.CLASSES:
        assert [row["split"] for row in rows if row["label"] == name] == ["train"] * 4 + ["val", "test"]
    assert len({row["group"] for row in rows}) == len(rows) == 48
    assert all(decoded(tiny_shapes / row["path"]).shape == (32, 64, 64, 3) for row in rows[::7])


def test_the_default_set_is_divided_100_15_25() -> None:
    assert shapes.split_counts(140) == {"train": 100, "val": 15, "test": 25}
    assert shapes.split_counts(3) == {"train": 1, "val": 1, "test": 1}


def test_the_same_parameters_give_the_same_frames_on_any_number_of_threads(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 3)):
        shapes.write_shapes(tmp_path / name, videos_per_class=3, seed=5, size=32, seconds=0.2, workers=workers)
    paths = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.mp4"))
    assert len(paths) == 24
    for path in paths:
        assert np.array_equal(decoded(tmp_path / "a" / path), decoded(tmp_path / "b" / path))
    other = shapes.write_shapes(tmp_path / "c", videos_per_class=3, seed=6, size=32, seconds=0.2)
    assert not np.array_equal(decoded(tmp_path / "a" / paths[0]), decoded(other / paths[0]))


def test_a_complete_set_is_left_alone_and_an_interrupted_one_is_finished(tmp_path: Path) -> None:
    def write() -> Path:
        return shapes.write_shapes(tmp_path / "set", videos_per_class=3, size=32, seconds=0.2, progress=done)

    done = CountedProgress()
    root = write()
    assert done.steps == 24
    write()
    assert done.steps == 24
    (root / "grow" / "grow_0001.mp4").unlink()
    write()
    assert done.steps == 48
    assert (root / "grow" / "grow_0001.mp4").is_file()
    marker = json.loads((root / shapes.MARKER).read_text())
    (root / shapes.MARKER).write_text(json.dumps({**marker, "complete": False}))
    write()
    assert done.steps == 72


def test_it_refuses_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match="not empty and not a generated set"):
        shapes.write_shapes(tmp_path, videos_per_class=3)
    with pytest.raises(UserError, match="is a file"):
        shapes.write_shapes(tmp_path / "holiday.mp4", videos_per_class=3)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


def test_it_refuses_another_set_in_its_place(tmp_path: Path) -> None:
    shapes.write_shapes(tmp_path, videos_per_class=3, size=32, seconds=0.2)
    with pytest.raises(UserError, match="other parameters"):
        shapes.write_shapes(tmp_path, videos_per_class=3, size=32, seconds=0.2, seed=1)


@pytest.mark.parametrize("wrong", [{"videos_per_class": 2}, {"size": 63}, {"size": 8}, {"seconds": 0.0}])
def test_impossible_parameters_are_named(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        shapes.write_shapes(tmp_path / "set", **wrong)
    assert not (tmp_path / "set").exists()
