"""Hand-made features as a yardstick: a linear SVM on histograms of gradients, of still frames or of whole clips.

    python benchmarks/still_features.py DATA [--list LIST] [--features still motion both] [--out FILE.json]

still: histograms of the orientations of gradients in space in a grid of cells (Dalal and Triggs, 2005), the mean over
three frames. motion: histograms of the directions of gradients in space and time over the whole video, in cells of both
(Klaser et al., 2008). Each cell is divided by the contrast of its neighbourhood. The SVM's C is the best on the
validation videos; the SVM that is tested then learns from training and validation videos. The test chooses nothing.

Legend: V videos, F features, K classes, T frames, H and W pixels, B bins.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common import command_line, describe_machine, in_one_line, now
from pvnas.config import DataConfig
from pvnas.data.dataset import VideoDataset, open_videos
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from video_lists import list_options

SIZE = (64, 80)  # height and width that frames are brought to
STILL_FRAMES, STILL_CELLS, ORIENTATIONS = 3, (1, 8, 10), 9
MOTION_FRAMES, MOTION_CELLS, TIME_WEIGHT = 24, (4, 6, 8), 3.0
CONTRAST = 1e-4  # added to the mean square of a neighbourhood: flat cells stay small
CS = [10.0**power for power in range(-4, 3)]


def main() -> None:
    """Print accuracies and seconds, and write them where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of videos with training, validation and test videos")
    parser.add_argument("--list", type=Path, help="split.csv of some of its videos, read in place of its own")
    parser.add_argument("--features", nargs="+", choices=list(FEATURES), default=["still"])
    parser.add_argument("--out", type=Path, help="also write the results as JSON")
    args = parser.parse_args()
    results = {name: accuracies(args.data, name, args.list) for name in args.features}
    print(json.dumps(results, indent=1))
    if args.out:
        about = {"machine": describe_machine(), "command": command_line(), "date": now()}
        write_atomic(args.out, json.dumps(about | results, indent=1) + "\n")


def accuracies(data: str | Path, name: str, path: Path | None = None) -> dict[str, Any]:
    """Return top-1 in percent on training, validation and test videos, the C chosen, and the seconds it took.

    ``name``: which features; ``path``: a list in place of the data set's own. Raises UserError with no validation.
    """
    config, started = DataConfig(str(data)), time.monotonic()
    if path is not None:
        config.annotations, config.format = list_options(path)[1], "split.csv"
    opened = open_videos(config, seed=0)
    sets = [opened.dataset(split, SIZE[0]) for split in ("train", "val", "test")]
    (train_VF, train_V), (val_VF, val_V), (test_VF, test_V) = (described(videos, name) for videos in sets)
    if not len(val_V):
        raise UserError(f"{data} has no validation videos to choose the SVM's C on; name some in a split.csv")
    classes = len(opened.catalog.classes)
    by_c = {c: accuracy(LinearSVM(train_VF, train_V, classes, c), val_VF, val_V) for c in CS}
    best = max(by_c, key=by_c.__getitem__)
    final = LinearSVM(torch.cat([train_VF, val_VF]), torch.cat([train_V, val_V]), classes, best)
    return {
        "validation": round(by_c[best], 2),
        "test": round(accuracy(final, test_VF, test_V), 2),
        "train": round(accuracy(LinearSVM(train_VF, train_V, classes, best), train_VF, train_V), 2),
        "c": best,
        "features": train_VF.shape[1],
        "videos": [len(train_V), len(val_V), len(test_V)],
        "seconds": round(time.monotonic() - started, 1),
    }


def described(videos: VideoDataset, name: str) -> tuple[Tensor, Tensor]:
    """Return features (V, F) and labels (V,) of all videos."""
    rows = []
    for index in range(len(videos)):
        frames_TCHW = videos.whole(index).frames_TCHW
        parts = [make(grey(evenly(frames_TCHW, frames))) for frames, make in FEATURES[name]]
        rows.append(torch.cat(parts))
    labels_V = torch.tensor([video.label for video in videos.catalog.videos], dtype=torch.int64)
    return torch.stack(rows) if rows else torch.zeros(0, 0), labels_V


# ---- features


def grey(frames_TCHW: Tensor) -> Tensor:
    """Return the grey levels, 0 to 1, of uint8 frames: (T, H, W) of SIZE."""
    grey_T1HW = frames_TCHW.float().mean(1, keepdim=True) / 255
    return F.interpolate(grey_T1HW, SIZE, mode="bilinear", antialias=True, align_corners=False)[:, 0]


def evenly(frames_TCHW: Tensor, n: int) -> Tensor:
    """Return ``n`` frames at even distances from the first to the last."""
    return frames_TCHW[torch.linspace(0, len(frames_TCHW) - 1, n).round().long()]


def gradient(x_THW: Tensor, axis: int) -> Tensor:
    """Return central differences along an axis, one-sided at its ends."""
    return torch.gradient(x_THW, dim=axis)[0]


def still(x_THW: Tensor) -> Tensor:
    """Return histograms of nine orientations without sign, the mean over frames: (F,)."""
    gy, gx = gradient(x_THW, 1), gradient(x_THW, 2)
    strength, place = torch.hypot(gx, gy), torch.atan2(gy, gx) / math.pi % 1.0 * ORIENTATIONS
    lower, share = place.floor().long() % ORIENTATIONS, place % 1.0
    votes_BTHW = torch.zeros(ORIENTATIONS, *x_THW.shape)
    votes_BTHW.scatter_add_(0, lower[None], (strength * (1 - share))[None])
    votes_BTHW.scatter_add_(0, ((lower + 1) % ORIENTATIONS)[None], (strength * share)[None])
    return torch.stack([cells(each[:, None], STILL_CELLS) for each in votes_BTHW.unbind(1)]).mean(0)


def motion(x_THW: Tensor) -> Tensor:
    """Return histograms of twenty directions of gradients in space and time: (F,)."""
    vectors_3THW = torch.stack([TIME_WEIGHT * gradient(x_THW, 0), gradient(x_THW, 1), gradient(x_THW, 2)])
    strength_THW = vectors_3THW.norm(dim=0)
    axes_B3 = directions()
    cosines_BTHW = torch.einsum("bi,ithw->bthw", axes_B3, vectors_3THW) / strength_THW.clamp_min(1e-6)
    nearest = (axes_B3 @ axes_B3.T).fill_diagonal_(-1).max()  # of two neighbouring axes: nothing votes for more than 3
    votes_BTHW = (cosines_BTHW - nearest).clamp_min(0) * strength_THW
    return cells(votes_BTHW, MOTION_CELLS)


def directions() -> Tensor:
    """Return the twenty vertices of a dodecahedron, at length 1: (20, 3)."""
    golden, signs = (1 + 5**0.5) / 2, (-1.0, 1.0)
    corners = [(a, b, c) for a in signs for b in signs for c in signs]
    pairs = [(a / golden, b * golden) for a in signs for b in signs]
    others = [triple for a, b in pairs for triple in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))]
    return torch.tensor(corners + others) / 3**0.5


def cells(votes_BTHW: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return the mean votes of each cell of a grid, divided by the contrast of its neighbourhood, rooted: (F,)."""
    means = F.adaptive_avg_pool3d(votes_BTHW[None], grid)
    window = tuple(min(3, n) for n in grid)
    padding = tuple(n // 2 for n in window)
    energy = means.square().sum(1, keepdim=True)
    around = F.avg_pool3d(energy, window, 1, padding, count_include_pad=False)
    return (means / (around + CONTRAST).sqrt()).sqrt().flatten()


Part = tuple[int, Callable[[Tensor], Tensor]]  # of how many frames, and what is made of them
STILL: Part = (STILL_FRAMES, still)
MOTION: Part = (MOTION_FRAMES, motion)
FEATURES: dict[str, list[Part]] = {"still": [STILL], "motion": [MOTION], "both": [STILL, MOTION]}


# ---- the SVM


class LinearSVM:
    """One linear SVM for each class against all others: squared hinge loss summed over videos, times C, plus |w|^2/2.

    Features lose their mean over the videos that it learns from, and have a mean square length of 1.
    """

    def __init__(self, features_VF: Tensor, labels_V: Tensor, classes: int, c: float) -> None:
        self.mean_F = features_VF.mean(0)
        self.length = (features_VF - self.mean_F).square().sum(1).mean().sqrt().clamp_min(1e-12)
        x_VF = self._scaled(features_VF)
        signs_VK = 2.0 * F.one_hot(labels_V, classes) - 1
        self.weights_FK = torch.zeros(x_VF.shape[1], classes, requires_grad=True)
        self.offsets_K = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [self.weights_FK, self.offsets_K], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            margins_VK = (1 - signs_VK * (x_VF @ self.weights_FK + self.offsets_K)).clamp_min(0)
            value = 0.5 * self.weights_FK.square().sum() + c * margins_VK.square().sum()
            value.backward()
            return value

        optimizer.step(loss)

    def _scaled(self, features_VF: Tensor) -> Tensor:
        return (features_VF - self.mean_F) / self.length

    @torch.no_grad()
    def scores(self, features_VF: Tensor) -> Tensor:
        """Return the scores (V, K)."""
        return self._scaled(features_VF) @ self.weights_FK + self.offsets_K


def accuracy(svm: LinearSVM, features_VF: Tensor, labels_V: Tensor) -> float:
    """Return top-1 in percent; NaN without videos."""
    return 100 * float((svm.scores(features_VF).argmax(1) == labels_V).float().mean())


if __name__ == "__main__":
    in_one_line(main)
