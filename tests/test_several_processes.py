"""A run in several processes, real ones with real signals: the bits of one process, however often some are killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pvnas.pipeline import run_digest
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
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found = [int(entry[5:]) for entry in environment if entry.startswith(b"RANK=")]
        ranks |= {rank: int(child) for rank in found}
    return ranks


def wait_for(launcher: subprocess.Popen[str], run_dir: Path, stage: str, checkpoints: int = 1) -> dict[int, int]:
    """Wait until a stage has saved so often, and return the processes by rank."""
    folder, until = run_dir / "checkpoints" / stage, time.monotonic() + 120
    while time.monotonic() < until and launcher.poll() is None:
        numbers = [int(path.name[:6]) for path in folder.glob("0*-*")] if folder.is_dir() else []
        if numbers and max(numbers) >= checkpoints and (ranks := ranks_of(launcher)):
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


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_makes_the_bits_of_one(
    processes: int, alone: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    code, out, err = finish(start(tiny_shapes, run_dir, processes))
    assert code == 0, err
    assert run_digest(run_dir) == run_digest(alone)
    assert (run_dir / "predictions.csv").read_bytes() == (alone / "predictions.csv").read_bytes()
    assert out.count("report:") == 1
    assert err.count("search epoch 1:") == err.count("test: top-1") == 1
    assert json.loads((run_dir / "environment.json").read_bytes())["processes"] == processes
    for line, expected in zip(
        read_metrics(run_dir / "metrics.jsonl"), read_metrics(alone / "metrics.jsonl"), strict=True
    ):
        for name in ("loss", "top1", "val_loss", "val_top1", "loss_per_class"):
            assert line[name] == expected[name]


def test_kills_of_any_process_and_other_numbers_of_them_change_no_bit(
    alone: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    run_dir, draw = tmp_path / "run", random.Random(5)
    for kill, stage in enumerate(("search", "train")):
        launcher = start(tiny_shapes, run_dir, (2, 4)[kill])
        ranks = wait_for(launcher, run_dir, stage, 2 + 3 * kill)
        rank = draw.choice(sorted(ranks))
        os.kill(ranks[rank], signal.SIGKILL)
        line = next(line for line in launcher.stderr if "starting all" in line)  # it starts all of them again
        assert f"process {rank} (pid {ranks[rank]}) was ended by SIGKILL" in line
        again = wait_for(launcher, run_dir, stage)
        launcher.kill()  # and then it is killed itself, and its processes end with it
        finish(launcher)
        assert not any(Path(f"/proc/{pid}").exists() for pid in (*ranks.values(), *again.values()))
    code, _, err = finish(start(tiny_shapes, run_dir, 1))
    assert code == 0, err
    assert run_digest(run_dir) == run_digest(alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    number: signal.Signals, alone: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    launcher = start(tiny_shapes, run_dir, 2)
    ranks = wait_for(launcher, run_dir, "search")
    os.kill(ranks[1], number)
    code, _, err = finish(launcher)
    assert code == 75, err
    assert err.count("nothing is lost; to go on from here type the same command") == 1
    code, _, err = finish(start(tiny_shapes, run_dir, 4))
    assert code == 0, err
    assert err.count("search: resumes after") == 1
    assert run_digest(run_dir) == run_digest(alone)


def test_a_signal_to_the_command_stops_its_processes(tiny_shapes: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    launcher = start(tiny_shapes, run_dir, 2)
    ranks = wait_for(launcher, run_dir, "search")
    launcher.send_signal(signal.SIGTERM)
    code, _, err = finish(launcher)
    assert code == 75, err
    assert "nothing is lost" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())


def test_a_world_that_the_shards_do_not_fit_is_refused_in_one_line(tiny_shapes: Path, tmp_path: Path) -> None:
    code, _, err = finish(start(tiny_shapes, tmp_path / "run", 3))
    assert code == 2
    (line,) = err.splitlines()
    assert "search.batch.shards is 4, which 3 processes cannot share evenly: 1 or 2 or 4 can" in line


def test_hours_are_for_one_process(tiny_shapes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pvnas", "run", str(tiny_shapes), "--hours", "1", "--dir", str(tmp_path / "run")]
    ended = subprocess.run([*command, "--processes", "2"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "hours are planned by one process" in line


def test_a_second_run_in_the_same_directory_is_refused(tiny_shapes: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = start(tiny_shapes, run_dir, 2)
    wait_for(first, run_dir, "search")
    code, _, err = finish(start(tiny_shapes, run_dir, 2))
    assert code == 2
    (line,) = err.splitlines()
    assert "is running in this directory" in line
    first.send_signal(signal.SIGTERM)
    assert finish(first)[0] == 75


def test_what_diverges_in_one_process_ends_all_and_names_it(tiny_shapes: Path, tmp_path: Path) -> None:
    code, _, err = finish(start(tiny_shapes, tmp_path / "run", 2, "--search.weights.lr=1e6"))
    assert code == 2
    (line,) = [line for line in err.splitlines() if "error" in line]
    assert re.search(
        r"search diverged: the loss is .* in epoch 1, step \d \(process [01] \(pid \d+ on .*\), videos ", line
    )


def test_fast_sums_are_noted(tiny_shapes: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    code, _, err = finish(start(tiny_shapes, run_dir, 2, "--determinism=fast"))
    assert code == 0, err
    environment = json.loads((run_dir / "environment.json").read_bytes())
    assert (environment["sums"], environment["processes"]) == ("fast", 2)
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert re.search(r"sums\W+(<[^>]*>\W*)*fast", page)


def test_another_set_is_tested_alike(alone: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        command = [sys.executable, "-m", "pvnas", "test", str(tiny_shapes), "--dir", str(alone)]
        more = ["--out", str(tmp_path / str(processes)), "--processes", str(processes), "--data.workers=1"]
        ended = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
    first, second = (tmp_path / str(processes) / "predictions.csv" for processes in (1, 2))
    assert len(first.read_text(encoding="utf-8").splitlines()) == 1 + 48
    assert first.read_bytes() == second.read_bytes()
