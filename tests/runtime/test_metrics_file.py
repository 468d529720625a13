"""metrics.jsonl: every finished line counts, a torn one never does."""

import json
import math
from pathlib import Path

import pytest
from faults import killed_at

from pvnas.errors import UserError
from pvnas.training.log import append_metrics, read_metrics, truncate_metrics


def test_lines_come_back_in_order_and_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    assert read_metrics(path) == []
    records = [{"stage": "train", "epoch": e, "loss": math.pi / (e + 1), "name": "ä\n"} for e in range(3)]
    for record in records:
        append_metrics(path, record)
    assert read_metrics(path) == records


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"loss": float("nan"), "by_class": [1.0, float("inf")], "deep": {"x": (float("-inf"),)}})
    assert json.loads(path.read_text()) == {"loss": None, "by_class": [1.0, None], "deep": {"x": [None]}}


@pytest.mark.parametrize("torn", ['{"epoch": 2, "lo', '{"epoch": 2}', "\x00\x00"])
def test_a_torn_last_line_is_left_out_and_replaced(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"epoch": 1})
    with path.open("a") as file:
        file.write(torn)
    assert read_metrics(path) == [{"epoch": 1}]
    append_metrics(path, {"epoch": 2})
    assert read_metrics(path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_kill_at_every_call_of_an_append_keeps_what_was_there(tmp_path: Path) -> None:
    path, call = tmp_path / "metrics.jsonl", 1
    while True:
        path.write_text('{"epoch": 1}\n')
        if not killed_at(call, lambda: append_metrics(path, {"epoch": 2})):
            break
        assert read_metrics(path) in ([{"epoch": 1}], [{"epoch": 1}, {"epoch": 2}])
        append_metrics(path, {"epoch": 3})
        assert read_metrics(path)[0] == {"epoch": 1}
        assert read_metrics(path)[-1] == {"epoch": 3}
        call += 1
    assert call > 3


def test_truncate_keeps_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    truncate_metrics(path, lambda record: True)
    assert not path.exists()
    for stage in ("search", "train"):
        for epoch in (1, 2, 3):
            append_metrics(path, {"stage": stage, "epoch": epoch})
    truncate_metrics(path, lambda r: r["stage"] != "train" or r["epoch"] <= 1)
    kept = [(r["stage"], r["epoch"]) for r in read_metrics(path)]
    assert kept == [("search", 1), ("search", 2), ("search", 3), ("train", 1)]
    with path.open("a") as file:
        file.write('{"torn')
    truncate_metrics(path, lambda record: True)
    assert path.read_text().count("\n") == 4
    assert "torn" not in path.read_text()


@pytest.mark.parametrize("line", ["nonsense", "[1]", "[" * 5000, "\x00\x00"])
def test_a_finished_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n' + line + "\n")
    with pytest.raises(UserError, match="line 2: not a JSON object"):
        read_metrics(path)
