"""What an epoch leaves behind: one line of metrics.jsonl, TensorBoard scalars, one line for the person who waits."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from pvnas.runtime.progress import Progress
from pvnas.runtime.record import append_metrics, truncate_metrics


class EpochLog:
    """Writes an epoch's measures wherever they are read."""

    def __init__(self, run_dir: Path, progress: Progress, *, tensorboard: bool) -> None:
        self.path, self.progress = run_dir / "metrics.jsonl", progress
        self.scalars = ScalarLog(run_dir / "tensorboard", tensorboard)

    def rewind(self, stage: str, epochs: int) -> None:
        """Drop the lines of a stage beyond so many epochs: an interrupted run wrote them after its checkpoint."""
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
        self.scalars.write(stage, epoch, record)
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


class ScalarLog:
    """Writes the numbers of an epoch to a folder for each stage; does nothing without the tensorboard package."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        self.folder, self.enabled = folder, enabled
        self._writers: dict[str, Any] = {}

    def write(self, stage: str, epoch: int, record: dict[str, Any]) -> None:
        """Write the record's finite numbers, but not those inside of lists and groups, and flush them.

        The first write of a stage hides what an interrupted run wrote for this epoch and later ones.
        """
        writer = self._writer(stage, epoch)
        if writer is None:
            return
        for name, value in record.items():
            if name != "epoch" and isinstance(value, int | float) and math.isfinite(value):
                writer.add_scalar(name, float(value), epoch)
        writer.flush()

    def close(self) -> None:
        """Close the files; a later write opens new ones."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, stage: str, epoch: int) -> Any:
        if not self.enabled:
            return None
        if stage not in self._writers:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.enabled = False
                logging.getLogger(__name__).warning(
                    "no TensorBoard scalars: the tensorboard package is missing (metrics.jsonl holds the same numbers)"
                )
                return None
            self._writers[stage] = SummaryWriter(str(self.folder / stage), purge_step=epoch)
        return self._writers[stage]
