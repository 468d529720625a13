"""A model on disk: what a network sees is part of it, and older ones see colours."""

import json
from pathlib import Path

import pytest

import pvnas
from pvnas.deploy.model import load_model
from pvnas.errors import UserError


def test_a_network_of_motion_and_colours_is_read_as_it_was_written(of_both: Path) -> None:
    model = load_model(of_both)
    assert (model.network.in_channels, model.config.clip.input) == (6, "both")
    assert (model.config.clip.sampling, model.config.clip.motion_seconds) == ("whole", 0.1)


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


def test_a_model_that_sees_what_nobody_knows_is_refused_in_one_line(model_folder: Path, tmp_path: Path) -> None:
    description = json.loads((model_folder / "model.json").read_text())
    description["clip"]["input"] = "sound"
    (tmp_path / "model.json").write_text(json.dumps(description))
    (tmp_path / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"model\.json: clip\.input takes one of rgb, .*, not 'sound'"):
        load_model(tmp_path)
