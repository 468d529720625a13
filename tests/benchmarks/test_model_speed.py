"""The scripts that measure a derived network and estimate the paper's work run, and say a mistake in one line."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--width", "2", "--stem", "stride2", "--classes", "2", "--clip", "2", "64", "64", "--repeats", "1"]


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_network_is_measured_beside_plain_layers(tmp_path: Path) -> None:
    words = [*SMALL, "--rounds", "1", "--batches", "--no-peers", "--channels", "2"]
    done = script("model_speed.py", str(tmp_path), *words)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "model_speed.json").read_text())["cases"]
    fast, plain, folded = (case["networks"][f"PV-NAS-L, {variant}"] for variant in ("fast", "plain", "folded"))
    assert fast["clips_per_s"] > 0
    assert plain["peak_bytes"] > 0
    assert case["shape"]["training"] is True
    assert fast["gmacs_per_clip"] == plain["gmacs_per_clip"] == folded["gmacs_per_clip"]
    assert case["speedup"] > 0
    assert case["speedup_over_folded"] == round(fast["clips_per_s"] / folded["clips_per_s"], 3)


def test_mistakes_end_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = script("model_speed.py", str(tmp_path), "--genotype", "nowhere.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nowhere.json" in done.stderr
    done = script("estimate.py", "--price", "-1")
    assert done.returncode == 2
    assert "--price takes the money for one device for an hour, not -1.0" in done.stderr
