"""File and class names of any bytes go through every output of a run: exact in JSON, inert everywhere else."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pvnas import cli
from pvnas.settings import load_config

CLASSES = (b"\xff\xfe=1,\n<script>$x$", "-跳跃🎬\u202e{}%s\"'".encode())
NAMES = (
    b"\xff, a\nb\t.mp4",
    b"=cmd()|'x'!A0.mp4",
    "\u202e跳🎬 %s{}$x_1$.mp4".encode(),
    b"v" * 251 + b".mp4",
    b'-&amp;".mp4',
)
# The smallest networks, two steps of one thread: what matters is what is written.
FIELDS = {"search.epochs": 1, "train.epochs": 1, "search.width": 2, "train.width": 2, "threads": 1}
NARROW_CONSOLE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture(scope="module")
def run_of_names(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder of videos and a run on it, made where Python takes the console and all names for ASCII."""
    place = tmp_path_factory.mktemp("names")
    root, run_dir = place / os.fsdecode(b"set\xff {}%"), place / os.fsdecode(b"run\xff")
    videos = sorted(tiny_shapes.rglob("*.mp4"))
    try:
        for label in map(os.fsdecode, CLASSES):
            (root / label).mkdir(parents=True)
            for name, video in zip(map(os.fsdecode, NAMES), videos, strict=False):
                (root / label / name).write_bytes(video.read_bytes())
    except OSError as error:
        pytest.skip(f"this file system refuses such names: {error}")
    command = [sys.executable, "-m", "pvnas", "run", root, "--dir", run_dir, "--preset", "tiny"]
    command += [f"--{name}={value}" for name, value in FIELDS.items()]
    done = subprocess.run(command, env=os.environ | NARROW_CONSOLE, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr.decode("ascii")
    assert b"no TensorBoard scalars: its folder's name is no UTF-8" in done.stderr
    assert done.stdout.decode("ascii").splitlines()[-1].endswith("run?/report.html")
    return root, run_dir


def names_in(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_json_and_config_are_exact(run_of_names: tuple[Path, Path]) -> None:
    root, run_dir = run_of_names
    classes = sorted(map(os.fsdecode, CLASSES))
    for name in ("catalog.json", "results.json", "confusion.json", "model.json"):
        assert json.loads((run_dir / name).read_text("utf-8"))["classes"] == classes
    verdicts = json.loads((run_dir / "verdicts.json").read_text("utf-8"))
    assert {verdict["path"] for verdict in verdicts} == names_in(root)
    assert {verdict["verdict"] for verdict in verdicts} == {"ok"}
    samples = json.loads((run_dir / "samples" / "samples.json").read_text("utf-8"))
    assert {sample["path"] for sample in samples} <= names_in(root)
    assert {sample["truth"] for sample in samples} <= set(classes)
    assert load_config(file=run_dir / "config.yaml").data.path == str(root)
    assert str(root) in json.loads((run_dir / "environment.json").read_text("utf-8"))["command"]


def test_tables_are_whole_and_no_cell_is_a_formula(run_of_names: tuple[Path, Path]) -> None:
    _, run_dir = run_of_names
    for name, rows in {"predictions.csv": 3, "verdicts.csv": 11}.items():
        with open(run_dir / name, newline="", encoding="utf-8") as file:
            table = list(csv.reader(file))
        assert len(table) == rows
        assert len({len(row) for row in table}) == 1
        assert not any(cell.startswith(("=", "-")) for row in table for cell in row)


def test_the_page_and_the_figures_are_well_formed(run_of_names: tuple[Path, Path]) -> None:
    _, run_dir = run_of_names
    page = (run_dir / "report.html").read_text("utf-8")
    assert "<script>" not in page
    assert "could not be made" not in page
    assert "跳跃🎬" in page
    figures = list((run_dir / "figures").glob("*.svg"))
    assert figures
    for figure in figures:
        ElementTree.parse(figure)


def test_predictions_name_every_video(
    run_of_names: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, run_dir = run_of_names
    out = tmp_path / os.fsdecode(b"\xff.csv")
    assert cli.main(["predict", str(root), "--dir", str(run_dir), "--json", "--out", str(out)]) == 0
    answers = json.loads(capfd.readouterr().out)
    assert {Path(answer["path"]).relative_to(root).as_posix() for answer in answers} == names_in(root)
    with open(out, newline="", encoding="utf-8") as file:
        assert [len(row) for row in csv.reader(file)] == [6] * 11
    assert cli.main(["predict", str(root), "--dir", str(run_dir), "--top", "1"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 12


def test_a_pack_of_them_is_read_like_the_files(
    run_of_names: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, _ = run_of_names
    pack = tmp_path / os.fsdecode(b"pack\xff")
    assert cli.main(["data", "pack", str(root), str(pack), "--short-side", "48", "--workers", "0"]) == 0
    assert cli.main(["data", "verify", str(pack)]) == 0
    capfd.readouterr()
    assert cli.main(["data", "list", str(pack), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["classes"] == sorted(map(os.fsdecode, CLASSES))
