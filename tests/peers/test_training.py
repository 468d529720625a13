"""A published network trained as ours are: a run that goes on where it stopped, and a directory of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import pvnas
from pvnas import pipeline, session
from pvnas.errors import UserError
from pvnas.peers import PEERS
from pvnas.presets import tiny
from pvnas.runtime.signals import Interrupted
from pvnas.training.stage import peer_network

OPTIONS = {"train.dropout": 0.5, "train.drop_path": 0.2, "train.epochs": 1, "tensorboard": False}


def train(videos: Path, run_dir: Path, peer: str | None = "residual", macs: float | None = 2e5) -> dict[str, Any]:
    return pvnas.train(videos, run_dir, peer=peer, macs=macs, preset="tiny", overrides=OPTIONS)


@pytest.fixture(scope="module")
def whole(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("peer") / "whole"
    train(tiny_shapes, run_dir)
    return run_dir


def test_a_stopped_training_ends_in_the_bits_of_an_uninterrupted_one(
    whole: Path, tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: Callable[[int], Any]
) -> None:
    monkeypatch.setattr(session, "write_report", lambda *_: None)  # the page has tests of its own
    with monkeypatch.context() as patch:
        patch.setattr(session, "StopRequest", lambda **_: nullcontext(stop_after(5)))
        with pytest.raises(Interrupted):
            train(tiny_shapes, tmp_path / "stopped")
    resumed = train(tiny_shapes, tmp_path / "stopped")
    assert resumed["digest"] == session.run_digest(tmp_path / "stopped") == session.run_digest(whole)
    assert (tmp_path / "stopped/predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


def test_a_run_says_what_the_network_is_and_holds_what_any_run_does(whole: Path) -> None:
    results, said = (json.loads((whole / name).read_text()) for name in ("results.json", "peer.json"))
    assert said["network"] == results["peer"] == "residual"
    assert said["width"] == results["width"]
    assert said["macs_per_view"] == results["macs_per_view"] == pytest.approx(2e5, rel=0.3)
    assert len((whole / "predictions.csv").read_text().splitlines()) == 1 + results["n_videos"]
    assert [json.loads(line)["stage"] for line in (whole / "metrics.jsonl").open()] == ["train"]
    page = re.sub(r"<[^>]*>", " ", (whole / "report.html").read_text(encoding="utf-8"))
    assert re.search(rf"Network\s+residual, width {results['width']}\s", page)
    assert "The network residual, trained to compare with, names the right one of 8 classes" in page
    assert not re.search("found by the search|The cells of the network|How the search decided|not complete", page)
    assert not (whole / "genotype.json").exists()
    assert pipeline.macs_of(whole) == results["macs_per_view"]


def test_a_directory_keeps_to_its_network(whole: Path, tiny_shapes: Path) -> None:
    with pytest.raises(UserError, match=r"holds another network \(see peer.json\); type its --peer and --macs"):
        train(tiny_shapes, whole, "x3d-s")
    with pytest.raises(UserError, match=r"holds a network to compare with \(peer.json\); name another --dir"):
        pvnas.run(tiny_shapes, whole, preset="tiny", overrides=OPTIONS)
    before = (whole / "results.json").read_bytes()
    train(tiny_shapes, whole)  # finished before
    assert (whole / "results.json").read_bytes() == before


def test_a_genotypes_directory_is_no_peers(tiny_shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "genotype.json").write_text(pvnas.random_genotype(0).to_json())
    with pytest.raises(UserError, match="holds a network of a genotype; name another --dir"):
        train(tiny_shapes, tmp_path)


def test_channels_dropout_and_drop_path_are_the_configs() -> None:
    config = tiny()
    config.clip.input, config.train.dropout, config.train.drop_path = "both", 0.3, 0.2
    network = peer_network(config, PEERS["residual"], 4, 2e5)
    assert (network.in_channels, network.drop_rate) == (6, 0.3)
    assert {block.drop_path_rate for block in network.blocks} == {0.2}
    again = peer_network(config, PEERS["residual"], 4, 2e5)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert peer_network(config, PEERS["x3d-s"], 4, None).width == 24


def test_what_cannot_go_together_is_one_line(tiny_shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="macs make a network to compare with as wide as fits them: name it"):
        train(tiny_shapes, tmp_path / "run", None)
    with pytest.raises(UserError, match="a genotype and a network to compare with: name one of them"):
        pvnas.train(tiny_shapes, tmp_path / "run", genotype=pvnas.random_genotype(0), peer="residual")
    with pytest.raises(UserError, match="holds no results with macs_per_view; name a tested run, or type --macs N"):
        pipeline.macs_of(tmp_path)
    assert not (tmp_path / "run").exists()
