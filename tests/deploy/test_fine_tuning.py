"""A training that begins with the body of a trained network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import pvnas
from pvnas.cli import main
from pvnas.deploy.model import load_model
from pvnas.errors import UserError
from pvnas.runtime.checkpoint import load_tensors, save_tensors
from pvnas.session import run_digest
from pvnas.settings import load_config
from pvnas.training.stage import HEAD

FEW = {"tensorboard": False, "train.epochs": 1, "train.batch.clips_per_shard": 8}


@pytest.fixture(scope="module")
def other_set(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three of the classes, as a set of its own."""
    folder = tmp_path_factory.mktemp("other") / "three"
    for split in sorted(tiny_shapes.iterdir()):
        for name in sorted(path for path in split.iterdir() if path.is_dir())[:3] if split.is_dir() else ():
            shutil.copytree(name, folder / split.name / name.name)
    if not any(folder.rglob("*.mp4")):
        for name in sorted(path for path in tiny_shapes.iterdir() if path.is_dir())[:3]:
            shutil.copytree(name, folder / name.name, dirs_exist_ok=True)
    return folder


def tuned(folder: Path, videos: Path, run_dir: Path, **fields: object) -> dict[str, torch.Tensor]:
    pvnas.train(videos, run_dir, origin=folder, preset="tiny", overrides=FEW | fields)
    return load_tensors(run_dir / "model.safetensors")


def test_geometry_and_clips_are_the_networks_and_the_head_is_new(
    of_both: Path, other_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = load_model(of_both)
    run_dir = tmp_path / "run"
    results = pvnas.train(other_set, run_dir, origin=of_both, preset="tiny", overrides=FEW)
    said = capsys.readouterr().err
    body = [name for name in origin.network.state_dict() if not name.startswith(HEAD)]
    assert (
        f"{len(body)} tensors are those of {of_both.name} (8 classes); new: classifier.weight, classifier.bias" in said
    )
    config, model = load_config(file=run_dir / "config.yaml"), load_model(run_dir)
    assert config.clip == origin.config.clip
    assert config.network == origin.config.network
    assert model.genotype == origin.genotype
    assert len(model.classes) == 3
    assert (results["origin"], len(results["origin_digest"])) == (of_both.name, 64)
    moved = {name for name, tensor in origin.network.state_dict().items() if name in body}
    now = load_tensors(run_dir / "model.safetensors")
    assert any(not torch.equal(now[name], origin.network.state_dict()[name]) for name in moved)  # it was trained
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert f"The training began with the body of <code>{of_both.name}</code>" in page


@pytest.mark.parametrize(("freeze", "still"), [("body", "all"), ("norms", "norms")])
def test_what_is_frozen_keeps_still(
    model_folder: Path, other_set: Path, tmp_path: Path, freeze: str, still: str
) -> None:
    before = load_model(model_folder).network.state_dict()
    after = tuned(model_folder, other_set, tmp_path / "run", **{"train.freeze": freeze, "train.ema": 0.5})
    network = load_model(model_folder).network
    norms = {name for name, layer in network.named_modules() if isinstance(layer, torch.nn.BatchNorm3d)}
    for name, tensor in before.items():
        if name.startswith(HEAD):
            continue
        is_still = still == "all" or name.rpartition(".")[0] in norms
        if is_still:
            assert torch.equal(after[name], tensor), name
    kernels = [name for name in before if name.rpartition(".")[0] not in norms and not name.startswith(HEAD)]
    assert all(torch.equal(after[name], before[name]) for name in kernels) == (still == "all")


def test_a_slow_body_learns_slower_than_the_head(model_folder: Path, other_set: Path, tmp_path: Path) -> None:
    before = load_model(model_folder).network.state_dict()
    ways = {}
    for factor in (1.0, 0.01):
        after = tuned(model_folder, other_set, tmp_path / f"run-{factor}", **{"train.body_lr": factor, "threads": 1})
        kernels = [name for name in before if name.startswith("stem.0")]
        ways[factor] = sum(float((after[name] - before[name]).norm()) for name in kernels)
    assert 0 < ways[0.01] < 0.1 * ways[1.0]


def test_a_stopped_one_goes_on_without_the_origin_and_its_digest_has_it(
    model_folder: Path, other_set: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "origin"
    shutil.copytree(model_folder, folder)
    tuned(folder, other_set, tmp_path / "whole", **{"train.epochs": 2, "threads": 1})
    tuned(folder, other_set, tmp_path / "begun", **{"train.epochs": 2, "threads": 1})
    for name in ("model.safetensors", "results.json"):  # as after a stop in the last epoch
        (tmp_path / "begun" / name).unlink()
    newest = max((tmp_path / "begun" / "checkpoints" / "train").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    shutil.rmtree(folder)
    config = load_config(file=tmp_path / "begun" / "config.yaml")
    pvnas.train(config, tmp_path / "begun")
    assert run_digest(tmp_path / "begun") == run_digest(tmp_path / "whole")
    (tmp_path / "whole" / "origin.json").unlink()
    assert run_digest(tmp_path / "begun") != run_digest(tmp_path / "whole")


def test_mistakes_are_one_line(
    model_folder: Path, of_both: Path, other_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert main(["train", str(other_set), *words, "--preset", "tiny"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    run = ("--dir", str(tmp_path / "run"))
    says = refused(*run, "--from", str(of_both), "--clip.input", "rgb")
    assert "clip.input is both in the network that this training begins with, not rgb; leave it away" in says
    assert "train.width is 4 in the network" in refused(*run, "--from", str(of_both), "--train.width", "6")
    assert "is no run directory (it holds no model.json)" in refused(*run, "--from", str(tmp_path))
    genotype = str(tmp_path / "genotype.json")
    assert "--from brings its own genotype" in refused(*run, "--from", str(of_both), "--genotype", genotype)
    Path(genotype).write_text(pvnas.random_genotype(0).to_json())
    says = refused(*run, "--genotype", genotype, "--train.freeze", "body")
    assert "train.freeze and train.body_lr are for a body that was trained: pvnas train DATA --from RUN" in says
    assert not (tmp_path / "run").exists()
    tuned(model_folder, other_set, tmp_path / "run")
    capsys.readouterr()
    fields = [f"--{name}={value}" for name, value in FEW.items()]
    assert "holds a run of another config" in refused(*run, "--from", str(of_both), *fields)
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    tensors = load_tensors(other / "model.safetensors")
    save_tensors(other / "model.safetensors", {name: tensor + 1 for name, tensor in tensors.items()})
    assert main(["train", str(other_set), *run, "--from", str(other), "--preset", "tiny", *fields]) == 2
    assert f"began with another network ({model_folder.name}) than {other}" in capsys.readouterr().err
    shutil.rmtree(other)
    says = refused(*run, "--from", str(other), *fields)
    assert f"go on with: pvnas train DATA --config {tmp_path}/run/config.yaml" in says
    (tmp_path / "wide.yaml").write_text("train: {width: 24}\n")
    with pytest.raises(UserError, match=r"train\.width is 4 in the network"):
        pvnas.train(other_set, tmp_path / "x", origin=of_both, preset="tiny", config=tmp_path / "wide.yaml")
    fit = {"budget.width": "fit", "budget.macs": "1M"}
    with pytest.raises(UserError, match=r"leave budget\.width away"):
        pvnas.train(other_set, tmp_path / "x", origin=of_both, preset="tiny", overrides=fit)
    with pytest.raises(UserError, match=r"train\.freeze and train\.body_lr are for a body"):
        pvnas.search(other_set, tmp_path / "x", preset="tiny", overrides={"train.freeze": "body"})
    about = json.loads((tmp_path / "run" / "origin.json").read_text())
    (tmp_path / "run" / "origin.json").write_text(json.dumps(about | {"version": 99}))
    (tmp_path / "run" / "results.json").unlink()
    assert "cannot read what the training begins with" in refused(*run, "--from", str(model_folder), *fields)


def test_sizes_of_clips_are_those_of_the_training_however_often_it_is_tuned(
    model_folder: Path, other_set: Path, tmp_path: Path
) -> None:
    pvnas.train(other_set, tmp_path / "once", origin=model_folder, overrides=FEW)  # by the default preset
    pvnas.train(other_set, tmp_path / "twice", origin=tmp_path / "once", overrides=FEW)
    first = load_model(model_folder).config.train.augment
    for name in ("once", "twice"):
        config = load_config(file=tmp_path / name / "config.yaml")
        for size in ("short_side_min", "short_side_max", "crop"):
            assert getattr(config.train.augment, size) == getattr(first, size)
        assert config.decoded_short_side == max(first.short_side_max, config.test.short_side)


def test_one_from_scratch_does_not_become_a_fine_tuning(model_folder: Path, other_set: Path, tmp_path: Path) -> None:
    genotype = load_model(model_folder).genotype
    config = load_config("tiny", overrides=FEW)
    config.data.path = str(other_set)
    pvnas.train(config, tmp_path / "run", genotype=genotype)
    before = (tmp_path / "run" / "genotype.json").read_bytes()
    with pytest.raises(UserError, match="holds a training from scratch"):
        pvnas.train(load_config(file=tmp_path / "run" / "config.yaml"), tmp_path / "run", origin=model_folder)
    assert (tmp_path / "run" / "genotype.json").read_bytes() == before
