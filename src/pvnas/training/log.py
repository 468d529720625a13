"""What an epoch leaves behind: one line of metrics.jsonl, TensorBoard scalars, one line for the person who waits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvnas.runtime.progress import Progress
from pvnas.runtime.record import append_metrics, truncate_metrics
from pvnas.runtime.scalars import ScalarLog


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which forward passes run: bfloat16 where the config asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def class_sums(scores_NK: Tensor, losses_N: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """Return sums over the clips of a batch: loss, correct, clips, and loss and clips by class (K,)."""
    losses_N, classes = losses_N.detach().double(), scores_NK.shape[1]
    zeros_K = torch.zeros(classes, dtype=torch.float64, device=labels_N.device)
    return {
        "loss": losses_N.sum(),
        "correct": (scores_NK.detach().argmax(1) == labels_N).sum().double(),
        "clips": torch.full((), len(labels_N), dtype=torch.float64, device=labels_N.device),
        "class_loss": zeros_K.index_add(0, labels_N, losses_N),
        "class_clips": zeros_K.index_add(0, labels_N, torch.ones_like(losses_N)),
    }


class EpochLog:
    """Writes an epoch's measures wherever they are read."""

    def __init__(self, run_dir: Path, progress: Progress, scalars: ScalarLog) -> None:
        self.path, self.progress, self.scalars = run_dir / "metrics.jsonl", progress, scalars

    def rewind(self, stage: str, epochs: int) -> None:
        """Drop the lines of a stage beyond so many epochs: an interrupted run wrote them after its checkpoint."""
        if self.path.exists():
            truncate_metrics(self.path, lambda line: line["stage"] != stage or line["epoch"] <= epochs)

    def write(
        self, stage: str, epoch: int, sums: dict[str, Tensor], times: dict[str, float], extra: dict[str, Any]
    ) -> None:
        """Write one epoch: ``sums`` from class_sums over all its clips, ``times`` in seconds, ``extra`` as it is."""
        clips, seconds = float(sums["clips"]), max(times["seconds"], 1e-9)
        record = {
            "stage": stage,
            "epoch": epoch,
            "loss": float(sums["loss"]) / clips,
            "top1": 100.0 * float(sums["correct"]) / clips,
            "seconds": round(times["seconds"], 3),
            "clips_per_s": round(clips / seconds, 3),
            "wait_share": round(times["wait"] / seconds, 4),
            "loss_per_class": (sums["class_loss"] / sums["class_clips"].clamp_min(1)).tolist(),
            **extra,
        }
        append_metrics(self.path, record)
        self.scalars.write(stage, epoch, {k: v for k, v in record.items() if isinstance(v, int | float)})
        self.progress.line(_summary(record))


def _summary(record: dict[str, Any]) -> str:
    """One line such as ``train epoch 3: loss 1.92, top-1 31.0 %, validation 28.4 %, 41.0 clips/s, waiting 2 %``."""
    parts = [f"{record['stage']} epoch {record['epoch']}: loss {record['loss']:.3f}, top-1 {record['top1']:.1f} %"]
    if "val_top1" in record:
        parts.append(f"validation {record['val_top1']:.1f} %")
    if "parameter_free" in record:
        parts.append(f"{record['parameter_free']['total']} operations without parameters")
    parts.append(f"{record['clips_per_s']:.1f} clips/s, waiting for data {100 * record['wait_share']:.0f} %")
    return ", ".join(parts)
