"""Draws that take as many films as they can, and features that are what they are called."""

import json
from collections import Counter

import pytest
import torch

import small_sets
import still_features as hand_made
from pvnas.errors import UserError
from video_lists import Listed


def films(counts, split="train"):
    return [
        Listed(f"{label}{film}_{i}.mp4", label, split, f"{label}{film}")
        for label, numbers in counts.items()
        for film, n in enumerate(numbers)
        for i in range(n)
    ]


def test_a_draw_takes_a_video_of_each_film_in_turn():
    videos = films({"a": [5, 5, 1], "b": [2, 2, 2], "c": [4], "d": [1, 1]})
    rest = films({"a": [1], "d": [1]}, "val") + films({"b": [2], "c": [1]}, "test")
    for seed in range(4):
        chosen = small_sets.draw([*videos, *rest], classes=2, number=4, seed=seed)
        labels = {v.label for v in chosen}
        assert len(labels) == 2
        assert "d" not in labels  # has two training videos
        per_film = {"a": [1, 1, 2], "b": [1, 1, 2], "c": [4]}
        for label in labels:
            own = [v for v in chosen if v.label == label and v.split == "train"]
            counts = sorted(Counter(v.group for v in own).values())
            assert (counts, len(set(own))) == (per_film[label], 4)
        assert {v for v in chosen if v.split != "train"} == {v for v in rest if v.label in labels}
        assert small_sets.draw([*rest, *videos[::-1]], 2, 4, seed)[-8:] == chosen[-8:]
    with pytest.raises(UserError, match="3 classes have 4 training videos, not 4; set --classes, --videos"):
        small_sets.draw(videos, 4, 4, 0)


def test_a_draw_is_run_and_tested_on_its_training_videos(tmp_path, monkeypatch):
    commands = []

    def run(arguments):  # the commands themselves have tests of their own
        commands.append(arguments)
        folder = arguments[arguments.index("--out") + 1] if "--out" in arguments else arguments[3]
        small_sets.write_atomic(small_sets.Path(folder) / "results.json", json.dumps({"top1": 50.0, "seconds": {}}))
        return 0

    for folder in ("run", "tested_on_training"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(small_sets, "pvnas", run)
    monkeypatch.setattr(small_sets, "accuracies", lambda data, name, path: {"test": 40.0})
    videos = [*films({"a": [2], "b": [2]}), *films({"a": [1]}, "test")]
    row = small_sets.run_draw(tmp_path, tmp_path, videos, ["--hours", "0.1"])
    assert (row["films"], row["test"], row["train"], row["still"]["test"]) == (2, 50.0, 50.0, 40.0)
    assert commands[0][-2:] == ["--hours", "0.1"]
    listed = (tmp_path / "training_videos/split.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in listed[1:]] == ["test"] * 4
    monkeypatch.setattr(small_sets, "pvnas", lambda arguments: 2)
    with pytest.raises(UserError, match="`pvnas run` ended with exit code 2"):
        small_sets.run_draw(tmp_path, tmp_path, videos, [])


def moving_edge(step, frames=24):
    """A bright half whose vertical edge moves by ``step`` pixels a frame."""
    h, w = hand_made.SIZE
    edge_T = w / 2 + step * (torch.arange(frames) - frames / 2)
    return (torch.arange(w)[None, None] < edge_T[:, None, None]).float().expand(frames, h, w)


def test_still_features_see_an_edge_in_its_cells_and_bin_alone():
    h_THW = hand_made.still(moving_edge(0.0)).view(hand_made.ORIENTATIONS, *hand_made.STILL_CELLS)
    hit = h_THW > 0
    assert hit[0, 0, :, 4:6].all()  # gradient along x: bin 0; the edge lies between cells 4 and 5 of 10
    assert hit.sum() == hit[0, 0, :, 4:6].numel()


def test_motion_features_tell_a_motion_from_its_reverse_and_still_ones_do_not():
    right = moving_edge(1.0, frames=25)  # whose middle frame is one from both sides
    left = right.flip(0)
    assert hand_made.motion(right).shape == (20 * 4 * 6 * 8,)
    assert (hand_made.motion(right) - hand_made.motion(left)).norm() > 0.5 * hand_made.motion(right).norm()
    torch.testing.assert_close(hand_made.still(right), hand_made.still(left))


def test_directions_are_twenty_unit_vectors_evenly_spread():
    axes_B3 = hand_made.directions()
    torch.testing.assert_close(axes_B3 @ axes_B3.T @ axes_B3, 20 / 3 * axes_B3)
    torch.testing.assert_close(axes_B3.norm(dim=1), torch.ones(20))
    assert len({tuple(axis) for axis in axes_B3.tolist()}) == 20


def test_the_svm_is_the_one_that_can_be_solved_by_hand():
    # Two points at -1 and 1 (already mean 0, length 1): w and -w for the classes, no offset.
    # w^2/2 + 2 c (1 - w)^2 is smallest at w = 4 c / (1 + 4 c).
    x, labels = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    for c in (0.1, 2.0):
        svm = hand_made.LinearSVM(x, labels, 2, c)
        w = 4 * c / (1 + 4 * c)
        torch.testing.assert_close(svm.scores(torch.tensor([[1.0]])), torch.tensor([[-w, w]]), atol=1e-4, rtol=0)
        assert hand_made.accuracy(svm, x, labels) == 100.0
        assert hand_made.accuracy(svm, x, 1 - labels) == 0.0


def test_features_learn_the_classes_that_differ_in_a_frame(tiny_shapes):
    results = hand_made.accuracies(tiny_shapes, "still")
    assert results["videos"] == [32, 8, 8]
    assert results["train"] > 30  # of 12.5 by chance
    assert results["c"] in hand_made.CS
