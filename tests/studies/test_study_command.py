"""A study made by real processes: stopped, killed, shared by two workers, and gone on with."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from processes import children_of, has_ended
from pvnas.cli import main
from pvnas.runtime.progress import Progress
from pvnas.studies import workers
from pvnas.studies.parts import Part

OPTIONS = (
    *(
        "--preset",
        "tiny",
        "--seeds",
        "1",
        "--search.width=2",
        "--search.layout=S-NC T-RC",
        "--train.layout=S-NC*K T-RC",
    ),
    *("--train.width=2", "--clip.frames=2", "--tensorboard=false", "--checkpoint_minutes=0"),
)


def start(name: str, videos: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pvnas", "study", name, str(videos), "--dir", str(folder), *OPTIONS, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def wait_for(path: Path, pattern: str, *processes: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not any(path.glob(pattern)):
        for process in processes:
            assert process.poll() is None, finish(process)
        assert time.monotonic() < until, f"no {pattern} in {path}"
        time.sleep(0.02)


def runs_of(process: subprocess.Popen[str], part: str) -> list[int]:
    """Return the processes that a study has started for a part."""
    found = []
    for child in children_of(process.pid):
        with suppress(OSError):  # it has just ended
            if part in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="a process ends with its parent on Linux alone")
def test_a_stop_and_the_kill_of_one_of_two_workers_repeat_and_lose_nothing(tiny_shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    process = start("random", tiny_shapes, folder)
    wait_for(folder / "searched/seed-0/checkpoints/search", "0*", process)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, out) == (75, "")
    assert "to go on from here type the same command: pvnas study random" in err

    both = [start("random", tiny_shapes, folder) for _ in range(2)]
    wait_for(folder / "searched/seed-0/checkpoints/train", "0*", both[0], both[1])
    searching = {process: runs_of(process, "searched/seed-0") for process in both}
    (killed,) = [process for process, runs in searching.items() if runs]
    killed.kill()
    finish(killed)
    assert all(map(has_ended, searching[killed])), "a run outlived the study that had started it"
    (other,) = [process for process in both if process is not killed]
    code, _, err = finish(other)  # which takes over what the killed one was at
    assert code == 0, err

    logs = {path.name: path.read_text() for path in (folder / "logs").iterdir()}
    assert sorted(logs) == ["random.drawn.seed-0.log", "random.matched.seed-0.log", "searched.seed-0.log"]
    assert "search: resumes after" in logs["searched.seed-0.log"]
    assert "train: resumes after" in logs["searched.seed-0.log"]
    for log in logs.values():
        assert log.count("test: top-1") == 1, log
    rows = list(csv.DictReader((folder / "random.csv").open()))
    assert [(row["arm"], row["seed"]) for row in rows] == [("searched", "0"), ("drawn", "0"), ("matched", "0")]
    assert all(float(row["top1"]) >= 0 and row["digest"] and row["torch"] for row in rows)
    claims = list(csv.DictReader((folder / "random_differences.csv").open()))
    assert [(claim["better"], claim["than"]) for claim in claims] == [("searched", "drawn"), ("searched", "matched")]
    page = (folder / "random.md").read_text()
    assert f"`pvnas study random {tiny_shapes.name} --seeds 1 --preset tiny" in page
    assert str(tmp_path) not in page
    assert "61.81 / 82.97" in page
    assert (folder / "random.svg").read_text().startswith("<?xml")

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    code, out, err = finish(start("random", tiny_shapes, folder))
    assert (code, err) == (0, "")
    assert "page:" in out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")} == before

    code, _, err = finish(start("random", tiny_shapes, folder, "--train.epochs", "3"))
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a study of another config (train.epochs: 2 -> 3); to go on with it type the old values" in err


def test_every_run_can_be_listed_as_a_command(
    tiny_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "widths", str(tiny_shapes), "--dir", str(tmp_path / "study"), *OPTIONS, "--list"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["searched/seed-0", "widths/half/seed-0", "widths/double/seed-0"]
    assert all(line.startswith(f"pvnas study widths {tiny_shapes} --seeds 1 --preset tiny ") for line in lines)


def part(folder: Path, name: str, *words: str, needs: tuple[Part, ...] = ()) -> Part:
    return Part(folder, name, words, needs)


def test_a_part_that_fails_is_named_with_its_reason_and_the_others_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of real commands that fail: no such videos."""
    bad = part(tmp_path, "bad/seed-0", "run", str(tmp_path / "nowhere"))
    needs_it = part(tmp_path, "later/seed-0", "run", str(tmp_path / "nowhere"), needs=(bad,))
    done = part(tmp_path, "done/seed-0", "run", str(tmp_path / "nowhere"))
    done.run_dir.mkdir(parents=True)
    (done.run_dir / "results.json").write_text("{}")
    with pytest.raises(workers.UserError) as failed:
        workers.make_parts([needs_it, done], 2, Progress())
    assert str(failed.value).startswith("2 of 3 parts failed, the first: bad/seed-0: no folder '")
    assert "the same command tries them again" in str(failed.value)
    assert "bad/seed-0 failed: no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("study", "pvnas study needs NAME and DATA"),
        ("study everything .", "name takes one of schedules, stops, widths, random, budgets, peers, transfer, all"),
        ("study transfer .", "transfer searches on another set, too: name it, with --searched-on OTHER_VIDEOS"),
        ("study random . --part 1/2 --only x", "--part and --only both choose runs: type one of them"),
        ("study random nowhere", "no folder 'nowhere'"),
        ("study random . --seeds 0", "--seeds must be at least 1, not 0"),
        ("study random . --part 3/2", "--part takes a number of so many parts, such as 3/16"),
    ],
)
def test_mistakes_are_one_line(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err
    assert not os.listdir(tmp_path)


def test_seeds_share_one_test_where_no_list_names_it(tiny_shapes: Path, tmp_path: Path) -> None:
    """What is held out hangs on the first seed, so that runs can be compared video by video."""
    videos = tmp_path / "videos"
    for video in sorted(tiny_shapes.rglob("*.mp4")):
        (videos / video.parent.name).mkdir(parents=True, exist_ok=True)
        (videos / video.parent.name / video.name).write_bytes(video.read_bytes())
    options = [*OPTIONS, "--seeds", "2", "--only", "random/drawn/*", "--data.workers", "1"]
    command = [
        sys.executable,
        "-m",
        "pvnas",
        "study",
        "random",
        str(videos),
        "--dir",
        str(tmp_path / "study"),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    tested = {
        path.read_text().split("\n", 1)[0]
        + str(sorted(line.split(",")[0] for line in path.read_text().splitlines()[1:]))
        for path in (tmp_path / "study").rglob("predictions.csv")
    }
    assert len(tested) == 1
    assert "Not measured yet: searched cells are better than random ones" in done.stdout

    other = tmp_path / "other"
    other.mkdir()
    again = [*command[:5], str(other), *command[6:]]
    refused = subprocess.run(again, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"holds a study on {videos}, not on {other}; name another --dir" in refused.stderr
