"""TensorBoard scalars: written where the package is, one line in the log where it is not."""

import logging
import sys
from pathlib import Path

import pytest

from pvnas.training.log import ScalarLog


def read(folder: Path, stage: str) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of a stage by name."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder / stage))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_numbers_of_an_epoch_are_written_and_a_resumed_epoch_replaces_the_first(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = ScalarLog(tmp_path, True)
    record = {"stage": "train", "epoch": 1, "loss": 0.5, "bad": float("nan"), "list": [1.0], "deep": {"a": 2}}
    first.write("train", 1, record)
    first.write("train", 2, {"loss": 9.0})
    first.write("search", 2, {"loss": 7.0})
    second = ScalarLog(tmp_path, True)
    second.write("train", 2, {"loss": 0.25})
    assert read(tmp_path, "train") == {"loss": [(1, 0.5), (2, 0.25)]}
    assert read(tmp_path, "search") == {"loss": [(2, 7.0)]}


def test_without_the_package_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = ScalarLog(tmp_path / "tensorboard", True)
    with caplog.at_level(logging.WARNING):
        log.write("train", 1, {"loss": 1.0})
        log.write("train", 2, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert not (tmp_path / "tensorboard").exists()


def test_switched_off_it_does_nothing(tmp_path: Path) -> None:
    ScalarLog(tmp_path / "tensorboard", False).write("train", 1, {"loss": 1.0})
    assert not (tmp_path / "tensorboard").exists()
