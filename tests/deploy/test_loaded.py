"""A trained network as a library has it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pvnas
from pvnas.errors import UserError


@pytest.mark.parametrize("folder", ["model_folder", "of_both", "of_flow"])
def test_it_says_what_predict_and_features_say(folder: str, tiny_shapes: Path, request: pytest.FixtureRequest) -> None:
    run_dir: Path = request.getfixturevalue(folder)
    video = sorted(tiny_shapes.rglob("*.mp4"))[0]
    model = pvnas.load(run_dir, device="cpu")
    (expected,) = pvnas.predict(video, run_dir, device="cpu")
    assert model.predict(video) == expected.classes
    assert len(model.predict(video, top=2)) == 2
    (features,) = pvnas.features(video, run_dir, device="cpu")
    assert model.features(video).tolist() == pytest.approx(features.vector)
    views = model.preprocess(video)
    assert views.shape[1:] == (model.config.clip.channels, *model.config.view)
    with torch.no_grad():
        scores_K = model.network(views).softmax(1).mean(0)
    found = dict(model.predict(video, top=len(model.classes)))
    assert [found[name] for name in model.classes] == pytest.approx(scores_K.tolist(), abs=1e-5)


def test_mistakes_are_named(model_folder: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model there"):
        pvnas.load(tmp_path)
    model = pvnas.load(model_folder, device="cpu")
    with pytest.raises(UserError, match=r"no\.mp4: missing: no such file"):
        model.predict(tmp_path / "no.mp4")
    with pytest.raises(UserError, match=r"is \d+ videos; of many pvnas\.predictions"):
        model.features(tiny_shapes)


def test_features_can_be_learnt_from(model_folder: Path, tiny_shapes: Path) -> None:
    model = pvnas.load(model_folder, device="cpu")
    vector = model.features(sorted(tiny_shapes.rglob("*.mp4"))[0])
    probe = torch.nn.Linear(len(vector), 2)
    probe(vector).sum().backward()
    assert probe.weight.grad is not None
    with pytest.raises(UserError, match="top is 0; must be at least 1"):
        model.predict("x.mp4", top=0)
