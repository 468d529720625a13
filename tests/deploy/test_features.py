"""What a network has before its classifier, for single videos: by Python, as a table, as a matrix."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import pvnas
from pvnas.cli import main
from pvnas.deploy.model import load_model


@pytest.fixture
def videos(tiny_shapes: Path) -> list[Path]:
    return sorted(tiny_shapes.rglob("*.mp4"))[:3]


@pytest.mark.parametrize("folder", ["model_folder", "of_both", "of_flow"])
def test_the_classifier_makes_the_mean_score_of_them(
    folder: str, videos: list[Path], request: pytest.FixtureRequest
) -> None:
    """Features are averaged over views as a linear classifier's scores would be: with logits both ways are one."""
    run_dir: Path = request.getfixturevalue(folder)
    model = load_model(run_dir)
    found = pvnas.features(videos, run_dir, device="cpu")
    assert [answer.path for answer in found] == videos
    assert {len(answer.vector) for answer in found} == {model.network.num_features}
    model.config.test.average = "logits"
    from pvnas.data.check import Limits
    from pvnas.deploy.inputs import find_videos
    from pvnas.deploy.predictions import predict_each

    classes = len(model.classes)
    answers = list(predict_each(model, find_videos(videos), classes, "cpu", Limits(1, 60.0)))
    for answer, features in zip(answers, found, strict=True):
        with torch.no_grad():
            scores_K = model.network.classifier(torch.tensor(features.vector)).softmax(0)
        scores = dict(answer.classes)
        assert [scores[name] for name in model.classes] == pytest.approx(scores_K.tolist(), abs=1e-4)


def test_a_table_has_a_row_for_each_video_and_says_which_have_none(
    model_folder: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(videos[0].read_bytes()[:700])
    out = tmp_path / "features.csv"
    paths = [str(videos[0]), str(damaged), str(videos[1])]
    assert main(["features", *paths, "--dir", str(model_folder), "--out", str(out), "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert "1 of 3 videos cannot be read: see above; all others have their vector" in said.err
    assert f"{out}: 2 of 3 videos" in said.out
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == paths
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    found = pvnas.features([videos[0], videos[1]], model_folder, device="cpu")
    for row, features in zip((rows[0], rows[2]), found, strict=True):
        values = [float(row[f"f{number}"]) for number in range(len(features.vector))]
        assert values == pytest.approx(features.vector, abs=1e-5)
    assert main(["features", str(videos[2]), "--dir", str(model_folder), "--out", str(out)]) == 0  # ours: written anew
    assert len(out.read_text().splitlines()) == 2


def test_a_matrix_has_the_paths_with_it(model_folder: Path, videos: list[Path], tmp_path: Path) -> None:
    folder, out = tmp_path / "videos", tmp_path / "features.safetensors"
    folder.mkdir()
    for number, video in enumerate(videos):
        shutil.copy(video, folder / f"{number}.mp4")
    assert main(["features", str(folder), "--dir", str(model_folder), "--out", str(out), "--device", "cpu"]) == 0
    with safe_open(out, "pt") as file:
        matrix, metadata = file.get_tensor("features"), file.metadata()
    assert json.loads(metadata["paths"]) == [str(folder / f"{number}.mp4") for number in range(3)]
    found = pvnas.features(folder, model_folder, device="cpu")
    assert torch.allclose(matrix, torch.tensor([features.vector for features in found]))
    assert json.loads(metadata["classes"]) == list(load_model(model_folder).classes)


def test_mistakes_are_one_line_and_no_file_is_lost(
    model_folder: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text("name,age\n")
    for words, says in (
        ([str(videos[0]), "--out", str(tmp_path / "x.txt")], "--out ends in .csv or .safetensors, not x.txt"),
        ([str(videos[0]), "--out", str(tmp_path / "mine.csv")], "there is another file of this name"),
        ([str(tmp_path / "no.mp4"), "--out", str(tmp_path / "x.csv")], "missing: no such file"),
        ([str(videos[0])], "--out"),
    ):
        assert main(["features", *words, "--dir", str(model_folder)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert says in err
    assert (tmp_path / "mine.csv").read_text() == "name,age\n"
    weights = (model_folder / "model.safetensors").read_bytes()
    words = ["features", str(videos[0]), "--dir", str(model_folder), "--out", str(model_folder / "model.safetensors")]
    assert main(words) == 2
    assert "there is another file of this name, not of features" in capsys.readouterr().err
    assert (model_folder / "model.safetensors").read_bytes() == weights
    assert not (tmp_path / "x.csv").exists()
