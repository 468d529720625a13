"""A trained network as a library has it: one object that takes videos and gives classes, features or its input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from pvnas.config import RunConfig
from pvnas.data.check import Limits
from pvnas.data.clips.network_input import network_input
from pvnas.deploy.answers import made_of
from pvnas.deploy.features import mean_features
from pvnas.deploy.inputs import find_videos
from pvnas.deploy.model import load_model
from pvnas.deploy.predictions import best_classes
from pvnas.errors import UserError
from pvnas.fast.flow import optical_flow
from pvnas.fast.inference import for_inference
from pvnas.runtime.device import choose_device
from pvnas.space.network import PVNASNetwork

Made = TypeVar("Made")
DEADLINE = 60.0


def load(run_dir: str | Path, device: str = "auto") -> Loaded:
    """Return the trained network of a run, or of a folder with its model.json and model.safetensors.

    ``device``: auto, cpu or cuda. Raises UserError where there is none.
    """
    return Loaded(run_dir, device)


class Loaded:
    """A trained network with all that it takes to use it on videos."""

    def __init__(self, run_dir: str | Path, device: str = "auto") -> None:
        self._model = load_model(Path(run_dir))
        self.network: PVNASNetwork = self._model.network.to(choose_device(device))
        """In evaluation mode: what ``preprocess`` gives, (N, C, T, H, W), to scores before softmax, (N, K)."""
        self.classes: tuple[str, ...] = self._model.classes
        self.config: RunConfig = self._model.config
        """How clips and views are cut out of a video (``clip``, ``test``), and what the network is (``network``)."""

    def predict(self, video: str | Path, top: int = 5) -> tuple[tuple[str, float], ...]:
        """Return the ``top`` likeliest classes of a video with their scores, best first, over the views of the test.

        As ``features``, by a copy of the network that is made ready at the first call. Raises UserError where the video
        cannot be read.
        """
        if top < 1:
            raise UserError(f"top is {top}; must be at least 1")
        return self._answer(video, lambda views_NCTHW: best_classes(self._model, self._ready, views_NCTHW, top))

    def features(self, video: str | Path) -> Tensor:
        """Return what the network has of a video before its classifier, (C,), averaged over the views of the test."""
        found = self._answer(video, lambda views_NCTHW: mean_features(self._model, self._ready, views_NCTHW))
        return found.clone()  # which autograd may take, as it may not take what inference mode has made

    def preprocess(self, video: str | Path) -> Tensor:
        """Return the views of a video as the network sees them, (N, C, T, H, W), on its device."""
        device = next(self.network.parameters()).device

        @torch.no_grad()
        def seen(views_NCTHW: Tensor) -> Tensor:
            return network_input(views_NCTHW.to(device), self.config.clip, None, optical_flow)

        return self._answer(video, seen)

    @cached_property
    def _ready(self) -> PVNASNetwork:
        """The network made ready for predictions, once."""
        return for_inference(self.network)

    def _answer(self, video: str | Path, answer: Callable[[Tensor], Made]) -> Made:
        videos = find_videos(video)
        if len(videos) != 1:
            raise UserError(f"{video} is {len(videos)} videos; of many pvnas.predictions and pvnas.features tell")
        with closing(made_of(self._model, videos, answer, Limits(1, DEADLINE))) as answers:
            [(found, made, error)] = answers
        if made is None:
            raise UserError(f"{found.name}: {error}")
        return made
