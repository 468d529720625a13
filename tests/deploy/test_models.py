"""Networks by name, as timm makes them: of a genotype, or trained ones of a folder."""

from pathlib import Path

import pytest
import torch

import pvnas
from pvnas.deploy.models import create_model, list_models
from pvnas.errors import UserError
from pvnas.space.genotype import random_genotype


@pytest.mark.parametrize("name", list_models())
def test_every_model_builds(name):
    genotype = random_genotype(0)
    with torch.device("meta"):
        network = create_model(name, genotype=genotype, num_classes=9)
        assert network(torch.empty(1, 3, 8, 32, 32)).shape == (1, 9)


def test_create_model_reads_files_and_refuses_what_is_not_there(tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(random_genotype(0).to_json())
    network = create_model("pvnas_tiny", genotype=path, num_classes=2, width=4, features_only=True)
    assert len(network(torch.randn(1, 3, 2, 16, 16))) == 7
    with pytest.raises(UserError, match="did you mean pvnas_l_half"):
        create_model("pvnas_l_hal", genotype=path)
    with pytest.raises(UserError, match="no pretrained weights"):
        create_model("pvnas_l", True, genotype=path)
    both = create_model("pvnas_tiny", genotype=path, num_classes=2, width=4, in_chans=6, features_only=True)
    assert both.in_channels == 6
    assert [y.shape[1] for y in both(torch.randn(1, 6, 2, 16, 16))] == [16, 32, 32, 64, 64, 128, 128]
    assert both.feature_info.channels() == [16, 32, 32, 64, 64, 128, 128]
    with pytest.raises(TypeError, match="in_channels"):  # timm's name is in_chans
        create_model("pvnas_l", genotype=path, in_channels=6)
    with pytest.raises(UserError, match="in_chans"):
        create_model("pvnas_l", genotype=path, in_chans=0)


def test_a_trained_network_of_a_folder(model_folder: Path) -> None:
    loaded = pvnas.load(model_folder)
    network = create_model(f"local-dir:{model_folder}").eval()
    x = torch.randn(2, *network.pretrained_cfg["input_size"])
    torch.testing.assert_close(network(x), loaded.network(x))
    assert network.pretrained_cfg["label_names"] == loaded.classes
    assert network.pretrained_cfg["input_size"] == (3, 4, 24, 24)
    other = create_model(f"local-dir:{model_folder}", num_classes=7, drop_rate=0.5, drop_path_rate=0.1).eval()
    assert other(x).shape == (2, 7)
    assert other.drop_rate == 0.5
    torch.testing.assert_close(other.forward_features(x), network.forward_features(x))
    assert create_model(f"local-dir:{model_folder}", num_classes=0)(x).shape == (2, network.num_features)


def test_features_of_some_cells(model_folder: Path) -> None:
    network = create_model(f"local-dir:{model_folder}", features_only=True, out_indices=[1, 3]).eval()
    maps = network(torch.randn(1, 3, 4, 24, 24))
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert [24 // m.shape[3] for m in maps] == network.feature_info.reduction()
    assert network.feature_info.module_name() == ["cells.1", "cells.3"]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model there"):
        create_model(f"local-dir:{tmp_path}")
    with pytest.raises(UserError, match="is built of a genotype"):
        create_model("pvnas_tiny")
