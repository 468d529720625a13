"""TensorBoard scalars, where TensorBoard is installed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class ScalarLog:
    """Writes the numbers of an epoch to a folder for each stage; does nothing without the tensorboard package."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        self.folder, self.enabled = folder, enabled
        self._writers: dict[str, Any] = {}

    def write(self, stage: str, epoch: int, record: dict[str, Any]) -> None:
        """Write every finite number of the record, those of nested dictionaries as ``outer/inner``, and flush them.

        The first write of a stage hides what an interrupted run wrote for this epoch and later ones.
        """
        writer = self._writer(stage, epoch)
        if writer is None:
            return
        for name, value in _numbers(record):
            writer.add_scalar(name, value, epoch)
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


def _numbers(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if name in ("stage", "epoch"):
            continue
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield prefix + name, float(value)
