"""Runs on segments of films and on folders of pictures: every row of every output names its own video."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pvnas import pipeline, session
from pvnas.config import DataConfig, RunConfig
from pvnas.data.dataset import list_videos
from pvnas.data.identity import open_learnt
from pvnas.data.pack import pack_videos
from pvnas.data.video.decode import decode_video
from pvnas.presets import tiny


def small(path: Path) -> RunConfig:
    """Return a config that trains in seconds."""
    config = tiny()
    config.data.path, config.tensorboard, config.clip.frames = str(path), False, 2
    config.data.frame_rate = 12.0
    config.search.epochs = config.train.epochs = 1
    config.search.layout, config.train.layout, config.search.width, config.train.width = (
        "S-NC T-RC",
        "S-NC*K T-RC",
        2,
        2,
    )
    return config


def outputs(config: RunConfig, run_dir: Path) -> tuple[list[str], list[list[Any]]]:
    """Run; return the names in predictions.csv, and the rows of videos.json."""
    assert pipeline.run(config, run_dir)["n_videos"] > 0
    with open(run_dir / "predictions.csv", encoding="utf-8", newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    samples = [sample["path"] for sample in json.loads((run_dir / "samples/samples.json").read_text())]
    assert samples == names
    return names, json.loads((run_dir / "videos.json").read_text())["videos"]


@pytest.fixture(scope="module")
def rows(tiny_shapes: Path) -> list[dict[str, str]]:
    """Return the rows of two classes of the generated set, six videos each."""
    with open(tiny_shapes / "split.csv", encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in listed})[:2]
    return [row for row in listed if row["label"] in classes]


@pytest.fixture
def films(tiny_shapes: Path, rows: list[dict[str, str]], tmp_path: Path) -> Path:
    """Return a folder of these videos, each listed in two halves, the last as a folder of pictures besides."""
    folder = tmp_path / "films"
    for row in rows:
        (folder / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_shapes / row["path"], folder / row["path"])
    (folder / "pictures/clip").mkdir(parents=True)
    for number, frame_CHW in enumerate(decode_video(tiny_shapes / rows[0]["path"]).frames_TCHW[:12]):
        Image.fromarray(frame_CHW.permute(1, 2, 0).numpy()).save(folder / f"pictures/clip/img_{number}.jpg")
    lines = [f"{r['path']},{r['label']},{r['split']},{start}" for r in rows for start in ("0,0.5", "0.5,")]
    lines.append(f"pictures/clip,{rows[0]['label']},test,,")
    (folder / "split.csv").write_text("\n".join(["path,label,split,start,end", *lines]) + "\n", encoding="utf-8")
    return folder


def test_segments_and_pictures_are_trained_and_tested_out_of_files_and_a_pack(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "write_report", lambda run_dir, *_, **__: run_dir)
    config = small(films)
    names, videos = outputs(config, tmp_path / "files")
    assert len(names) == 5
    assert [name for name in names if not name.endswith((" [0-0.5 s]", " [0.5- s]"))] == ["pictures/clip"]
    assert [row[4:6] for row in videos[:2]] == [[0.0, 0.5], [0.5, None]]
    assert len(videos) == 25
    verdicts = json.loads((tmp_path / "files/verdicts.json").read_text())
    assert {(verdict["verdict"], verdict["frames"] < 32) for verdict in verdicts} == {("ok", True)}
    by_name = {verdict["path"]: verdict for verdict in verdicts}
    assert (by_name["pictures/clip"]["codec"], by_name["pictures/clip"]["seconds"]) == ("pictures", 1.0)
    again, _ = open_learnt(config, tmp_path / "files")  # finds all of them again
    assert len(again.catalog.videos) == 25
    listed = DataConfig(path=str(films), frame_rate=12.0)
    pack_videos(list_videos(listed), tmp_path / "pack", short_side=28, workers=0)
    packed_names, packed_videos = outputs(small(tmp_path / "pack"), tmp_path / "packed")
    assert packed_names == names
    assert [row[:6] for row in packed_videos] == [row[:6] for row in videos]
