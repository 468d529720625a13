"""A model on disk: what a network sees is part of it, and older ones see colours."""

import json
from pathlib import Path

import pytest
import torch

import pvnas
from pvnas.config import DataConfig
from pvnas.data.dataset import VideoDataset, list_videos
from pvnas.deploy.model import load_model, save_model
from pvnas.errors import UserError
from pvnas.space.network import PVNASNetwork
from pvnas.training.evaluate import score_views


@pytest.fixture
def of_both(tiny_shapes: Path, tmp_path: Path) -> Path:
    """Return a folder with a network that sees motion and colours of whole videos."""
    settings = {"clip.input": "both", "clip.sampling": "whole", "clip.motion_seconds": 0.1, "train.width": 4}
    config, genotype = pvnas.load_config("tiny", overrides=settings), pvnas.random_genotype(0)
    classes = tuple(sorted(path.name for path in tiny_shapes.glob("*/")))
    save_model(tmp_path, PVNASNetwork(genotype, config.network, num_classes=len(classes)), genotype, classes, config)
    return tmp_path


def test_a_network_of_motion_and_colours_predicts_what_its_test_gives(of_both: Path, tiny_shapes: Path) -> None:
    model = load_model(of_both)
    assert (model.network.in_channels, model.config.clip.input) == (6, "both")
    assert (model.config.clip.sampling, model.config.clip.motion_seconds) == ("whole", 0.1)
    catalog = list_videos(DataConfig(str(tiny_shapes))).take(range(2))
    dataset = VideoDataset(catalog, DataConfig(cache="none"), model.config.test.short_side)
    scores_VK = score_views(model.network, dataset, model.config, torch.device("cpu"))
    paths = [catalog.root / path for path in catalog.videos.paths]
    for scores_K, answer in zip(scores_VK, pvnas.predict(paths, of_both, device="cpu"), strict=True):
        expected = scores_K.topk(5)
        assert [name for name, _ in answer.classes] == [model.classes[index] for index in expected.indices]
        assert [score for _, score in answer.classes] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_the_clip_alone_says_what_a_network_sees_and_a_model_of_before_sees_colours(model_folder: Path) -> None:
    description = json.loads((model_folder / "model.json").read_text())
    assert "in_channels" not in description["network"]
    assert description["clip"]["input"] == "rgb"
    older = model_folder.parent / "older"
    older.mkdir()
    (older / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes())
    for field in ("input", "motion_seconds"):
        del description["clip"][field]
    (older / "model.json").write_text(json.dumps(description))
    assert load_model(older).config == load_model(model_folder).config
    description["clip"]["input"] = "both"
    (older / "model.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="cannot read the model"):
        load_model(older)


def test_another_set_is_tested_with_what_the_network_sees(of_both: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sees both; leave --clip.input away"):
        pvnas.test(of_both, tiny_shapes, out=tmp_path / "out", overrides={"clip.input": "rgb"})
    assert not (tmp_path / "out").exists()
