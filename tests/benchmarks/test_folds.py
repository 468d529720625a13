"""Folds that never cut a film, errors that know of films, and runs that are neither mixed nor made twice."""

import json
import math
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import folds
from paired import clustered_mean, difference, error_over_runs, mean_over_seeds
from pvnas.config import DataConfig
from pvnas.data.listing import read_catalog
from pvnas.errors import UserError
from video_lists import Listed, list_options, listed_videos, write_list


def films(counts):
    """Videos of films named by their class and number: {"a": [3, 2]} is 3 videos of film a0 and 2 of a1."""
    return [
        Listed(f"{label}{film}_{i}.mp4", label, "train", f"{label}{film}")
        for label, numbers in counts.items()
        for film, n in enumerate(numbers)
        for i in range(n)
    ]


def test_folds_share_out_every_class_and_never_cut_a_film():
    videos = films({"a": [3, 2, 1], "b": [2, 2, 2]})
    fold_of = folds.make_folds(videos, 2, seed=0)
    by_fold = Counter((fold_of[v.group], v.label) for v in videos)
    assert sorted(by_fold[fold, "a"] for fold in (0, 1)) == [3, 3]  # 3 | 2 + 1 is the only even cut
    assert sorted(by_fold[fold, "b"] for fold in (0, 1)) == [2, 4]
    assert sorted(by_fold[fold, "a"] + by_fold[fold, "b"] for fold in (0, 1)) == [5, 7]
    assert folds.make_folds(videos[::-1], 2, seed=0) == fold_of  # whatever the order of the list
    assert len({tuple(folds.make_folds(videos, 2, seed).items()) for seed in range(8)}) > 1


@settings(derandomize=True, max_examples=25)
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 4), min_size=3, max_size=6), min_size=1),
    st.integers(0, 3),
)
def test_every_group_is_in_one_fold_and_no_class_is_missing_from_one(counts, seed):
    videos = films(counts)
    fold_of = folds.make_folds(videos, 3, seed)
    assert set(fold_of) == {v.group for v in videos}
    assert {(fold_of[v.group], v.label) for v in videos} == {(fold, label) for fold in range(3) for label in counts}
    lists = [folds.fold_list(videos, fold_of, fold) for fold in range(3)]
    assert Counter(v.path for each in lists for v in each if v.split == "test") == Counter(v.path for v in videos)
    assert all({v.split for v in each} == {"train", "test"} and len(each) == len(videos) for each in lists)
    for each in lists:
        assert not {v.group for v in each if v.split == "test"} & {v.group for v in each if v.split == "train"}


def test_more_folds_than_films_are_refused():
    with pytest.raises(UserError, match="4 folds need as many groups"):
        folds.make_folds(films({"a": [5, 1, 1]}), 4, seed=0)


def test_the_error_of_a_mean_counts_films_not_videos():
    right, group_of = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}, {"a": "x", "b": "x", "c": "y", "d": "z"}
    # Mean 1/2; the films' sums of deviations are 1, -1/2, -1/2: sqrt(3/2 * (1 + 1/4 + 1/4)) / 4 = 0.375
    assert clustered_mean(right, group_of) == pytest.approx((50.0, 37.5))
    assert clustered_mean(right, {name: name for name in right})[1] == pytest.approx(100 * math.sqrt(1 / 3) / 2)
    assert math.isnan(clustered_mean(right, dict.fromkeys(right, "x"))[1])


def test_a_paired_difference_is_mcnemars_where_every_film_has_one_video():
    names = [f"v{i}" for i in range(100)]
    ours = {name: float(i < 40) for i, name in enumerate(names)}  # 10 that the other has wrong
    theirs = {name: float(5 <= i < 30 or i >= 95) for i, name in enumerate(names)}
    paired = difference(ours, theirs)
    b, c = sum(v == 1 for v in paired.values()), sum(v == -1 for v in paired.values())
    assert (b, c) == (15, 5)
    mean, error = clustered_mean(paired, {name: name for name in names})
    assert mean == pytest.approx(10.0)
    n = 100
    assert error == pytest.approx(100 * math.sqrt((b + c - (b - c) ** 2 / n) / (n * (n - 1))))
    with pytest.raises(ValueError, match="different videos"):
        difference(ours, {"v0": 1.0})


def test_means_over_seeds_and_errors_over_runs():
    assert mean_over_seeds([{"a": 1.0, "b": 0.0}, {"a": 0.0}, {"b": 1.0, "a": 1.0}]) == {"a": 2 / 3, "b": 0.5}
    assert error_over_runs([1.0, 3.0]) == pytest.approx(1.0)


def test_a_fold_is_read_in_place_and_without_the_test_videos(tiny_shapes, tmp_path):
    everything = listed_videos(tiny_shapes)
    videos = [v for v in everything if v.split != "test"]
    assert len(everything) == 48
    assert len(videos) == 40
    fold_of = folds.make_folds(videos, 2, seed=0)
    path = folds.write_fold(tmp_path, videos, fold_of, 1)
    _, annotations, _, format, _, share = list_options(path)
    catalog = read_catalog(DataConfig(str(tiny_shapes), format, annotations=annotations, validation_share=float(share)))
    assert {(v.path, v.split) for v in catalog.videos} == {
        (v.path, "test" if fold_of[v.group] == 1 else "train") for v in videos
    }
    assert not catalog.missing()
    assert not list(tmp_path.rglob("*.mp4"))
    folds.write_fold(tmp_path, videos, fold_of, 1)
    with pytest.raises(UserError, match=r"split.csv holds another fold; type the same --folds"):
        folds.write_fold(tmp_path, videos[1:], fold_of, 1)
    assert path.read_text().count("\n") == 41


def test_segments_keep_their_seconds_in_a_list(tmp_path):
    part = Listed("a.mp4", "x", "val", "film", 1.5, 3.0)
    assert part.name == "a.mp4 [1.5-3 s]"
    path = write_list(tmp_path, [part, Listed("b.mp4", "y", "test", "=other")])
    assert path.read_text().splitlines()[1:] == ["a.mp4,x,val,film,1.5,3.0", "b.mp4,y,test,=other,,"]


def make_run(folder, recipe, fold, seed, right, words="train"):
    run = folds.make_run(folder, folder, recipe, words, folder / "split.csv", fold, seed)
    run.folder.mkdir(parents=True)
    rows = "".join(f"{name},{value}\n" for name, value in right.items())
    (run.folder / "predictions.csv").write_text("path,correct\n" + rows)
    (run.folder / "results.json").write_text('{"params": 2000000, "macs_per_view": 3e8, "seconds": {"train": 60}}')
    (run.folder / "metrics.jsonl").write_text('{"top1": 10.0}\n{"top1": 80.0}\n')
    return run


def test_recipes_are_compared_on_the_runs_that_both_have(tmp_path):
    group_of = {"a": "x", "b": "x", "c": "y", "d": "z"}
    runs = [
        make_run(tmp_path, "base", 0, 0, {"a": 1, "b": 0}),
        make_run(tmp_path, "base", 1, 0, {"c": 0, "d": 0}),
        make_run(tmp_path, "new", 0, 0, {"a": 1, "b": 1}),
        make_run(tmp_path, "new", 0, 1, {"a": 0, "b": 0}),
        make_run(tmp_path, "new", 1, 0, {"c": 1, "d": 0}),
    ]
    assert all(map(folds.is_finished, runs))
    report = folds.compare(["base", "new", "later"], runs, group_of)
    base, new, later = report["rows"]
    assert base["top1"] == clustered_mean({"a": 1, "b": 0, "c": 0, "d": 0}, group_of)
    assert new["top1"] == clustered_mean({"a": 0.5, "b": 0.5, "c": 1, "d": 0}, group_of)
    assert new["difference"] == clustered_mean({"a": 0, "b": 1, "c": 1, "d": 0}, group_of)
    assert (new["difference_runs"], new["difference_error_over_runs"]) == (2, 0.0)
    assert new["by_run"] == {"fold 0 seed 0": 100.0, "fold 0 seed 1": 0.0, "fold 1 seed 0": 50.0}
    assert (later["runs"], "top1" in later) == (0, False)
    lines = folds.table(json.loads(json.dumps(report))).splitlines()
    assert lines[2] == "| base | 2 | 25.0 ± 18.8 | – | 80.0 | 2.00 | 0.300 |"
    assert lines[3].startswith("| new | 3 | 50.0 ± 21.7 | +50.0 ± ")
    assert lines[-2] == "| new | 100.0 | 0.0 | 50.0 |"


def test_a_directory_of_another_recipe_is_refused(tmp_path):
    run = make_run(tmp_path, "base", 0, 0, {}, words="train --train.epochs 3")
    folds.write_atomic(run.folder / folds.COMMAND_FILE, folds.shlex.join(run.command) + "\n")
    assert folds.is_finished(run)
    other = folds.make_run(tmp_path, tmp_path, "base", "train --train.epochs 4", tmp_path / "split.csv", 0, 0)
    with pytest.raises(UserError, match=r"holds another recipe \(see command.txt\); name this one otherwise"):
        folds.is_finished(other)
    assert run.command[:3] == ["-m", "pvnas", "train"]
    assert run.command[-8:-6] == ["--threads", "1"]


def test_the_first_run_that_fails_ends_the_others(tmp_path, capsys):
    def run(name, program):
        return folds.Run(name, 0, 0, tmp_path / name, ["-c", program])

    assert folds.run_all([run("good", "print('done')"), run("too", "pass")], 2) == 0
    assert (tmp_path / "good" / "log.txt").read_text() == "done\n"
    slow = run("slow", "import time; time.sleep(60)")
    assert folds.run_all([slow, run("bad", "raise SystemExit(2)"), run("never", "pass")], 2) == 2
    assert not (tmp_path / "never").exists()
    assert "bad ended with 2; see " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "- a", "a: 3", "a: walk --x 1", "a/b: run"])
def test_recipes_of_another_kind_are_refused(tmp_path, text):
    path = tmp_path / "recipes.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"recipes.yaml.* (holds no recipes|is no recipe)"):
        folds.read_recipes(path)
    path.write_text("a: run --preset tiny\nb: train --peer residual --macs 1e6\n")
    assert list(folds.read_recipes(path)) == ["a", "b"]


def test_without_a_file_of_recipes_the_script_ends_in_one_line(tiny_shapes, tmp_path, monkeypatch, capsys):
    words = ["folds.py", str(tiny_shapes), str(tmp_path / "out"), "--recipes", str(tmp_path / "none.yaml")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        folds.in_one_line(folds.main)
    assert "folds.py: error: no config file" in capsys.readouterr().err
