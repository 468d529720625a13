"""What a trained network sees in videos: answers one after another, whatever becomes of single videos."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.clips.mirrored_views import mirrored_labels
from pvnas.data.video.decode import VideoError
from pvnas.deploy.answers import Answer, all_of, batches_of, made_of
from pvnas.deploy.inputs import Paths, find_videos
from pvnas.deploy.model import Model, load_model
from pvnas.errors import UserError
from pvnas.fast.inference import for_inference
from pvnas.runtime.device import choose_device
from pvnas.runtime.signals import StopRequest
from pvnas.training.evaluate import ViewAverage
from pvnas.training.step import scores_of


@dataclass(frozen=True)
class Prediction(Answer):
    """The likeliest classes of one video with their scores, best first; or why there are none."""

    classes: tuple[tuple[str, float], ...] = ()


def predict(videos: Paths, run_dir: str | Path, top: int = 5, device: str = "auto") -> list[Prediction]:
    """Return the ``top`` classes of each video with a run's network, seen in the views of its test.

    ``videos``: a file, a folder of any layout, a list of videos (.txt, .csv), or a sequence of those; ``run_dir``: a
    run directory, or a folder with its model.json and model.safetensors; ``device``: auto, cpu or cuda. Raises
    UserError for the first video that cannot be read, and for a run without a model; ``predictions`` goes on.
    """
    return all_of(predictions(videos, run_dir, top, device))


def predictions(
    videos: Paths,
    run_dir: str | Path,
    top: int = 5,
    device: str = "auto",
    *,
    workers: int = 2,
    deadline: float = 60.0,
) -> Generator[Prediction, None, None]:
    """Return a generator of the predictions of ``predict``, each as soon as it is known, in the order of the videos.

    A video that cannot be read has an ``error`` in place of classes, and the rest goes on. ``workers``: processes that
    decode beside the network; ``deadline``: seconds that a video may take, and as many more for each minute and each
    60 MiB of it. Raises UserError for a run without a model and where no video is found at all.
    """
    if top < 1:
        raise UserError(f"top is {top}; must be at least 1")
    return predict_each(load_model(Path(run_dir)), find_videos(videos), top, device, Limits(workers, deadline))


def predict_each(
    model: Model,
    videos: Sequence[Video],
    top: int,
    device: str,
    limits: Limits,
    stop: StopRequest | None = None,
    export: nn.Module | None = None,
) -> Generator[Prediction, None, None]:
    """Yield the prediction of each video, in their order; no more where ``stop`` is requested.

    ``export``: computes in the place of the model's network, on the CPU.
    """
    network = export or for_inference(model.network.to(choose_device(device)))

    def best(views_NCTHW: Tensor) -> tuple[tuple[str, float], ...]:
        return best_classes(model, network, views_NCTHW, top)

    with closing(made_of(model, videos, best, limits, stop)) as answers:
        for video, found, error in answers:
            yield Prediction(Path(video.path), error, video.start, video.end, found or ())


@torch.inference_mode()
def scores_of_views(model: Model, network: nn.Module, views_NCTHW: Tensor) -> Tensor:
    """Return the scores (K,) of one video, averaged over its views. Raises VideoError where they are not numbers."""
    config = model.config
    labels = mirrored_labels(model.classes, config.test.flip)
    average = ViewAverage(1, len(model.classes), len(views_NCTHW), config.test.average, labels)
    for some_N, some_NCTHW in batches_of(model, network, views_NCTHW):
        scores_NK = scores_of(network, some_NCTHW, config.precision, config.clip)
        average.add(scores_NK, torch.zeros_like(some_N), some_N)
    try:
        scores_K = average.scores()[0]
    except UserError:
        raise VideoError("refused", "the network's scores are not numbers; train it again") from None
    return scores_K.softmax(0) if config.test.average == "logits" else scores_K


def best_classes(model: Model, network: nn.Module, views_NCTHW: Tensor, top: int) -> tuple[tuple[str, float], ...]:
    """Return the ``top`` likeliest classes of a video with their scores, best first.

    ``network``: the model's, ready for predictions. Raises VideoError where scores are not numbers.
    """
    best = scores_of_views(model, network, views_NCTHW).topk(min(top, len(model.classes)))
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return tuple((model.classes[index], score) for score, index in pairs)
