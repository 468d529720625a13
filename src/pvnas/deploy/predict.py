"""Predictions of a trained model on videos, preprocessed and averaged over views as in its test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pvnas.config import DataConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.dataset import VideoDataset
from pvnas.deploy.model import Model, load_model
from pvnas.errors import UserError
from pvnas.fast.inference import ready
from pvnas.training.evaluate import score_views


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one video with their scores, best first."""

    path: Path
    classes: tuple[tuple[str, float], ...]


def predict(
    videos: Sequence[Path], run_dir: Path, top: int = 5, device: str = "cpu", *, compile_it: bool = False
) -> list[Prediction]:
    """Return the ``top`` classes of each video with a run's model.

    ``compile_it``: with torch.compile, for large networks and many videos. Raises UserError for a missing or
    unreadable video and for a run without a model.
    """
    model = load_model(run_dir)
    if top < 1:
        raise UserError(f"top is {top}; must be at least 1")
    network = ready(model.network.to(device), compile_it=compile_it)
    return [predict_one(model, network, Path(video), top, torch.device(device)) for video in videos]


def predict_one(model: Model, network: nn.Module, video: Path, top: int, device: torch.device) -> Prediction:
    """Return the prediction for one video; ``network``: the model's own or what was made of it, on the device."""
    if not video.is_file():
        raise UserError(f"{video}: no such video")
    catalog = Catalog.of(video.parent, model.classes, (Video(video.name, 0, "test", None),))
    source = VideoDataset(catalog, DataConfig(cache="none"), model.config.test.short_side)
    scores_K = score_views(network, source, model.config, device)[0]
    if model.config.test.average == "logits":
        scores_K = scores_K.softmax(0)
    best = scores_K.topk(min(top, len(model.classes)))
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return Prediction(video, tuple((model.classes[index], score) for score, index in pairs))
