"""The main job as processes: what a finished run holds, and that kills anywhere change no bit of it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from pvnas import pipeline
from pvnas.api import default_run_dir
from pvnas.data.dataset import list_videos, open_videos
from pvnas.data.pack import pack_videos
from pvnas.data.readable import load_videos as load_opened
from pvnas.deploy.predictions import predictions
from pvnas.errors import UserError
from pvnas.fast.kernels.choice import kernel_facts
from pvnas.presets import tiny
from pvnas.runtime.checkpoint import load_checkpoint, load_tensors
from pvnas.runtime.progress import Progress
from pvnas.session import _read_results, run_digest
from pvnas.settings import load_config
from pvnas.space.genotype import Genotype, random_genotype
from pvnas.training.log import read_metrics
from pvnas.training.outcome import lacks

SMALL = (
    "--search.layout=S-NC T-RC",
    "--search.width=2",
    "--train.layout=S-NC*K T-RC",
    "--train.width=2",
    "--clip.frames=2",
    "--tensorboard=false",
)


def load_videos(config, run_dir, progress, device):
    return load_opened(open_videos(config.data, config.seed), config, run_dir, progress, device)


def start(videos, run_dir, *options):
    command = [sys.executable, "-m", "pvnas", "run", str(videos), "--preset", "tiny", "--dir", str(run_dir)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *SMALL, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(tiny_shapes, tmp_path_factory):
    """A run that nothing interrupts."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(start(tiny_shapes, run_dir))
    assert code == 0, err
    assert str(run_dir / "report.html") in out
    return run_dir


def test_a_finished_run_holds_what_every_later_tool_reads(whole):
    names = {path.name for path in whole.iterdir()}
    assert {
        "config.yaml",
        "genotype.json",
        "genotypes",
        "alphas.safetensors",
        "metrics.jsonl",
        "results.json",
        "predictions.csv",
        "checkpoints",
        "figures",
        "report.html",
        "model.safetensors",
        "model.json",
        "verdicts.json",
        "environment.json",
    } <= names
    machine = json.loads((whole / "environment.json").read_text())
    assert {name: machine[name] for name in ("kernels", "kernels_selftest")} == kernel_facts(torch.device("cpu"))
    results = json.loads((whole / "results.json").read_text())
    assert {"top1", "top5", "mean_class", "n_videos", "n_failed", "views", "params", "macs_per_view", "classes"} <= set(
        results
    )
    assert results["digest"] == run_digest(whole)
    assert (results["n_videos"], results["n_failed"], results["views"]) == (8, 0, 2)
    rows = list(csv.DictReader((whole / "predictions.csv").open()))
    assert results["top1"] == pytest.approx(100 * sum(int(row["correct"]) for row in rows) / len(rows), abs=0.01)
    stages = [(line["stage"], line["epoch"]) for line in map(json.loads, (whole / "metrics.jsonl").open())]
    assert stages == [("search", 1), ("search", 2), ("train", 1), ("train", 2)]
    assert Genotype.load(whole / "genotype.json") == Genotype.load(whole / "genotypes" / "epoch_002.json")
    config = load_config(file=whole / "config.yaml")
    assert (config.preset, config.search.width, config.clip.frames) == ("tiny", 2, 2)
    weights = load_tensors(whole / "model.safetensors")
    last = load_checkpoint(whole / "checkpoints" / "train").tensors
    assert all(bool((weights[name] == last[f"network/{name}"]).all()) for name in weights)


def test_the_same_command_again_keeps_everything(whole, tiny_shapes):
    before = {p.name: p.read_bytes() for p in whole.iterdir() if p.is_file() and p.suffix in (".json", ".safetensors")}
    code, _, err = finish(start(tiny_shapes, whole))
    assert code == 0
    assert "finished before" in err
    for name in before.keys() - {"environment.json"}:
        assert (whole / name).read_bytes() == before[name], name


def wait_for(folder, n, process):
    """Wait until the folder holds n checkpoints that were ever begun, or the process ends."""
    while process.poll() is None:
        numbers = [int(p.name[:6]) for p in folder.glob("[0-9]*-*")] if folder.is_dir() else []
        if numbers and max(numbers) >= n:
            return
        time.sleep(0.02)


def test_kills_in_search_and_training_change_no_bit(whole, tiny_shapes, tmp_path):
    run_dir = tmp_path / "run"
    for stage in ("search", "train"):
        process = start(tiny_shapes, run_dir, "--checkpoint_minutes=0.0001")
        wait_for(run_dir / "checkpoints" / stage, 5, process)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        step = load_checkpoint(run_dir / "checkpoints" / stage).state["step"]
        assert step > 0, "the kill should fall inside an epoch"
    code, _, err = finish(start(tiny_shapes, run_dir))
    assert code == 0, err
    assert "train: resumes" in err
    assert run_digest(run_dir) == run_digest(whole)
    for name in ("genotype.json", "predictions.csv", "model.safetensors", "alphas.safetensors"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes(), name
    assert not [path for path in run_dir.rglob("*") if "tmp" in path.name]


def test_sigterm_exits_75_and_the_same_command_goes_on(whole, tiny_shapes, tmp_path):
    run_dir = tmp_path / "run"
    process = start(tiny_shapes, run_dir)
    while not (run_dir / "alphas.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 75
    assert "nothing is lost" in err
    assert finish(start(tiny_shapes, run_dir))[0] == 0
    assert run_digest(run_dir) == run_digest(whole)


def test_the_folder_of_the_videos_is_no_run_directory(tiny_shapes):
    config = load_config("tiny")
    config.data.path = str(tiny_shapes)
    before = sorted(tiny_shapes.rglob("*"))
    with pytest.raises(UserError, match="is the folder of the videos; name a run directory of its own with --dir"):
        pipeline.search(config, str(tiny_shapes))
    assert sorted(tiny_shapes.rglob("*")) == before


def test_another_set_is_tested_by_paths_as_texts_too(tiny_shapes, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: no trained model there"):
        pipeline.test_on(load_config("tiny"), str(tmp_path), str(tmp_path / "out"))


def test_default_run_directory():
    config = tiny()
    config.data.path = "some/where/my videos/"
    assert str(default_run_dir(config)) == "runs/my videos-tiny"


def test_a_bad_video_is_named_and_left_out_or_the_run_refused(tiny_shapes, tmp_path, capsys):
    videos = tmp_path / "videos"
    shutil.copytree(tiny_shapes, videos)
    rows = list(csv.DictReader((videos / "split.csv").open()))
    bad = {split: next(row["path"] for row in rows if row["split"] == split) for split in ("train", "test")}
    for path in bad.values():
        (videos / path).write_bytes(b"this is no video")
    config = tiny()
    config.data.path = str(videos)
    with pytest.raises(UserError, match="more than max_bad_share"):
        load_videos(config, tmp_path, Progress(), torch.device("cpu"))
    config.data.max_bad_share = 0.1
    loaded = load_videos(config, tmp_path, Progress(), torch.device("cpu"))
    assert "2 of 48 videos cannot be read" in capsys.readouterr().err
    assert loaded.test_excluded == 1
    sources = (loaded.train, loaded.validation, loaded.test)
    assert [len(source.catalog.videos) for source in sources] == [31, 8, 7]
    assert not set(bad.values()) & {video.path for source in sources for video in source.catalog.videos}
    assert json.loads((tmp_path / "catalog.json").read_text())["excluded"] == 2
    listed = {row["path"]: row["verdict"] for row in csv.DictReader((tmp_path / "verdicts.csv").open())}
    assert {listed[path] for path in bad.values()} == {"unreadable"}


def test_what_becomes_of_flips_is_told_where_classes_have_a_side(tiny_shapes, tmp_path, capsys):
    config = tiny()
    config.data.path, config.train.augment.flip = str(tiny_shapes), "true"
    load_videos(config, tmp_path, Progress(), torch.device("cpu"))
    err = capsys.readouterr().err
    assert "warning: train: flips are on" in err
    assert "--train.augment.flip false" in err
    assert "search: " not in err  # its flips are off
    config.train.augment.flip = config.search.augment.flip = "swap"
    load_videos(config, tmp_path, Progress(), torch.device("cpu"))
    assert "search: flips swap the labels of 2 pairs of classes" in capsys.readouterr().err


def test_a_run_on_a_pack_has_the_videos_and_splits_of_the_files_it_was_made_of(tiny_shapes, tmp_path, capsys):
    flat = tmp_path / "flat"
    shutil.copytree(tiny_shapes, flat, ignore=lambda folder, names: ["split.csv"])
    config = tiny()
    config.data.path, config.data.cache = str(flat), "none"
    listed = list_videos(config.data)
    pack_videos(listed, tmp_path / "pack", short_side=28)
    of_files = load_videos(config, tmp_path, Progress(), torch.device("cpu"))
    config.data.path = str(tmp_path / "pack")
    of_pack = load_videos(config, tmp_path, Progress(), torch.device("cpu"))
    for name in ("train", "validation", "test"):
        from_files, from_pack = getattr(of_files, name), getattr(of_pack, name)
        assert list(from_pack.catalog.videos) == list(from_files.catalog.videos)
        every = lambda times_T, duration: np.arange(len(times_T))  # noqa: E731
        difference = from_files.frames(0, every).int() - from_pack.frames(0, every).int()
        assert difference.abs().float().mean() < 4
    assert len(of_files.train) > len(of_files.test) > 0


def test_a_run_on_a_pack_goes_through_to_its_report_without_the_bad_video(tiny_shapes, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(tiny_shapes, videos)
    rows = csv.DictReader((videos / "split.csv").open())
    bad = next(row["path"] for row in rows if row["split"] == "test")
    (videos / bad).write_bytes(b"this is no video")
    config = tiny()
    config.data.path = str(videos)
    pack_videos(list_videos(config.data), tmp_path / "pack", short_side=28, videos_per_shard=7, max_bad_share=0.1)
    options = ("--data.cache=none", "--data.order=shards", "--data.workers=1")
    code, _, err = finish(start(tmp_path / "pack", tmp_path / "run", *options))
    assert code == 0, err
    assert "1 of 48 videos cannot be read and are left out: see the pack's pack.json" in err
    assert "waiting for data" in err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["n_videos"], results["n_failed"]) == (7, 1)
    assert all(len(line["loss_per_class"]) == 8 for line in read_metrics(tmp_path / "run" / "metrics.jsonl"))
    assert bad not in (tmp_path / "run" / "predictions.csv").read_text()
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_without_test_and_validation_videos_finishes_and_says_so(tiny_shapes, tmp_path):
    videos, run_dir = tmp_path / "videos", tmp_path / "run"
    for path in list(tiny_shapes.glob("grow/*"))[:3] + list(tiny_shapes.glob("shrink/*"))[:1]:
        (videos / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, videos / path.parent.name)
    shares = ("--data.test_share=0", "--data.validation_share=0", "--search.epochs=1", "--train.epochs=1")
    for again in (False, True):
        code, out, err = finish(start(videos, run_dir, *shares))
        assert code == 0, err
        assert ("finished before" in err) is again
        for words in ("there are no test videos", "--data.test_share 0.2", "--data.validation_share 0.15"):
            assert words in out
        assert "top-1" not in out
    results = json.loads((run_dir / "results.json").read_text())
    assert (results["n_videos"], results["n_validation"], results["n_failed"]) == (0, 0, 0)
    assert [results[name] for name in ("top1", "top5", "mean_class", "class_accuracy")] == [
        None,
        None,
        None,
        [None] * 2,
    ]
    assert (run_dir / "predictions.csv").read_text() == "path,label,prediction,correct,score,grow,shrink\n"
    page = (run_dir / "report.html").read_text()
    assert "There are no test videos" in page
    assert "There are no validation videos" in page
    assert "could not be made" not in page


def test_a_network_may_be_trained_on_validation_videos_and_tested_mirrored(tiny_shapes, tmp_path, capsys):
    """And predictions of its model see what the test saw."""
    run_dir = tmp_path / "run"
    small = dict(option.removeprefix("--").split("=", 1) for option in SMALL)
    recipe = {"train.final_on": "train+validation", "train.ema": 0.9, "train.epochs": 1, "train.balance": "groups"}
    mirrored = {"train.augment.flip": "swap", "test.flip": "swap", "data.path": str(tiny_shapes)}
    fields = small | recipe | mirrored
    results = pipeline.train(load_config("tiny", overrides=fields), run_dir, random_genotype(3))
    counted = [results[name] for name in ("n_trained_on", "n_validation", "n_validation_trained_on")]
    assert counted == [40, 0, 8]
    assert (results["views"], results["mirrored_views"]) == (4, True)
    assert results["macs_per_video"] == 4 * results["macs_per_view"]
    err = capsys.readouterr().err
    assert "train: on 40 videos, 8 of validation among them; none is left to validate on" in err
    (line,) = read_metrics(run_dir / "metrics.jsonl")
    assert not [name for name in line if name.startswith("val_")]
    (said,) = lacks(results)
    assert said.startswith("the 8 validation videos were trained on, too")
    page = (run_dir / "report.html").read_text()
    assert said[1:] in page
    assert "2 in time × 1 in space, and each mirrored" in page
    weights = load_tensors(run_dir / "model.safetensors")
    last = load_checkpoint(run_dir / "checkpoints" / "train").tensors
    assert all(bool((weights[name] == last[f"average/{name}"]).all()) for name in weights)
    rows = list(csv.DictReader((run_dir / "predictions.csv").open()))[:2]
    found = list(predictions([tiny_shapes / row["path"] for row in rows], run_dir, top=8))
    for row, prediction in zip(rows, found, strict=True):
        assert all(score == pytest.approx(float(row[name]), abs=2e-3) for name, score in prediction.classes)


@pytest.mark.parametrize("text", ["[]", "{"])
def test_results_that_are_none_are_one_line(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results.json holds no results; write it again with: pvnas test"):
        _read_results(tmp_path / "results.json")
