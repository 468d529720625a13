"""``pvnas predict``: answers as they come, bad ones named at exit code 2, csv and JSON that nothing breaks."""

import csv
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pvnas import cli

COMMAND = [sys.executable, "-m", "pvnas", "predict"]


@pytest.fixture
def here(tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three videos, one of them broken, to stand in."""
    monkeypatch.chdir(tmp_path)
    good = sorted(tiny_shapes.rglob("*.mp4"))[:2]
    Path("set").mkdir()
    for name, video in zip(("a.mp4", "c.mp4"), good, strict=True):
        shutil.copy(video, Path("set", name))
    Path("set/b.mp4").write_bytes(good[0].read_bytes()[:700])
    return tmp_path


def predict(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = cli.main(["predict", *words])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


@pytest.mark.usefixtures("here")
def test_good_answers_are_printed_and_bad_videos_named(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = predict(capfd, "set", "set/none.mp4", "--dir", str(model_folder), "--top", "2")
    assert code == 2
    lines = out.splitlines()
    assert lines[0].split() == ["video", "rank", "class", "score"]
    assert [line.split()[:2] for line in lines[2:]] == [
        ["set/a.mp4", "1"],
        ["set/a.mp4", "2"],
        ["set/c.mp4", "1"],
        ["set/c.mp4", "2"],
    ]
    assert "set/b.mp4: unreadable: Invalid data found" in err
    assert "set/none.mp4: missing: no such file" in err
    assert err.splitlines()[-1] == (
        "pvnas: error: 2 of 4 videos cannot be read: see above; all others have their answer"
    )


@pytest.mark.usefixtures("here")
def test_of_a_single_bad_video_one_line_is_said(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, why in {"set/b.mp4": "unreadable: ", "none.mp4": "missing: no such file", "0": "a camera"}.items():
        code, out, err = predict(capfd, name, "--dir", str(model_folder))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"pvnas: error: {name}: {why}")


@pytest.mark.usefixtures("here")
def test_json_is_valid_and_names_the_bad_ones(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = predict(capfd, "set", "--dir", str(model_folder), "--json", "--top", "1")
    found = json.loads(out)
    assert code == 2
    assert [row["path"] for row in found] == ["set/a.mp4", "set/b.mp4", "set/c.mp4"]
    assert [len(row["classes"]) for row in found] == [1, 0, 1]
    assert found[1]["error"].startswith("unreadable: ")
    assert "error" not in found[0]
    code, out, _ = predict(capfd, "set/b.mp4", "--dir", str(model_folder), "--json")
    assert (code, json.loads(out)[0]["classes"]) == (2, [])


@pytest.mark.usefixtures("here")
def test_out_has_a_row_for_each_video_with_all_scores(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = predict(capfd, "set", "--dir", str(model_folder), "--out", "answers/all.csv")
    assert (code, out) == (2, "answers/all.csv: 2 of 3 videos\n")
    with open("answers/all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["set/a.mp4", "set/b.mp4", "set/c.mp4"]
    classes = list(rows[0])[4:]
    assert len(classes) == 8
    scores = {name: float(rows[0][name]) for name in classes}
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    assert rows[0]["prediction"] == max(scores, key=scores.__getitem__)
    assert rows[1]["prediction"] == ""
    assert rows[1]["error"].startswith("unreadable: ")
    # Written again it is new; a file of anything else is not touched.
    assert predict(capfd, "set/a.mp4", "--dir", str(model_folder), "--out", "answers/all.csv")[0] == 0
    assert len(Path("answers/all.csv").read_text().splitlines()) == 2
    Path("train.csv").write_text("path,label\nset/a.mp4,x\n")
    code, _, err = predict(capfd, "set", "--dir", str(model_folder), "--out", "train.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is another file of this name" in err
    assert Path("train.csv").read_text().startswith("path,label\n")


@pytest.mark.usefixtures("here")
def test_the_output_is_tried_before_the_model_is_loaded(
    model_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvnas.deploy.model.load_model", lambda folder: pytest.fail("loaded"))
    for name, says in {
        "set": "--out writes a csv file",
        "set/a.mp4/x.csv": "cannot be written (",
    }.items():
        code, _, err = predict(capfd, "set", "--dir", str(model_folder), "--out", name)
        assert (code, err.count("\n")) == (2, 1)
        assert says in err


@pytest.mark.usefixtures("here")
def test_a_folder_without_a_network_is_told_from_a_run_that_is_not_done(capfd: pytest.CaptureFixture[str]) -> None:
    Path("half").mkdir()
    assert "'half' is no run directory (it holds no model.json)" in predict(capfd, "set", "--dir", "half")[2]
    Path("half/config.yaml").touch()
    assert "has no trained network yet" in predict(capfd, "set", "--dir", "half")[2]


@pytest.mark.parametrize("text", [b"set/a.mp4\nset/\xff.mp4\r\n", b"set/a.mp4\0set/\xff.mp4\0"])
def test_paths_come_from_stdin(
    here: Path,
    model_folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: bytes,
) -> None:
    (here / "set/c.mp4").rename(here / "set/\udcff.mp4")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    code, out, err = predict(capfd, "-", "--dir", str(model_folder), "--json", "--top", "1")
    assert code == 0, err
    assert [row["path"] for row in json.loads(out)] == ["set/a.mp4", "set/\udcff.mp4"]


@pytest.mark.usefixtures("here")
def test_interrupted_it_has_said_what_it_knows(model_folder: Path) -> None:
    words = [*["set/a.mp4"] * 2000, "--dir", str(model_folder), "--json", "--top", "1", "--out", "o.csv"]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        head = process.stdout.readline() + process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    known = json.loads(head + out)
    assert 0 < len(known) < 2000
    assert b"Traceback" not in err
    with open("o.csv", newline="") as file:
        assert abs(len(list(csv.DictReader(file))) - len(known)) <= 1


@pytest.mark.usefixtures("here")
def test_beside_a_bar_on_the_terminal_answers_still_go_to_the_file(model_folder: Path) -> None:
    terminal, stderr = pty.openpty()
    with open("out.txt", "wb") as stdout:
        words = [*COMMAND, "set", "--dir", str(model_folder), "--top", "1"]
        process = subprocess.Popen(words, stdout=stdout, stderr=stderr, env=os.environ | {"TERM": "xterm"})
        os.close(stderr)
        shown = b""
        while True:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
        assert process.wait(60) == 2
    os.close(terminal)
    assert [line.split()[0] for line in Path("out.txt").read_text().splitlines()[2:]] == ["set/a.mp4", "set/c.mp4"]
    assert b"videos/s" in shown
