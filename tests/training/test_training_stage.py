"""The training stage, validation, the test over views, and what they write."""

import csv
import json
import os
import signal
import time

import pytest
import torch

from augmentations import EVERY_AUGMENTATION
from catalogs import read_catalog
from overwriting import Overwriting
from pvnas.config import BatchConfig, ClipConfig, RunConfig
from pvnas.data.clips.augment import flipped_labels
from pvnas.data.clips.loader import test_batches as view_batches
from pvnas.data.clips.network_input import network_input
from pvnas.data.dataset import VideoDataset
from pvnas.fast.training_cell import FastTrainingCell
from pvnas.presets import tiny
from pvnas.runtime.checkpoint import digest, load_checkpoint
from pvnas.runtime.loop import run_epochs
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import Interrupted, StopRequest
from pvnas.space.genotype import random_genotype
from pvnas.training import stage as stage_module
from pvnas.training.evaluate import score_table, score_views, validate
from pvnas.training.log import EpochLog
from pvnas.training.results import write_results
from pvnas.training.stage import TrainStage, derived_network

CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def small_config() -> RunConfig:
    config = tiny()
    config.clip.frames, config.train.width, config.train.layout = 2, 2, "S-NC T-RC"
    config.train.dropout, config.train.drop_path = 0.3, 0.2
    config.train.augment.short_side_min, config.train.augment.short_side_max, config.train.augment.crop = 14, 16, 12
    config.test.short_side, config.test.crop, config.test.spatial_views = 16, 12, 3
    return config


@pytest.fixture(scope="module")
def sources(tiny_shapes):
    catalog, config = read_catalog(tiny_shapes), tiny()
    parts = [VideoDataset(catalog.select(split), config.data, 16) for split in ("train", "val", "test")]
    for part in parts:
        part.prepare_cache()
    return parts


def make_stage(sources, run_dir, config=None, device=CPU):
    log = EpochLog(run_dir, Progress(), tensorboard=False)
    config, classes = config or small_config(), len(sources[0].catalog.classes)
    network = derived_network(config, random_genotype(3), classes)
    return TrainStage(config, network, *sources[:2], device, log)


def run(sources, run_dir, stop=None, config=None):
    stage = make_stage(sources, run_dir, config)
    folder = run_dir / "checkpoints"
    run_epochs(stage, folder, load_checkpoint(folder), stop or StopRequest(), Progress(), checkpoint_minutes=99)
    return stage


@pytest.mark.parametrize("shards", [1, 2])
def test_steps_by_fast_cells_equal_those_by_plain_ones(sources, tmp_path, monkeypatch, shards):
    config = small_config()
    config.train.batch.shards = shards
    stages = [make_stage(sources, tmp_path / "fast", config)]
    assert all(isinstance(cell, FastTrainingCell) for cell in stages[0].network.cells)
    monkeypatch.setattr(stage_module, "accelerate_training", lambda network: network)
    stages.append(make_stage(sources, tmp_path / "plain", config))
    for stage in stages:
        for step in range(2):
            stage.step(1, step, next(stage.batches(1, step)))
    fast, plain = (stage.tensors() for stage in stages)
    assert list(fast) == list(plain)
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_stopped_training_resumes_at_its_step_and_ends_in_the_same_bits(sources, tmp_path, stop_after):
    whole = run(sources, tmp_path / "whole")
    with pytest.raises(Interrupted, match="nothing is lost"):
        run(sources, tmp_path / "parts", stop_after(5))
    resumed = run(sources, tmp_path / "parts")
    assert digest(resumed.tensors(), None) == digest(whole.tensors(), None)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert len(lines[0]["loss_per_class"]) == 8


def recipe_config(**train) -> RunConfig:
    """Everything that the training remembers beside weights and momentum, and everything that is drawn for a clip."""
    config = small_config()
    config.clip.input = "both"
    for name, value in EVERY_AUGMENTATION.items():
        setattr(config.train.augment, name, value)
    config.train.ema, config.train.balance, config.train.weights.decay_on = 0.9, "groups", "kernels"
    for name, value in train.items():
        setattr(config.train, name, value)
    return config


def test_a_training_by_the_whole_recipe_resumes_in_the_same_bits_with_any_workers(sources, tmp_path, stop_after):
    whole = run(sources, tmp_path / "whole", config=recipe_config())
    config = recipe_config()
    config.data.workers = 2
    with pytest.raises(Interrupted, match=r"in epoch 1 after step 5"):
        run(sources, tmp_path / "parts", stop_after(4), config)
    resumed = run(sources, tmp_path / "parts", config=recipe_config())
    assert resumed.average.steps == whole.average.steps == 16
    assert digest(resumed.tensors(), None) == digest(whole.tensors(), None)
    plain = run(sources, tmp_path / "plain", config=recipe_config(ema=0.0))
    named = {name: tensor for name, tensor in whole.tensors().items() if not name.startswith("average/")}
    assert digest(plain.tensors(), None) == digest(named, None)  # the average changes nothing of the training
    assert digest(whole.tensors(), None) != digest(named, None)  # and is part of what a digest stands for


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_recorded_steps_draw_what_others_do_and_change_no_bit(sources, tmp_path, device):
    """On a CPU by what gives the same tensors again, on a GPU by its graphs."""
    config, found = recipe_config(batch=BatchConfig(shards=1, clips_per_shard=8)), []
    for recorded in (True, False):
        stage = make_stage(sources, tmp_path, config, torch.device(device))
        if device == "cpu":
            assert stage.graphs is None
            stage.graphs = Overwriting()
        stage.graphs = stage.graphs if recorded else None
        losses = [
            stage.step(0, step, batch)["loss"] for step, batch in zip(range(4), stage.batches(0, 0), strict=False)
        ]
        found.append([*losses, *stage.tensors().values()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@NEEDS_GPU
@pytest.mark.parametrize("switch, shards", [(False, 1), (True, 2)])
def test_steps_are_not_recorded_where_the_config_or_several_streams_forbid_it(sources, tmp_path, switch, shards):
    config = small_config()
    config.train.graphs, config.train.batch.shards = switch, shards
    assert make_stage(sources, tmp_path, config, torch.device("cuda")).graphs is None


def test_the_average_of_weights_and_statistics_by_hand_is_what_is_validated(sources, tmp_path):
    stage = make_stage(sources, tmp_path, recipe_config(ema=0.2))
    expected = {name: tensor.double() for name, tensor in stage.network.state_dict().items()}
    batches = stage.batches(0, 0)
    for step in range(4):
        stage.step(0, step, next(batches))
        share = min(0.2, (1 + step) / (10 + step))
        for name, tensor in stage.network.state_dict().items():
            expected[name] = share * expected[name] + (1 - share) * tensor.double()
    found = stage.trained.state_dict()
    names = [name for name, tensor in found.items() if tensor.is_floating_point()]
    assert {"classifier.bias", "stem.1.running_var"} <= set(names)
    for name in names:
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(found[name], stage.network.state_dict()[name]) for name in names)
    sums = stage.step(0, 4, next(batches))
    stage.end_epoch(2, sums, {"seconds": 1.0, "wait": 0.0})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    measures = validate(stage.average.network, sources[1], stage.config, stage.config.train.augment, CPU)
    assert {name: line[name] for name in measures} == measures
    raw = validate(stage.network, sources[1], stage.config, stage.config.train.augment, CPU)
    assert line["val_loss"] != raw["val_loss"]


def test_every_nth_epoch_and_the_last_are_validated(sources, tmp_path):
    run(sources, tmp_path, config=recipe_config(epochs=5, validate_every=2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "val_top1" in line] == [2, 4, 5]


@pytest.mark.parametrize("call, where", [(30, "in epoch 1 after step"), (-1, "in the validation after epoch 1")])
def test_a_stop_in_a_wait_for_videos_ends_it_and_loses_nothing(call, where, sources, tmp_path, monkeypatch):
    """A signal while a clip is read: of a training step, or (the first video of that part) of the validation."""
    whole = run(sources, tmp_path / "whole")
    frames, calls = VideoDataset.frames, []

    def signalled(videos, *args):
        calls.append(videos)
        if len(calls) == call or (call < 0 and videos is sources[1]):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return frames(videos, *args)

    with monkeypatch.context() as patch, StopRequest() as stop:
        patch.setattr(VideoDataset, "frames", signalled)
        with pytest.raises(Interrupted, match=where):
            run(sources, tmp_path / "parts", stop)
    resumed = run(sources, tmp_path / "parts")
    assert digest(resumed.tensors(), None) == digest(whole.tensors(), None)
    lines = [
        [{k: v for k, v in json.loads(line).items() if k in ("epoch", "loss", "val_loss", "lr")} for line in text]
        for text in ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts"))
    ]
    assert lines[0] == lines[1]


def test_validation_equals_a_plain_loop_over_the_videos(sources, tmp_path):
    stage = make_stage(sources, tmp_path)
    config = stage.config
    measures = validate(stage.network, sources[1], config, config.train.augment, CPU)
    again = validate(stage.network, sources[1], config, config.train.augment, CPU)
    assert measures == again
    assert set(measures) == {"val_loss", "val_top1", "val_top5"}
    assert measures["val_top1"] in [12.5 * k for k in range(9)]
    empty = VideoDataset(sources[1].catalog.without({v.path for v in sources[1].catalog.videos}), config.data, 16)
    assert validate(stage.network, empty, config, config.train.augment, CPU) == {}


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_scores_are_the_mean_over_all_views(average, sources, tmp_path):
    stage = make_stage(sources, tmp_path)
    stage.config.test.average = average
    scores = score_views(stage.network, sources[2], stage.config, CPU)
    views = stage.config.test.temporal_views * stage.config.test.spatial_views
    expected = torch.zeros(8, 8, dtype=torch.float64)
    stage.network.eval()
    for batch in view_batches(sources[2], stage.config.clip, stage.config.test, 1, rows=None, workers=0):
        with torch.no_grad():
            one = stage.network(network_input(batch.clips_NCTHW, ClipConfig())).double()[0]
        expected[int(batch.videos_N)] += (one.softmax(0) if average == "softmax" else one) / views
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-6)


def test_mirrored_views_count_for_the_classes_that_they_show(sources, tmp_path):
    stage = make_stage(sources, tmp_path)
    clip, test = stage.config.clip, stage.config.test
    stage.network.eval()
    expected = torch.zeros(8, 8, dtype=torch.float64)
    for batch in view_batches(sources[2], clip, test, 1, rows=None, workers=0):  # not mirrored
        with torch.no_grad():
            seen, mirrored = (
                stage.network(network_input(clips, clip)).double().softmax(1)[0]
                for clips in (batch.clips_NCTHW, batch.clips_NCTHW.flip(-1))
            )
        shown = mirrored[list(flipped_labels(sources[2].catalog.classes, "swap"))]
        expected[int(batch.videos_N)] += (seen + shown) / (2 * test.temporal_views * test.spatial_views)
    stage.config.test.flip = "swap"
    scores = score_views(stage.network, sources[2], stage.config, CPU)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
    results = write_results(tmp_path, sources[2], scores, stage.config, {})
    assert (results["views"], results["mirrored_views"]) == (12, True)


def test_a_score_table_by_hand():
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.5, 0.1, 0.4]])
    table = score_table(scores, torch.tensor([0, 1, 1, 2]), ("a", "b", "c"))
    assert table["top1"] == 50.0
    assert table["mean_class"] == 50.0  # 100, 50 and 0 %
    assert (table["top5"], table["k"]) == (100.0, 3)
    assert table["confusion"] == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert table["class_accuracy"] == [100.0, 50.0, 0.0]
    assert table["top1_interval"] == [15.0, 85.0]
    assert table["n_classes_tested"] == 3
    none = score_table(scores[:0], torch.tensor([], dtype=torch.int64), ("a", "b", "c"))
    assert [none[name] for name in ("top1", "top5", "mean_class", "top1_interval")] == [None] * 4
    assert score_table(scores[:1], torch.tensor([0]), ("a", "b", "c"))["class_accuracy"] == [100.0, None, None]


def test_what_a_test_writes(sources, tmp_path):
    stage = make_stage(sources, tmp_path)
    scores = score_views(stage.network, sources[2], stage.config, CPU)
    results = write_results(tmp_path, sources[2], scores, stage.config, {"n_failed": 3})
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (results["n_videos"], results["n_failed"], results["views"]) == (8, 3, 6)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(rows) == 8
    correct = sum(int(row["correct"]) for row in rows)
    assert results["top1"] == round(100 * correct / 8, 2)
    for row in rows:
        by_class = {name: float(row[name]) for name in results["classes"]}
        assert max(by_class, key=by_class.get) == row["prediction"]
        assert sum(by_class.values()) == pytest.approx(1.0, abs=1e-4)
    samples = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert len(samples) == 8
    assert all((tmp_path / "samples" / sample["file"]).stat().st_size > 100 for sample in samples)
    mistakes = json.loads((tmp_path / "samples" / "mistakes.json").read_text())
    wrong = [row for row in rows if row["correct"] == "0"]
    assert sorted(mistake["path"] for mistake in mistakes) == sorted(row["path"] for row in wrong)
    assert [mistake["score"] for mistake in mistakes] == sorted((float(row["score"]) for row in wrong), reverse=True)
    assert all((tmp_path / "samples" / mistake["file"]).stat().st_size > 100 for mistake in mistakes)
    right = torch.eye(len(results["classes"]))[[video.label for video in sources[2].catalog.videos]]
    write_results(tmp_path, sources[2], right, stage.config, {"n_failed": 3})
    assert json.loads((tmp_path / "samples" / "mistakes.json").read_text()) == []
    assert not list((tmp_path / "samples").glob("mistake-*.png")), "of an earlier test none is left"
