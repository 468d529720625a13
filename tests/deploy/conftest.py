"""Networks that have learnt nothing, as a run leaves them."""

from pathlib import Path

import pytest

import pvnas
from pvnas.deploy.model import save_model
from pvnas.space.network import PVNASNetwork


def untrained(folder: Path, videos: Path, settings: dict[str, object]) -> Path:
    """Return the folder with model.json and model.safetensors, and nothing else."""
    config, genotype = pvnas.load_config("tiny", overrides=settings), pvnas.random_genotype(0)
    classes = tuple(sorted(path.name for path in videos.glob("*/")))
    save_model(folder, PVNASNetwork(genotype, config.network, num_classes=len(classes)), genotype, classes, config)
    return folder


@pytest.fixture(scope="session")
def model_folder(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network that sees colours."""
    return untrained(tmp_path_factory.mktemp("model"), tiny_shapes, {})


@pytest.fixture(scope="session")
def of_both(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network that sees motion and colours of whole videos."""
    settings = {"clip.input": "both", "clip.sampling": "whole", "clip.motion_seconds": 0.1, "train.width": 4}
    return untrained(tmp_path_factory.mktemp("both"), tiny_shapes, settings)


@pytest.fixture(scope="session")
def of_flow(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network that sees flow, which is made of grey levels."""
    settings = {"clip.input": "flow", "clip.sampling": "whole", "stem": "stride2-time2"}
    return untrained(tmp_path_factory.mktemp("flow"), tiny_shapes, settings)
