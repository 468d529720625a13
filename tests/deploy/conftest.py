"""A network that has learnt nothing, as a run leaves it."""

from pathlib import Path

import pytest

import pvnas
from pvnas.deploy.model import save_model


@pytest.fixture(scope="session")
def model_folder(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with model.json and model.safetensors, and nothing else."""
    folder = tmp_path_factory.mktemp("model")
    config, genotype = pvnas.load_config("tiny"), pvnas.random_genotype(0)
    classes = tuple(sorted(path.name for path in tiny_shapes.glob("*/")))
    shape = {"width": config.network.width, "stem": config.network.stem}
    network = pvnas.create_model("pvnas_l", genotype=genotype, num_classes=len(classes), **shape)
    save_model(folder, network, genotype, classes, config)
    return folder
