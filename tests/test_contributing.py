"""The diffs in CONTRIBUTING apply to the sources as they are, and do what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DIFFS = re.findall(
    r"^```diff\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def diff_of(file: str) -> str:
    """Return the one diff that changes a file of the package."""
    (diff,) = [diff for diff in DIFFS if f"+++ b/src/pvnas/{file}\n" in diff]
    return diff


@pytest.fixture
def changed(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a copy of the sources to which the diff of a file has been applied."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    applied = subprocess.run(command, cwd=tmp_path, input=diff_of(request.param), capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    return tmp_path / "src"


def run(sources: Path, *words: str) -> str:
    """Run Python with these sources and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(sources)}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("changed", ["space/operations.py"], indirect=True)
def test_an_operation_costs_one_function(changed: Path) -> None:
    assert diff_of("space/operations.py").count("+++ ") == 1
    code = """
import torch
from pvnas.space.operations import build_operation, operations_of
from pvnas.space.layers import FOLDED
for category in ("S-NC", "T-NC"):
    print(*operations_of(category)[6:])
for name in ("avg_pool_1x5x5", "conv_1x5x5"):
    print(tuple(build_operation(name, 4, 2, FOLDED)(torch.zeros(1, 4, 3, 9, 9)).shape))
"""
    spatial, temporal, *shapes = run(changed, "-c", code).splitlines()
    assert spatial == "avg_pool_1x5x5 conv_1x5x5"
    assert temporal == "temporal_conv_3+3x3 temporal_conv_3+1x1 avg_pool_1x5x5"
    assert shapes == ["(1, 4, 3, 5, 5)"] * 2


@pytest.mark.parametrize("changed", ["data/listing/moments.py"], indirect=True)
def test_a_data_set_costs_two_files(changed: Path, tmp_path: Path) -> None:
    assert diff_of("data/listing/moments.py").count("+++ ") == 2
    videos = tmp_path / "moments"
    for name in ("training/clapping/a b", "training/yawning/b", "validation/clapping/c", "validation/yawning/d"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / f"{name}.mp4").touch()
    (videos / "moments_categories.txt").write_text("yawning,0\nclapping,1\n")
    (videos / "trainingSet.csv").write_text("clapping/a b.mp4,clapping,3,0\nyawning/b.mp4,yawning,2,1\n")
    (videos / "validationSet.csv").write_text("clapping/c.mp4,clapping,3,0\nyawning/d.mp4,yawning,2,1\n")
    told = run(changed, "-m", "pvnas", "data", "list", str(videos))
    assert "moments: 4 videos of 2 classes (train 2, val 2, test 0), 0 missing" in told
    assert told.index("yawning") < told.index("clapping")


def test_a_command_costs_one_file() -> None:
    """The diff is of a command that is there: all of it."""
    diff = diff_of("cli/commands/digest.py")
    assert diff.count("+++ ") == 1
    written = "".join(line[1:] + "\n" for line in diff.splitlines()[4:] if line.startswith("+"))
    assert written == (ROOT / "src/pvnas/cli/commands/digest.py").read_text(encoding="utf-8")
