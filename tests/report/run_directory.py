"""A synthetic run directory in the real file formats, with hostile names where they can hurt."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from pvnas.space.genotype import CATEGORIES, EDGES, ZERO, Genotype, operations_of, random_genotype

SHAPES = (
    "grow",
    "move_down",
    "move_left",
    "move_right",
    "move_up",
    "shrink",
    "turn_clockwise",
    "turn_counterclockwise",
)
HOSTILE = "<script>alert(1)</script> $x^2$ \x1b[31m&\u202e"
CONFIG = """preset: demo
seed: 0
data:
  path: /videos/shapes
search:
  epochs: 6
train:
  epochs: 24
"""


def class_names(n: int) -> list[str]:
    """The demo's classes, or invented ones."""
    return list(SHAPES) if n == len(SHAPES) else [f"class number {k:03d}" for k in range(n)]


def build_run(
    folder: Path,
    classes: list[str] | None = None,
    *,
    search_epochs: int = 6,
    train_epochs: int = 24,
    tested: bool = True,
    wanted_train_epochs: int = 24,
) -> Path:
    """Write a run directory: search, then training, then test, as far as asked for."""
    names = classes or class_names(8)
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG.replace("epochs: 24", f"epochs: {wanted_train_epochs}").replace(
        "epochs: 6", f"epochs: {search_epochs}"
    )
    (folder / "config.yaml").write_text(config)
    write_data(folder, names)
    genotypes = write_search(folder, draw, search_epochs)
    if train_epochs or tested:
        (folder / "genotype.json").write_text(genotypes[-1].to_json())
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(train_entry(epoch, train_epochs)) + "\n" for epoch in range(1, train_epochs + 1))
    if tested:
        write_test(folder, draw, names)
    return folder


def write_search(folder: Path, draw: np.random.Generator, epochs: int) -> list[Genotype]:
    """Alphas that drift apart, the genotype of every epoch, the search's metrics."""
    (folder / "genotypes").mkdir()
    alphas = {c: np.zeros((len(EDGES), len(operations_of(c))), np.float32) for c in CATEGORIES}
    tensors, genotypes = {f"epoch_000/{c}": alphas[c].copy() for c in CATEGORIES}, []
    drift = {c: draw.normal(0, 0.12, alphas[c].shape).astype(np.float32) for c in CATEGORIES}
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(1, epochs + 1):
            for category in CATEGORIES:
                alphas[category] += drift[category] + draw.normal(0, 0.03, alphas[category].shape).astype(np.float32)
                tensors[f"epoch_{epoch:03d}/{category}"] = alphas[category].copy()
            genotype = derive(alphas).with_about(epoch=epoch)
            genotypes.append(genotype)
            (folder / f"genotypes/epoch_{epoch:03d}.json").write_text(genotype.to_json())
            file.write(json.dumps(search_entry(epoch, alphas, genotype)) + "\n")
    save_file(tensors, folder / "alphas.safetensors")
    return genotypes or [random_genotype(0)]


def derive(alphas: dict[str, np.ndarray]) -> Genotype:
    """The best operations of the best two edges of each node, as the search would keep them."""
    cells = {}
    for category, alpha in alphas.items():
        names = operations_of(category)
        share = np.exp(alpha) / np.exp(alpha).sum(-1, keepdims=True)
        share[:, names.index(ZERO)] = -1
        nodes = []
        for node in range(2, 6):
            rows = sorted((r for r, (n, _) in enumerate(EDGES) if n == node), key=lambda r: -share[r].max())[:2]
            nodes.append([(EDGES[r][1], names[int(share[r].argmax())]) for r in rows])
        cells[category] = nodes
    return Genotype.from_cells(cells)


def search_entry(epoch: int, alphas: dict[str, np.ndarray], genotype: Genotype) -> dict[str, object]:
    """One line of metrics.jsonl of the search."""
    entropy = {}
    for category, alpha in alphas.items():
        p = np.exp(alpha) / np.exp(alpha).sum(-1, keepdims=True)
        entropy[category] = float(-(p * np.log(p)).sum(-1).mean())
    entropy["mean"] = sum(entropy.values()) / len(entropy)
    return {
        "stage": "search", "epoch": epoch, "loss": 2.1 * 0.9**epoch, "top1": min(95, 12 + 7.5 * epoch),
        "val_loss": 2.1 * 0.92**epoch, "val_top1": min(90, 12 + 6 * epoch), "lr": 0.05 * 0.1 ** ((epoch - 1) // 2),
        "alpha_lr": 0.01, "seconds": 21.5, "clips_per_s": 37.2, "wait_share": 0.02,
        "parameter_free": genotype.parameter_free(), "alpha_entropy": entropy,
    }  # fmt: skip


def train_entry(epoch: int, epochs: int) -> dict[str, object]:
    """One line of metrics.jsonl of the training."""
    done = epoch / epochs
    return {
        "stage": "train", "epoch": epoch, "loss": 2.1 - 1.8 * done**0.7, "top1": 12 + 82 * done**0.6,
        "val_loss": 2.1 - 1.6 * done**0.7, "val_top1": 12 + 74 * done**0.6, "val_top5": 60 + 39 * done**0.5,
        "lr": 0.05 * (1 + np.cos(np.pi * done)) + 1e-5, "seconds": 14.0, "clips_per_s": 57.0, "wait_share": 0.03,
    }  # fmt: skip


def write_data(folder: Path, names: list[str]) -> None:
    """The list of the data, verdicts with a few bad videos, machine and versions."""
    shares = {"train": 100, "val": 15, "test": 25}
    counts = {split: dict.fromkeys(names, n) for split, n in shares.items()}
    (folder / "catalog.json").write_text(
        json.dumps({"root": "/videos/shapes", "classes": names, "counts": counts, "excluded": 2})
    )
    good = {"verdict": "ok", "detail": "", "frames": 36, "rate": 30.0, "width": 64, "height": 48, "seconds": 1.2}
    verdicts = [{"path": f"{name}/{k:03d}.mp4", **good} for name in names for k in range(10)]
    verdicts[3] |= {"verdict": "short"}
    verdicts += [
        {**good, "path": f"{names[0]}/bad.mp4", "verdict": "unreadable", "detail": "Invalid data found"},
        {**good, "path": f"{names[0]}/list.mp4", "verdict": "refused", "detail": "format ffconcat"},
    ]
    (folder / "verdicts.json").write_text(json.dumps(verdicts))
    machine = {"cpu": "Some CPU", "cores": 2, "torch": "2.13.0", "python": "3.11.9", "pvnas": "0.1.0", "threads": 2}
    command = "pvnas demo --dir runs/demo"
    (folder / "environment.json").write_text(json.dumps({**machine, "date": "2025-01-31", "command": command}))


def write_test(folder: Path, draw: np.random.Generator, names: list[str]) -> None:
    """The result, the confusion matrix and twelve strips of moving shapes."""
    k = len(names)
    matrix = np.zeros((k, k), np.int64)
    for truth in range(k):
        right = int(draw.integers(14, 25))
        matrix[truth, truth] = right
        matrix[truth] += np.bincount(draw.choice([(truth + 1) % k, (truth + k // 2) % k], 25 - right), minlength=k)
    accuracy = (100 * matrix.diagonal() / matrix.sum(1)).round(2).tolist()
    results = {
        "top1": round(100 * float(matrix.trace() / matrix.sum()), 2), "top5": 98.5, "mean_class": 83.25, "k": min(5, k),
        "n_videos": int(matrix.sum()), "n_failed": 0, "views": 2, "temporal_views": 2, "spatial_views": 1,
        "params": 236_412, "macs_per_view": 41_230_112, "macs_per_video": 82_460_224, "clip": [8, 40, 40],
        "classes": names, "class_accuracy": accuracy, "digest": "ab" * 32, "genotype_digest": "cd" * 32,
        "seconds": {"search": 129.0, "train": 336.4, "test": 9.2}, "layout": "S-NC*K S-RC", "width": 12, "repeat": 1,
        "stem": "stride2", "sampling": "segment", "rule": "slowfast", "short_videos": "fit",
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "confusion.json").write_text(json.dumps({"classes": names, "matrix": matrix.tolist()}))
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerow(["path", "label", "prediction", "correct", "score", *names])
    write_samples(folder / "samples", draw, names)


def write_samples(folder: Path, draw: np.random.Generator, names: list[str]) -> None:
    """Strips of eight frames of 40 x 40 pixels: a square that walks over a textured background."""
    folder.mkdir()
    listed = []
    for number in range(12):
        strip = np.repeat(draw.integers(60, 160, (40, 40, 3), np.uint8)[None], 8, axis=0)
        for frame in range(8):
            strip[frame, 14:26, 3 * frame : 3 * frame + 12] = (230, 90, 40)
        Image.fromarray(np.concatenate(list(strip), axis=1)).save(folder / f"{number:02d}.png")
        truth = names[number % len(names)]
        said = truth if number % 4 else names[(number + 1) % len(names)]
        listed.append({"path": f"{truth}/{number:03d}.mp4", "file": f"{number:02d}.png", "truth": truth,
                       "prediction": said, "score": 0.35 + 0.05 * number})  # fmt: skip
    (folder / "samples.json").write_text(json.dumps(listed))
