"""A run that was given hours: planned once, its own from then on; real steps measured; the command from end to end."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pvnas
from pvnas import cli
from pvnas.api import run_of
from pvnas.config import DataConfig, RunConfig
from pvnas.data.dataset import list_videos
from pvnas.data.identity import open_to_learn
from pvnas.data.pack import pack_videos
from pvnas.errors import UserError
from pvnas.plan import begin
from pvnas.plan.choose import SIZES, sized_config
from pvnas.plan.facts import UNKNOWN, Speed, Speeds, StepSize
from pvnas.plan.measure import FRAMES, few_videos, measured
from pvnas.presets import laptop
from pvnas.settings import CONFIG_NAME, check_resumable, dump_config, load_config, plain

SMALL = {
    "search.layout": "S-NC T-RC",
    "search.width": 2,
    "train.layout": "S-NC*K T-RC",
    "train.width": 2,
    "clip.frames": 2,
    "tensorboard": False,
}


@pytest.fixture
def not_measured(monkeypatch):
    """Count the measurements, and let every one of them find 500 clips/s."""
    asked = []

    def measured(speeds, sizes, *_):
        asked.append(sizes)
        return Speeds({**speeds.clips, **dict.fromkeys(sizes, Speed(0.002, 0.0))}, 1e-4)

    monkeypatch.setattr(begin, "measured", measured)
    return asked


def has_begun(run_dir: Path, config: RunConfig) -> None:
    """Leave what a run leaves that was stopped after its first steps."""
    folder = run_dir / "checkpoints" / "search"
    folder.mkdir(parents=True)
    (folder / "step").touch()
    (run_dir / CONFIG_NAME).write_text(dump_config(config), encoding="utf-8")


def test_a_run_is_planned_once_and_then_goes_on_with_its_own_config(
    tiny_shapes: Path, tmp_path: Path, not_measured: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    config, _ = run_of(tiny_shapes, run_dir, hours=0.05, overrides={"seed": 7})
    assert len(not_measured) >= 1
    assert config.seed == 7
    assert config.data.path == str(tiny_shapes)
    said = capsys.readouterr().err
    plan = json.loads((run_dir / "plan.json").read_text())
    assert plan["hours"] == 0.05
    assert all(line in said for line in plan["lines"])
    assert plan["facts"]["train_K"] == [4] * 8
    assert plan["facts"]["short_side"] == 64
    assert plan["lines"][-1].startswith(f"the same again: pvnas run {tiny_shapes} --preset laptop ")

    not_measured.clear()
    has_begun(run_dir, config)
    again, _ = run_of(tiny_shapes, run_dir, hours=0.05)
    assert again == config
    check_resumable(run_dir, again)
    assert not not_measured
    with pytest.raises(UserError, match=r"\(hours: 0.05 -> 1\); to resume it type --hours 0.05"):
        run_of(tiny_shapes, run_dir, preset="auto")
    with pytest.raises(UserError, match=r"train.width: .* -> 3"):
        check_resumable(run_dir, run_of(tiny_shapes, run_dir, hours=0.05, overrides={"train.width": 3})[0])
    (run_dir / "plan.json").unlink()
    with pytest.raises(UserError, match="was not planned by --hours"):
        run_of(tiny_shapes, run_dir, hours=0.05)


def test_a_plan_that_has_learnt_nothing_is_made_anew(
    tiny_shapes: Path, tmp_path: Path, not_measured: list[object]
) -> None:
    run_of(tiny_shapes, tmp_path, hours=0.05)
    run_of(tiny_shapes, tmp_path, hours=0.2)
    assert json.loads((tmp_path / "plan.json").read_text())["hours"] == 0.2


def test_the_default_directory_names_the_hours(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "planned_config", lambda run_dir, hours, wishes: (run_dir, hours, wishes))
    wishes = {"data.path": str(tiny_shapes)}
    assert run_of(tiny_shapes, preset="auto") == ((Path("runs/set-1h"), 1.0, wishes), Path("runs/set-1h"))
    (tmp_path / "my.yaml").write_text("train: {width: 9}\npreset: auto", encoding="utf-8")
    (_, hours, wishes), _ = run_of(tiny_shapes, None, "auto", tmp_path / "my.yaml", {"seed": 3}, 0.5)
    assert (hours, wishes) == (0.5, {"data.path": str(tiny_shapes), "train.width": 9, "seed": 3})
    with pytest.raises(UserError, match="a whole config leaves nothing to choose"):
        pvnas.run(replace(laptop(), data=DataConfig(str(tiny_shapes))), hours=1)


def test_a_pack_is_planned_as_its_files_are(tiny_shapes: Path, tmp_path: Path, not_measured: list[object]) -> None:
    pack_videos(list_videos(DataConfig(str(tiny_shapes))), tmp_path / "pack", short_side=64)
    files, packed = (tmp_path / "files", tmp_path / "packed")
    run_of(tiny_shapes, files, hours=0.05)
    run_of(tmp_path / "pack", packed, hours=0.05)
    a, b = (json.loads((folder / "plan.json").read_text())["facts"] for folder in (files, packed))
    for name in ("classes", "train_K", "validation_K", "test_K", "short_side", "frames", "squares"):
        assert a[name] == b[name], name
    assert a["seconds"] == pytest.approx(b["seconds"], abs=0.01)
    assert (a["packed"], b["packed"]) == (False, True)


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_real_steps_are_measured(tiny_shapes: Path, cache: str) -> None:
    wishes = {**SMALL, "data.path": str(tiny_shapes), "data.cache": cache}
    config = sized_config(replace(UNKNOWN, memory=1e9), SIZES[0], wishes)
    kept = cache == "auto"
    sizes = StepSize.of(config, "search", kept=kept), StepSize.of(config, "train", kept=kept)
    videos = open_to_learn(config).dataset("train", short_side=config.decoded_short_side).select(range(16))
    speeds = measured(Speeds(), sizes, config, videos, torch.device("cpu"), 0.01)
    assert set(speeds.clips) == set(sizes)
    assert all(0 < seconds < math.inf for speed in speeds.clips.values() for seconds in speed)
    assert (speeds.decode > 0) == kept
    known = Speeds(dict.fromkeys(sizes, Speed(1.0, 2.0)))
    assert measured(known, sizes, config, videos, torch.device("cpu"), 0.01).clips == known.clips


def test_videos_of_about_the_median_length_are_measured() -> None:
    assert few_videos(np.array([10, 500, 30, 31, 29, 9]), 3) == [2, 4, 3]
    assert few_videos(np.array([FRAMES * 5, FRAMES * 9]), 16) == [0]
    assert sum(few_videos(np.full(100, FRAMES // 4), 16)) == 0 + 1 + 2 + 3


@pytest.mark.parametrize(
    "line, says",
    [
        ("--hours 0", "hours must be above 0 and at most 10000, not 0"),
        ("--hours -1", "hours must be above 0"),
        ("--hours nan", "hours takes a number, not 'nan'"),
        ("--hours abc", "hours takes a number, not 'abc'"),
        ("--hours", "--hours: expected one argument"),
        ("--hours 1 --preset laptop", "hours 1 and preset 'laptop': hours choose a preset's values; leave one away"),
        ("--hours 1 --config other.yaml", "hours 1 and preset 'tiny'"),
        ("--hours 1 --config wrong.yaml", "no field 'train.widht'"),
        ("--hours 1 --train.width 0", "train.width must be between 1 and"),
        ("--hours 1 --data.path other", "two folders of videos"),
    ],
)
def test_hours_that_cannot_be_are_one_line(
    line: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "other.yaml").write_text("preset: tiny", encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text("train: {widht: 3}", encoding="utf-8")
    assert cli.main(["run", "videos", *line.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "runs").exists()


def test_auto_is_no_preset_of_other_commands(capsys: pytest.CaptureFixture[str], tiny_shapes: Path) -> None:
    assert cli.main(["search", str(tiny_shapes), "--preset", "auto"]) == 2
    assert "preset auto is chosen for given videos and a whole run: pvnas run DATA" in capsys.readouterr().err


def test_a_run_of_hours_from_end_to_end(tiny_shapes: Path, tmp_path: Path, not_measured: list[object]) -> None:
    """As a person types it; what is asked again is the config that it has."""
    wishes = {**SMALL, "search.epochs": 1, "train.epochs": 1, "train.augment.crop": 24, "stem": "stride2", "threads": 1}
    options = [word for name, value in wishes.items() for word in (f"--{name}", plain(value))]
    command = [sys.executable, "-m", "pvnas", "run", str(tiny_shapes), "--hours", "0.1", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "runs" / "set-0.1h"
    assert "measured: " in done.stderr
    assert "expect: 5 training videos a class" in done.stderr
    assert "report: runs/set-0.1h/report.html" in done.stdout
    assert len(json.loads((run_dir / "plan.json").read_text())["speeds"]) >= 2
    config, _ = run_of(tiny_shapes, run_dir, hours=0.1)
    assert config == load_config(file=run_dir / CONFIG_NAME)
    assert (config.preset, config.test.crop, not_measured) == ("laptop", 24, [])
