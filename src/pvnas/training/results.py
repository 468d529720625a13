"""What the test writes: results.json, predictions.csv, confusion.json and a few clips to look at."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pvnas.config import ClipConfig, RunConfig
from pvnas.data.check.results import inert
from pvnas.data.clips.loader import display_frames
from pvnas.data.clips.mirrored_views import mirrored_labels, views_of_a_video
from pvnas.data.clips.network_input import motion_pictures
from pvnas.data.dataset import VideoDataset
from pvnas.runtime.files import write_atomic
from pvnas.training.evaluate import score_table

SAMPLES = 12
SHOWN = 8  # frames of a clip: more would be too small to see on a page
SCORE_DIGITS = 6


def write_results(
    run_dir: Path, videos: VideoDataset, scores_VK: Tensor, config: RunConfig, about: dict[str, Any]
) -> dict[str, Any]:
    """Write the test's files and return the content of results.json; ``about`` is added to it as it is."""
    catalog, test = videos.catalog, config.test
    labels_V = torch.tensor([video.label for video in catalog.videos], dtype=torch.int64)
    table = score_table(scores_VK, labels_V, catalog.classes)
    confusion = {"classes": list(catalog.classes), "matrix": table.pop("confusion")}
    views = views_of_a_video(test, catalog.classes)
    results = {
        **table,
        "n_videos": len(catalog.videos),
        "views": views,
        "temporal_views": test.temporal_views,
        "spatial_views": test.spatial_views,
        "mirrored_views": mirrored_labels(catalog.classes, test.flip) is not None,
        "classes": list(catalog.classes),
        **about,
    }
    write_atomic(run_dir / "confusion.json", json.dumps(confusion) + "\n")
    write_atomic(run_dir / "predictions.csv", _predictions_csv(videos, scores_VK))
    write_samples(run_dir / "samples", videos, scores_VK, config)
    write_atomic(run_dir / "results.json", json.dumps(results, indent=1) + "\n")
    return results


def _predictions_csv(videos: VideoDataset, scores_VK: Tensor) -> str:
    """One line per video: path, label, prediction, correct, score, then the score of every class."""
    catalog, text = videos.catalog, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(inert, ["path", "label", "prediction", "correct", "score", *catalog.classes]))
    for video, scores_K in zip(catalog.videos, scores_VK, strict=True):
        best = int(scores_K.argmax())
        names = [video.name, catalog.classes[video.label], catalog.classes[best]]
        row = [*map(inert, names), int(best == video.label), round(float(scores_K[best]), SCORE_DIGITS)]
        writer.writerow(row + [round(score, SCORE_DIGITS) for score in scores_K.tolist()])
    return text.getvalue()


def write_samples(folder: Path, videos: VideoDataset, scores_VK: Tensor, config: RunConfig) -> None:
    """Write strips of frames of up to SAMPLES test videos, evenly spread over the list, and samples.json."""
    from matplotlib.image import imsave

    catalog = videos.catalog
    folder.mkdir(parents=True, exist_ok=True)
    n = len(catalog.videos)
    chosen = np.unique(np.linspace(0, n - 1, SAMPLES).round().astype(int)).tolist() if n else []
    samples = []
    for number, index in enumerate(chosen):
        frames_THWC = display_frames(videos, index, config.clip, config.test)
        imsave(folder / f"{number:02d}.png", strip(frames_THWC, config.clip))
        video, best = catalog.videos[index], int(scores_VK[index].argmax())
        sample = {"path": video.name, "file": f"{number:02d}.png", "truth": catalog.classes[video.label]}
        score = round(float(scores_VK[index, best]), SCORE_DIGITS)
        samples.append(sample | {"prediction": catalog.classes[best], "score": score})
    write_atomic(folder / "samples.json", json.dumps(samples, indent=1) + "\n")


def strip(frames_THWC: NDArray[np.uint8], clip: ClipConfig) -> NDArray[np.uint8]:
    """Return up to SHOWN frames of a clip side by side (H, SHOWN * W, 3); where motion is seen, that below them.

    ``frames_THWC``: all that were read of it.
    """
    shown = np.unique(np.linspace(0, clip.frames - 1, SHOWN).round().astype(int))
    rows: list[NDArray[np.uint8]] = [np.broadcast_to(frames_THWC, (*frames_THWC.shape[:3], 3))[shown]]
    if clip.input != "rgb":
        clips_NCTHW = torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None]
        rows.append(motion_pictures(clips_NCTHW, clip)[0].permute(1, 2, 3, 0).numpy()[shown])
    return np.concatenate([np.concatenate(list(row_THWC), axis=1) for row_THWC in rows])
