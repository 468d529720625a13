"""Predictions of a trained model on videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pvnas.config import DataConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.dataset import VideoDataset
from pvnas.deploy.model import load_model
from pvnas.errors import UserError
from pvnas.fast.inference import for_inference
from pvnas.training.evaluate import score_views


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one video with their scores, best first."""

    path: Path
    classes: tuple[tuple[str, float], ...]


def predict(videos: Sequence[Path], run_dir: Path, top: int = 5, device: str = "cpu") -> list[Prediction]:
    """Return the ``top`` classes of each video with a run's model, preprocessed and averaged over views as in its test.

    Raises UserError for a missing or unreadable video and for a run without a model.
    """
    model = load_model(run_dir)
    if top < 1:
        raise UserError(f"top is {top}; must be at least 1")
    network = for_inference(model.network.to(device))
    predictions = []
    for path in map(Path, videos):
        if not path.is_file():
            raise UserError(f"{path}: no such video")
        catalog = Catalog.of(path.parent, model.classes, (Video(path.name, 0, "test", None),))
        dataset = VideoDataset(catalog, DataConfig(cache="none"), model.config.test.short_side)
        scores_K = score_views(network, dataset, model.config, torch.device(device))[0]
        if model.config.test.average == "logits":
            scores_K = scores_K.softmax(0)
        best = scores_K.topk(min(top, len(model.classes)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        predictions.append(Prediction(path, tuple((model.classes[index], score) for score, index in pairs)))
    return predictions
