"""What a trained network makes of videos before its classifier: one vector for each, to sort, search and compare by."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.clips.network_input import network_input
from pvnas.data.video.decode import VideoError
from pvnas.deploy.answers import Answer, all_of, batches_of, made_of
from pvnas.deploy.inputs import Paths, find_videos
from pvnas.deploy.model import Model, load_model
from pvnas.fast.flow import optical_flow
from pvnas.fast.inference import for_inference
from pvnas.runtime.device import choose_device
from pvnas.runtime.files import write_atomic
from pvnas.runtime.signals import StopRequest
from pvnas.space.network import PVNASNetwork
from pvnas.training.step import autocast


@dataclass(frozen=True)
class Features(Answer):
    """The vector of one video, or why there is none."""

    vector: tuple[float, ...] = ()


def features(videos: Paths, run_dir: str | Path, device: str = "auto") -> list[Features]:
    """Return the vector of each video: what a run's network has before its classifier, averaged over the test's views.

    ``videos``, ``run_dir`` and ``device`` as of ``predict``. Raises UserError for the first video that cannot be read,
    and for a run without a model.
    """
    return all_of(features_each(load_model(Path(run_dir)), find_videos(videos), device, Limits(2, 60.0)))


def features_each(
    model: Model, videos: Sequence[Video], device: str, limits: Limits, stop: StopRequest | None = None
) -> Generator[Features, None, None]:
    """Yield the features of each video, in their order; no more where ``stop`` is requested."""
    network = for_inference(model.network.to(choose_device(device)))

    def vector(views_NCTHW: Tensor) -> tuple[float, ...]:
        return tuple(mean_features(model, network, views_NCTHW).tolist())

    with closing(made_of(model, videos, vector, limits, stop)) as answers:
        for video, found, error in answers:
            yield Features(Path(video.path), error, video.start, video.end, found or ())


@torch.inference_mode()
def mean_features(model: Model, network: PVNASNetwork, views_NCTHW: Tensor) -> Tensor:
    """Return the features (C,) of one video, averaged over its views. Raises VideoError where they are not numbers."""
    total_C = torch.zeros(network.num_features, dtype=torch.float64)
    for _, some_NCTHW in batches_of(model, network, views_NCTHW):
        x_NCTHW = network_input(some_NCTHW, model.config.clip, None, optical_flow)
        with autocast(model.config.precision, some_NCTHW.device):
            features_NC = network.forward_head(network.forward_features(x_NCTHW), pre_logits=True)
        total_C += features_NC.double().sum(0).cpu()
    mean_C = total_C / len(views_NCTHW)
    if not bool(mean_C.isfinite().all()):
        raise VideoError("refused", "the network's features are not numbers; train it again")
    return mean_C.float()


def save_features(path: Path, found: Sequence[Features], model: Model) -> None:
    """Write the vectors that there are as one matrix ``features`` (videos, C), the videos' paths among its metadata.

    Metadata: ``paths`` (a list in JSON, in the order of the rows), ``starts`` and ``ends`` in seconds where a segment
    was meant, ``classes`` of the network.
    """
    there = [answer for answer in found if not answer.error]
    matrix = torch.tensor([answer.vector for answer in there]).reshape(len(there), model.network.num_features)
    metadata = {"paths": json.dumps([str(answer.path) for answer in there]), "classes": json.dumps(model.classes)}
    if any(answer.video.is_segment for answer in there):
        metadata |= {"starts": json.dumps([answer.start for answer in there])}
        metadata |= {"ends": json.dumps([None if math.isinf(answer.end) else answer.end for answer in there])}
    write_atomic(path, safetensors.torch.save({"features": matrix}, metadata))
