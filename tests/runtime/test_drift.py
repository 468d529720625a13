"""A run goes on under the conditions that it was begun under."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processes import joined
from pvnas import pipeline
from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.presets import tiny
from pvnas.runtime.device import usable_cores
from pvnas.runtime.distributed import ALONE
from pvnas.runtime.drift import check_drift, drift_of, read_environment, threads_for_each
from pvnas.space.genotype import random_genotype

BEFORE = {"threads": 1, "torch": "2.13.0", "gpu": None, "kernels": "c++", "vectors": "AVX2", "processes": 1}


def test_what_changes_bits_is_named_and_nothing_else() -> None:
    assert drift_of(BEFORE, BEFORE | {"processes": 4, "date": "tomorrow"}) == []
    assert drift_of(BEFORE, BEFORE | {"torch": "2.14.0", "vectors": "AVX512"}) == [
        "torch: 2.13.0 -> 2.14.0",
        "vectors: AVX2 -> AVX512",
    ]
    assert drift_of(BEFORE, BEFORE | {"processes": 4, "sums": "fast"}) == ["processes: 1 -> 4"]
    assert drift_of(BEFORE | {"gpu": "A", "device": "cuda"}, BEFORE | {"gpu": "B", "device": "cuda"}) == ["gpu: A -> B"]
    assert drift_of(BEFORE | {"gpu": "A"}, BEFORE | {"gpu": "B"}) == []  # of a run on the CPU
    assert drift_of({"torch": "2.13.0"}, BEFORE) == []  # a run of an earlier version, which noted less


def test_a_change_is_refused_unless_accepted(tmp_path: Path) -> None:
    check_drift(tmp_path, [], accepted=False)
    check_drift(tmp_path, ["torch: 1 -> 2"], accepted=True)
    with pytest.raises(UserError, match=r"torch: 1 -> 2; kernels: c\+\+ -> pytorch.*--accept_drift true"):
        check_drift(tmp_path, ["torch: 1 -> 2", "kernels: c++ -> pytorch"], accepted=False)


@pytest.mark.parametrize("content", [None, b"", b"[1]", b"{", b"[" * 100_000, b'{"threads": "x", "drift": 1}'])
def test_an_environment_that_cannot_be_read_says_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "environment.json").write_bytes(content)
    assert read_environment(tmp_path / "environment.json") == {}


def _config(videos: Path) -> RunConfig:
    config = tiny()
    config.data.path, config.tensorboard = str(videos), False
    config.clip.frames, config.train.width, config.train.layout = 2, 2, "S-NC T-RC"
    return config


def test_a_run_goes_on_as_it_was_begun(tiny_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(tiny_shapes)
    config.threads = 1
    pipeline.train(config, tmp_path, random_genotype(3))
    (tmp_path / "model.safetensors").unlink()  # as if it had been stopped at its last step
    file = tmp_path / "environment.json"
    begun = json.loads(file.read_bytes())
    assert "drift" not in begun
    file.write_text(json.dumps(begun | {"torch": "2.10.0"}))
    with pytest.raises(UserError, match=r"torch: 2\.10\.0 -> .*--accept_drift true"):
        pipeline.train(config, tmp_path)
    config.accept_drift = True
    pipeline.train(config, tmp_path)
    (changed,) = json.loads(file.read_bytes())["drift"]
    assert changed.startswith("torch: 2.10.0 -> ")
    pipeline.test(config, tmp_path)  # which changes nothing of it
    assert json.loads(file.read_bytes())["drift"] == [changed]
    assert "torch: 2.10.0" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_threads_that_nobody_has_set_stay_what_they_were(tiny_shapes: Path, tmp_path: Path) -> None:
    config = _config(tiny_shapes)
    config.threads = 0
    pipeline.train(config, tmp_path, random_genotype(3))
    file = tmp_path / "environment.json"
    begun = json.loads(file.read_bytes())
    (tmp_path / "model.safetensors").unlink()
    file.write_text(json.dumps(begun | {"threads": begun["threads"] + 1}))  # as of a machine with a core more
    pipeline.train(config, tmp_path)
    assert json.loads(file.read_bytes())["threads"] == begun["threads"] + 1


def test_processes_that_share_cores_share_them_out_and_must_be_alike() -> None:
    cores = usable_cores()
    assert threads_for_each(ALONE) == cores
    ended = joined("""
        from pvnas.runtime.drift import check_alike, threads_for_each
        with joined_world(config) as world:
            print(threads_for_each(world), flush=True)
            facts = {"torch": "2.13.0", "threads": 1, "vectors": "AVX2" if rank else "AVX512"}
            try:
                check_alike(world, facts | {"vectors": "AVX2"})
                check_alike(world, facts)
            except UserError as error:
                print(error, error.said_elsewhere)
    """)
    for rank, process in enumerate(ended):
        threads, says = process.stdout.splitlines()
        assert int(threads) == max(1, cores // 2)
        assert says.endswith(f"do not run under the same conditions: vectors: AVX512 -> AVX2 {rank == 1}")
