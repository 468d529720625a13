"""A training that diverges stops at once and says what to lower; one that is only bad goes on with a line."""

import warnings

import pytest
import torch

from catalogs import read_catalog
from pvnas.config import WeightOptimizerConfig
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.presets import tiny
from pvnas.runtime.checkpoint import load_checkpoint
from pvnas.runtime.loop import run_epochs
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import StopRequest
from pvnas.search.stage import SearchStage
from pvnas.space.genotype import random_genotype
from pvnas.training.divergence import advice, high_loss_warning, require_validation
from pvnas.training.log import EpochLog
from pvnas.training.stage import TrainStage, derived_network

CPU = torch.device("cpu")


def make_stage(name, lr, folder, run_dir):
    config, catalog = tiny(), read_catalog(folder)
    config.clip.frames, config.search.width, config.train.width = 2, 2, 2
    config.search.layout = config.train.layout = "S-NC T-RC"
    part = config.search if name == "search" else config.train
    part.weights.lr = lr
    train, val = (VideoDataset(catalog.select(split), config.data, 28) for split in ("train", "val"))
    log = EpochLog(run_dir, Progress(), tensorboard=False)
    if name == "search":
        return SearchStage(config, train, val, run_dir, CPU, log)
    network = derived_network(config, random_genotype(3), len(catalog.classes))
    return TrainStage(config, network, train, val, CPU, log)


@pytest.mark.parametrize("name", ["search", "train"])
def test_a_rate_far_too_high_stops_within_the_first_epoch(name, tiny_shapes, tmp_path):
    stage = make_stage(name, 1e6, tiny_shapes, tmp_path)
    says = (
        rf"^{name} diverged: the loss is .* in epoch 1, step \d \(videos .*guessing gives 2.08; start anew, in another "
    )
    with pytest.raises(UserError, match=rf"{says}--dir, with a lower --{name}.weights.lr \(now 1e\+06\)"):
        run_epochs(stage, tmp_path / "steps", None, StopRequest(), Progress(), checkpoint_minutes=99)
    assert load_checkpoint(tmp_path / "steps") is None


def test_advice_names_the_options_and_what_they_are():
    assert "a lower --train.weights.lr (now 0.1) or with --train.weights.clip_gradient 5 (now 0" in advice(
        "train", WeightOptimizerConfig()
    )
    limited = WeightOptimizerConfig(lr=3.0, clip_gradient=9.0)
    assert advice("search", limited).endswith("or with a smaller --search.weights.clip_gradient (now 9)")


def test_an_epoch_far_worse_than_guessing_is_one_line():
    def sums(loss):
        return {"loss": torch.tensor(8.0 * loss), "clips": torch.tensor(8.0), "class_loss": torch.zeros(8)}

    assert high_loss_warning("train", 2, sums(3.0), "do this") is None
    line = high_loss_warning("train", 2, sums(49.6), "do this")
    assert line == "train epoch 2: the loss is 49.6, where guessing gives 2.08; unless it falls soon, do this"


def test_a_validation_that_gives_no_number_is_divergence_and_none_is_not():
    require_validation({}, 1)
    require_validation({"val_loss": 1e9}, 1)
    with pytest.raises(FloatingPointError, match="the validation loss is not a number after epoch 2"):
        require_validation({"val_loss": float("nan")}, 2)


def test_defaults_warn_of_nothing(tiny_shapes, tmp_path):
    stage = make_stage("search", 0.1, tiny_shapes, tmp_path)
    stage.epochs = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_epochs(stage, tmp_path / "steps", None, StopRequest(), Progress(), checkpoint_minutes=99)
