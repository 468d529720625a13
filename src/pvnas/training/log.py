"""What an epoch leaves behind: one line of metrics.jsonl, TensorBoard scalars, one line for the person who waits.

metrics.jsonl holds one JSON object per line; it is written by append and safe against a torn last line.
"""

import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from pvnas.errors import UserError
from pvnas.runtime.files import explained, make_folder, opened, write_all, write_atomic
from pvnas.runtime.progress import Progress

MOST_LINES = 100
"""Epochs of a stage that are all said; of more some fifty are."""


class EpochLog:
    """Writes an epoch's measures wherever they are read."""

    def __init__(self, run_dir: Path, progress: Progress, *, tensorboard: bool) -> None:
        self.path, self.progress = run_dir / "metrics.jsonl", progress
        self.scalars = ScalarLog(run_dir / "tensorboard", tensorboard)

    def rewind(self, stage: str, epochs: int) -> None:
        """Drop the lines of a stage beyond so many epochs: an interrupted run wrote them after its checkpoint."""
        truncate_metrics(self.path, lambda line: line["stage"] != stage or line["epoch"] <= epochs)

    def write(
        self,
        stage: str,
        epoch: int,
        epochs: int,
        sums: dict[str, Tensor],
        times: dict[str, float],
        extra: dict[str, Any],
    ) -> None:
        """Write one of so many epochs: ``sums`` from class_sums, ``times`` in seconds, ``extra`` as it is."""
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
        if is_said(epoch, epochs):
            self.progress.line(_summary(record))


def is_said(epoch: int, epochs: int) -> bool:
    """Return whether an epoch has a line for the person who waits: of hundreds of short ones the first and each nth."""
    return epochs <= MOST_LINES or epoch in (1, epochs) or epoch % math.ceil(2 * epochs / MOST_LINES) == 0


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
        if self.enabled and stage not in self._writers:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._writers[stage] = SummaryWriter(str(self.folder / stage), purge_step=epoch)
            except (ImportError, UnicodeError) as error:
                self.enabled = False
                no_utf8 = isinstance(error, UnicodeError)
                why = "its folder's name is no UTF-8" if no_utf8 else "the tensorboard package is missing"
                logging.getLogger(__name__).warning(
                    "no TensorBoard scalars: %s (metrics.jsonl holds the same numbers)", why
                )
        if not self.enabled:
            return
        writer = self._writers[stage]
        for name, value in record.items():
            if name != "epoch" and isinstance(value, int | float) and math.isfinite(value):
                writer.add_scalar(name, float(value), epoch)
        writer.flush()


def append_metrics(path: Path, record: dict[str, Any]) -> None:
    """Add one line and flush it to the disk. Numbers that are not finite become null: JSON has no others.

    A last line without its end, which a killed writer left, is removed first. Raises UserError when the disk is full;
    the file is then as it was.
    """
    line = (json.dumps(_finite(record), allow_nan=False) + "\n").encode()
    with explained(path):
        make_folder(path.parent)
        with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
            end = path.read_bytes().rfind(b"\n") + 1
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                write_all(descriptor, line)
            except BaseException:
                os.ftruncate(descriptor, end)
                raise
            os.fsync(descriptor)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records in the order of their lines; none where there is no file. A torn last line is left out.

    Raises UserError with the line's number where a finished line is no JSON object.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise UserError(
                f"{path} line {number}: not a JSON object; remove the line, then type the same command again"
            )
        records.append(record)
    return records


def truncate_metrics(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the records that ``keep`` says yes to, and drop the others and a torn last line, in one atomic write."""
    if not path.exists():
        return
    text = "".join(json.dumps(record) + "\n" for record in read_metrics(path) if keep(record))
    if text.encode() != path.read_bytes():
        write_atomic(path, text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
