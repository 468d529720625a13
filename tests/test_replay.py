"""`pvnas verify`: a stretch that is made again ends in the same bits, and what does not is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pvnas import pipeline
from pvnas.errors import UserError
from pvnas.presets import tiny
from pvnas.replay import verify
from pvnas.runtime.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def finished(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir, config = tmp_path_factory.mktemp("finished") / "run", tiny()
    config.data.path, config.tensorboard, config.clip.frames = str(tiny_shapes), False, 2
    config.search.width = config.train.width = 2
    config.search.layout = config.train.layout = "S-NC T-RC"
    config.train.ema = 0.9
    pipeline.run(config, run_dir)
    return run_dir


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_stages_end_in_the_same_bits_and_the_run_is_as_it_was(finished: Path) -> None:
    before = files(finished)
    replayed = verify(finished)
    assert [(r.stage, r.begin, r.end) for r in replayed] == [
        ("search", "the end of epoch 1", "the end of epoch 2"),
        ("train", "the end of epoch 1", "the end of epoch 2"),
    ]
    assert all(r.digest == r.again and not r.differing for r in replayed)
    after = files(finished)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {".lock"}


def test_the_command_names_what_differs(finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    folder = run_dir / "checkpoints" / "train"
    newest = load_checkpoint(folder)
    assert newest is not None
    name = next(name for name, tensor in newest.tensors.items() if tensor.is_floating_point() and tensor.numel())
    changed = newest.tensors[name].clone()
    changed.view(-1)[0] = torch.nextafter(changed.view(-1)[0], torch.tensor(9.9))
    (_, last) = sorted(folder.iterdir())
    shutil.rmtree(last)
    save_checkpoint(folder, newest.name, newest.tensors | {name: changed}, newest.state)
    command = [sys.executable, "-m", "pvnas", "verify", str(run_dir)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "search: from the end of epoch 1 to the end of epoch 2: the same digest" in ended.stdout
    assert "train: from the end of epoch 1 to the end of epoch 2: other bits" in ended.stdout
    assert f"{name} differ" in ended.stderr


def test_a_run_with_one_checkpoint_has_nothing_to_replay(finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    for stage in ("search", "train"):
        shutil.rmtree(sorted((run_dir / "checkpoints" / stage).iterdir())[0])
    with pytest.raises(UserError, match="no stage has two checkpoints"):
        verify(run_dir)
