"""What the test writes: results.json, predictions.csv, confusion.json and a few clips to look at."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pvnas.config import ClipConfig, RunConfig
from pvnas.data.check.results import inert
from pvnas.data.clips.loader import display_frames
from pvnas.data.clips.mirrored_views import mirrored_labels, views_of_a_video
from pvnas.data.clips.network_input import motion_pictures, network_input
from pvnas.data.dataset import VideoDataset
from pvnas.fast.flow import optical_flow
from pvnas.runtime.files import write_atomic
from pvnas.space.evidence import evidence
from pvnas.space.network import PVNASNetwork
from pvnas.training.calibration import as_probabilities, calibration
from pvnas.training.evaluate import score_table

SAMPLES, MISTAKES = 12, 24
SHOWN = 8  # frames of a clip: more would be too small to see on a page
SCORE_DIGITS = 6
FOR, AGAINST = np.array([230, 70, 30]), np.array([40, 110, 220])  # red-orange and blue: told apart by all eyes


def write_results(
    run_dir: Path,
    videos: VideoDataset,
    scores_VK: Tensor,
    config: RunConfig,
    about: dict[str, Any],
    network: nn.Module | None = None,
) -> dict[str, Any]:
    """Write the test's files and return the content of results.json; ``about`` is added to it as it is.

    ``network``: that was tested; of one of ours the samples show where and when it saw what it says.
    """
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
        "calibration": calibration(as_probabilities(scores_VK, test.average), labels_V),
        **about,
    }
    write_atomic(run_dir / "confusion.json", json.dumps(confusion) + "\n")
    write_atomic(run_dir / "predictions.csv", _predictions_csv(videos, scores_VK))
    explained = network if isinstance(network, PVNASNetwork) else None
    write_samples(run_dir / "samples", videos, scores_VK, config, explained)
    write_mistakes(run_dir / "samples", videos, scores_VK, config)
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


def predictions_of(run_dir: Path) -> dict[str, str]:
    """Return what a test has said of each of its videos, by name; nothing where none is there."""
    try:
        with (run_dir / "predictions.csv").open(encoding="utf-8", newline="") as file:
            return {row["path"]: row["prediction"] for row in csv.DictReader(file)}
    except (OSError, KeyError):
        return {}


def write_samples(
    folder: Path, videos: VideoDataset, scores_VK: Tensor, config: RunConfig, network: PVNASNetwork | None = None
) -> None:
    """Write strips of frames of up to SAMPLES test videos, evenly spread over the list, and samples.json."""
    from matplotlib.image import imsave

    catalog = videos.catalog
    folder.mkdir(parents=True, exist_ok=True)
    n = len(catalog.videos)
    chosen = np.unique(np.linspace(0, n - 1, SAMPLES).round().astype(int)).tolist() if n else []
    samples = []
    for number, index in enumerate(chosen):
        frames_THWC = display_frames(videos, index, config.clip, config.test)
        video, best = catalog.videos[index], int(scores_VK[index].argmax())
        rows = [strip(frames_THWC, config.clip)]
        if network is not None:
            rows.append(evidence_strip(frames_THWC, _evidence(network, frames_THWC, best, config), config.clip))
        imsave(folder / f"{number:02d}.png", np.concatenate(rows))
        sample = {"path": video.name, "file": f"{number:02d}.png", "truth": catalog.classes[video.label]}
        score = round(float(scores_VK[index, best]), SCORE_DIGITS)
        said = {"prediction": catalog.classes[best], "score": score, "explained": network is not None}
        samples.append(sample | said)
    write_atomic(folder / "samples.json", json.dumps(samples, indent=1) + "\n")


def write_mistakes(folder: Path, videos: VideoDataset, scores_VK: Tensor, config: RunConfig) -> None:
    """Write strips of the test videos that are wrong with the highest scores, up to MISTAKES, and mistakes.json."""
    from matplotlib.image import imsave

    catalog = videos.catalog
    labels_V = torch.tensor([video.label for video in catalog.videos], dtype=torch.int64)
    best_V, said_V = as_probabilities(scores_VK, config.test.average).max(1)
    wrong = (said_V != labels_V).nonzero().flatten()
    chosen = wrong[best_V[wrong].argsort(descending=True, stable=True)][:MISTAKES]
    for old in folder.glob("mistake-*.png"):
        old.unlink()
    mistakes = []
    for number, index in enumerate(chosen.tolist()):
        file, video = f"mistake-{number:02d}.png", catalog.videos[index]
        imsave(folder / file, strip(display_frames(videos, index, config.clip, config.test), config.clip))
        mistake = {"path": video.name, "file": file, "truth": catalog.classes[video.label]}
        said = {"prediction": catalog.classes[int(said_V[index])], "score": round(float(best_V[index]), SCORE_DIGITS)}
        mistakes.append(mistake | said)
    write_atomic(folder / "mistakes.json", json.dumps(mistakes, indent=1) + "\n")


def strip(frames_THWC: NDArray[np.uint8], clip: ClipConfig) -> NDArray[np.uint8]:
    """Return up to SHOWN frames of a clip side by side (H, SHOWN * W, 3); where motion is seen, that below them.

    ``frames_THWC``: all that were read of it.
    """
    shown = _shown(clip)
    rows: list[NDArray[np.uint8]] = [np.broadcast_to(frames_THWC, (*frames_THWC.shape[:3], 3))[shown]]
    if clip.input != "rgb":
        clips_NCTHW = torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None]
        rows.append(motion_pictures(clips_NCTHW, clip)[0].permute(1, 2, 3, 0).numpy()[shown])
    return np.concatenate([np.concatenate(list(row_THWC), axis=1) for row_THWC in rows])


def _shown(clip: ClipConfig) -> NDArray[np.int64]:
    """Return which frames of a clip a strip shows."""
    return np.unique(np.linspace(0, clip.frames - 1, SHOWN).round().astype(int))


def _evidence(
    network: PVNASNetwork, frames_THWC: NDArray[np.uint8], label: int, config: RunConfig
) -> NDArray[np.float32]:
    """Return what each place of a clip adds to the score of a class, (T', H', W')."""
    device = next(network.parameters()).device
    clips_NCTHW = torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None].to(device)
    with torch.no_grad():
        x_NCTHW = network_input(clips_NCTHW, config.clip, None, optical_flow)
    _, map_NTHW = evidence(network, x_NCTHW, torch.tensor([label], device=device))
    places: NDArray[np.float32] = map_NTHW[0].float().cpu().numpy()
    return places


def evidence_strip(frames_THWC: NDArray[np.uint8], map_THW: NDArray[np.float32], clip: ClipConfig) -> NDArray[np.uint8]:
    """Return the frames of ``strip`` in grey, coloured where they speak for a class (red) or against it (blue).

    Below each frame is a bar: how much all of it adds. (H + H/8, SHOWN * W, 3)
    """
    shown, (height, width) = _shown(clip), frames_THWC.shape[1:3]
    strongest = max(float(np.abs(map_THW).max()), 1e-12)
    sums_T = map_THW.sum((1, 2))
    largest = max(float(np.abs(sums_T).max()), 1e-12)
    pictures = []
    for t in shown:
        at = t * len(map_THW) // clip.frames  # a stem may leave every other frame
        grey_HW1 = frames_THWC[t].mean(-1, keepdims=True)
        small = torch.from_numpy(map_THW[at])[None, None]
        map_HW = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
        share_HW1 = 0.75 * (np.abs(map_HW) / strongest)[..., None]
        colour_HW3 = np.where(map_HW[..., None] > 0, FOR, AGAINST)
        picture = (1 - share_HW1) * grey_HW1 + share_HW1 * colour_HW3
        bar = np.full((max(3, height // 8), width, 3), 255.0)
        bar[1:, : round(width * abs(float(sums_T[at])) / largest)] = FOR if sums_T[at] > 0 else AGAINST
        pictures.append(np.concatenate([picture, bar]))
    return np.concatenate(pictures, axis=1).round().clip(0, 255).astype(np.uint8)
