"""A run in several processes, real ones with real signals: the bits of one process, however often some are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pvnas
from processes import children_of, has_ended
from pvnas.api import run_of
from pvnas.errors import UserError
from pvnas.session import run_digest
from pvnas.space.genotype import Genotype
from pvnas.training.log import read_metrics

OPTIONS = (
    *("--preset", "tiny", "--search.layout=S-NC T-RC", "--search.width=2", "--train.layout=S-NC*K T-RC"),
    *("--train.width=2", "--clip.frames=2", "--tensorboard=false", "--checkpoint_minutes=0"),
    *("--search.batch.shards=4", "--search.batch.clips_per_shard=1", "--search.balance=batches"),
    *("--train.batch.shards=4", "--train.batch.clips_per_shard=1", "--train.balance=batches", "--train.ema=0.9"),
    *("--clip.input=motion", "--train.augment.brightness=0.3", "--train.augment.rotate=10", "--train.dropout=0.2"),
)


def start(videos: Path, run_dir: Path, processes: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pvnas", "run", str(videos), "--dir", str(run_dir), *OPTIONS]
    return subprocess.Popen(
        [*command, "--processes", str(processes), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def ranks_of(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Return the living processes that a launcher has started, by rank."""
    ranks = {}
    for child in children_of(launcher.pid):
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found = [int(entry[5:]) for entry in environment if entry.startswith(b"RANK=")]
        ranks |= dict.fromkeys(found, child)
    return ranks


def saved(run_dir: Path, stage: str) -> int:
    """Return how often a stage has been saved."""
    return max((int(path.name[:6]) for path in (run_dir / "checkpoints" / stage).glob("0*-*")), default=0)


def wait_for(launcher: subprocess.Popen[str], run_dir: Path, stage: str, before: int = 0) -> dict[int, int]:
    """Wait until a stage is saved once more than before, and return the processes by rank."""
    until = time.monotonic() + 120
    while time.monotonic() < until and launcher.poll() is None:
        if saved(run_dir, stage) > before and (ranks := ranks_of(launcher)):
            return ranks
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of the {stage} in time: {finish(launcher)}")


@pytest.fixture(scope="module")
def alone(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process, that nothing interrupts."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    code, _, err = finish(start(tiny_shapes, run_dir, 1))
    assert code == 0, err
    return run_dir


def test_two_processes_make_the_bits_of_one(alone: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    code, out, err = finish(start(tiny_shapes, run_dir, 2))
    assert code == 0, err
    assert run_digest(run_dir) == run_digest(alone)
    assert (run_dir / "predictions.csv").read_bytes() == (alone / "predictions.csv").read_bytes()
    assert out.count("report:") == 1
    assert err.count("search epoch 1:") == err.count("test: top-1") == 1
    environment = json.loads((run_dir / "environment.json").read_bytes())
    assert (environment["processes"], environment["sums"]) == (2, "strict")
    page = re.sub(r"<[^>]*>", " ", (run_dir / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"processes\s+2\s+sums\s+strict", page)
    for line, expected in zip(
        read_metrics(run_dir / "metrics.jsonl"), read_metrics(alone / "metrics.jsonl"), strict=True
    ):
        for name in ("loss", "top1", "val_loss", "val_top1", "loss_per_class"):
            assert line[name] == expected[name]


def test_kills_and_signals_to_any_process_of_any_number_of_them_change_no_bit(
    alone: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"

    launcher = start(tiny_shapes, run_dir, 4)
    ranks = wait_for(launcher, run_dir, "search")
    os.kill(ranks[2], signal.SIGKILL)
    assert launcher.stderr is not None
    line = next(line for line in launcher.stderr if "starting all" in line)
    assert f"process 2 (pid {ranks[2]}) was ended by SIGKILL; starting all 4 again" in line
    assert all(map(has_ended, ranks.values()))
    again = wait_for(launcher, run_dir, "search", saved(run_dir, "search"))
    launcher.kill()  # its processes end with it
    finish(launcher)
    assert all(map(has_ended, again.values()))

    for processes, stage, number, whom in (
        (2, "search", signal.SIGUSR1, 1),
        (4, "train", signal.SIGTERM, None),  # to the command itself
    ):
        before = saved(run_dir, stage)
        launcher = start(tiny_shapes, run_dir, processes)
        ranks = wait_for(launcher, run_dir, stage, before)
        if whom == 1:  # and meanwhile nobody else gets the directory
            code, _, err = finish(start(tiny_shapes, run_dir, 1))
            assert (code, err.count("\n"), "is running in this directory" in err) == (2, 1, True), err
        os.kill(launcher.pid if whom is None else ranks[whom], number)
        code, _, err = finish(launcher)
        assert code == 75, err
        assert err.count("nothing is lost; to go on from here type the same command") == 1, err
        assert "resumes after" in err
        assert all(map(has_ended, ranks.values()))

    code, _, err = finish(start(tiny_shapes, run_dir, 1))
    assert code == 0, err
    assert run_digest(run_dir) == run_digest(alone)


def test_a_world_that_the_shards_do_not_fit_is_refused_in_one_line(tiny_shapes: Path, tmp_path: Path) -> None:
    code, _, err = finish(start(tiny_shapes, tmp_path / "run", 3))
    assert code == 2
    (line,) = err.splitlines()
    assert (
        "search.batch.shards is 4 and train.batch.shards is 4, which 3 processes cannot share evenly "
        "(1 or 2 or 4 can); "
        "for 3 of them begin another run with --search.batch.shards 3 --search.batch.clips_per_shard 1 "
        "--train.batch.shards 3 --train.batch.clips_per_shard 1"
    ) in line


def test_hours_are_for_one_process(tiny_shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="hours are planned by one process"):
        run_of(tiny_shapes, hours=1.0)


def test_what_diverges_in_one_process_ends_all_and_names_it(tiny_shapes: Path, tmp_path: Path) -> None:
    code, _, err = finish(start(tiny_shapes, tmp_path / "run", 2, "--search.weights.lr=1e6"))
    assert code == 2
    (line,) = [line for line in err.splitlines() if "error" in line]
    assert re.search(
        r"search diverged: the loss is .* in epoch 1, step \d \(process [01] \(pid \d+ on .*\), videos ", line
    )


def test_another_set_is_tested_alike(alone: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    pvnas.test(alone, tiny_shapes, out=tmp_path / "1")
    command = [
        sys.executable,
        "-m",
        "pvnas",
        "test",
        str(tiny_shapes),
        "--dir",
        str(alone),
        "--out",
        str(tmp_path / "2"),
    ]
    more = ["--processes", "2", "--data.workers=1"]
    ended = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    first, second = (tmp_path / processes / "predictions.csv" for processes in "12")
    assert len(first.read_text(encoding="utf-8").splitlines()) == 1 + 48
    assert first.read_bytes() == second.read_bytes()


def test_a_width_is_found_alike_by_any_number_of_processes_and_after_a_stop(tiny_shapes: Path, tmp_path: Path) -> None:
    fit = ("--budget.macs=300k", "--budget.width=fit")
    code, _, err = finish(start(tiny_shapes, tmp_path / "alone", 1, *fit))
    assert code == 0, err
    launcher = start(tiny_shapes, tmp_path / "run", 2, *fit)
    until = time.monotonic() + 120
    while not list((tmp_path / "run" / "candidates").glob("*/checkpoints/train/0*")):  # a short training has begun
        assert time.monotonic() < until
        assert launcher.poll() is None, finish(launcher)
        time.sleep(0.02)
    launcher.send_signal(signal.SIGTERM)
    code, _, err = finish(launcher)
    assert code == 75, err
    assert not (tmp_path / "run" / "genotype.json").exists()
    code, _, err = finish(start(tiny_shapes, tmp_path / "run", 2, *fit))
    assert code == 0, err
    assert run_digest(tmp_path / "run") == run_digest(tmp_path / "alone")
    sizes = [Genotype.load(tmp_path / name / "genotype.json").about["fitted"] for name in ("run", "alone")]
    assert sizes[0] == sizes[1]
    assert json.loads((tmp_path / "run" / "results.json").read_bytes())["macs_per_view"] <= 300_000
