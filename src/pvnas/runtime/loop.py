"""The epochs of any long stage: steps, measures, checkpoints, a clean stop and a resume at the exact step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from pvnas.errors import UserError
from pvnas.runtime.checkpoint import Checkpoint, save_checkpoint
from pvnas.runtime.device import is_want_of_memory
from pvnas.runtime.finite import FiniteCheck
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import Interrupted, StopRequest

SUMS = "sums/"


class Stage(Protocol):
    """What search and training give to the loop."""

    name: str
    epochs: int
    finite: FiniteCheck
    less_memory: str
    """What a user can do where a step asks for more memory than there is."""

    def steps(self) -> int:
        """Return the steps of an epoch."""

    def batches(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Yield the batches of an epoch from a step on."""

    def step(self, epoch: int, step: int, batch: Any) -> dict[str, Tensor]:
        """Make one step and return sums over its clips, at least ``loss`` and ``clips``.

        Asks ``finite`` for its numbers; the FloatingPointError names what is not, and in which step.
        """

    def paths(self, batch: Any) -> tuple[str, ...]:
        """Return the videos of a batch."""

    def end_epoch(self, epoch: int, sums: dict[str, Tensor], times: dict[str, float]) -> None:
        """Validate and write what belongs to a finished epoch (counted from 1)."""

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""

    def state(self) -> dict[str, Any]:
        """Return what tensors() cannot hold, as JSON data."""

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from what tensors() and state() returned."""


def run_epochs(
    stage: Stage,
    folder: Path,
    checkpoint: Checkpoint | None,
    stop: StopRequest,
    progress: Progress,
    *,
    checkpoint_minutes: float,
) -> None:
    """Run a stage to its last epoch from its checkpoint or from the start.

    A checkpoint is saved after every epoch, every ``checkpoint_minutes`` and when a stop is asked for; the last raises
    Interrupted. Raises UserError where a step is not made of finite numbers, or asks for more memory than there is; no
    checkpoint holds such a step.
    """
    epoch, step, sums, times = 0, 0, {}, {"seconds": 0.0, "wait": 0.0}
    if checkpoint is not None:
        epoch, step, times = checkpoint.state["epoch"], checkpoint.state["step"], checkpoint.state["times"]
        sums = {k.removeprefix(SUMS): v for k, v in checkpoint.tensors.items() if k.startswith(SUMS)}
        stage.restore(checkpoint.tensors, checkpoint.state["stage"])

    def save() -> None:
        with _explained(stage, folder):
            stage.finite.settle()
        tensors = stage.tensors() | {SUMS + name: value for name, value in sums.items()}
        state = {"epoch": epoch, "step": step, "times": times, "stage": stage.state()}
        save_checkpoint(folder, f"epoch_{epoch:03d}_step_{step:06d}", tensors, state)

    saved_at = time.monotonic()
    while epoch < stage.epochs:
        title = f"{stage.name} epoch {epoch + 1}/{stage.epochs}"
        with progress.task(title, total=stage.steps(), completed=step, summary=False) as task:
            batches = stage.batches(epoch, step)
            while step < stage.steps():
                started = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - started
                with _explained(stage, folder):
                    measures = stage.step(epoch, step, batch)
                sums = _added(sums, measures)
                step += 1
                times["wait"] += waited
                times["seconds"] += time.perf_counter() - started
                task.advance(clips=len(stage.paths(batch)))
                stopping = stop.requested  # asked once: a signal may come at any time
                if stopping or time.monotonic() - saved_at > 60 * checkpoint_minutes:
                    save()
                    saved_at = time.monotonic()
                if stopping:
                    raise Interrupted(f"{stage.name}: stopped in epoch {epoch + 1} after step {step}; nothing is lost")
        with _explained(stage, folder):
            stage.finite.settle()
        stage.end_epoch(epoch + 1, sums, times)
        epoch, step, sums, times = epoch + 1, 0, {}, {"seconds": 0.0, "wait": 0.0}
        save()
        saved_at = time.monotonic()
        if stop.requested and epoch < stage.epochs:
            raise Interrupted(f"{stage.name}: stopped after epoch {epoch}; nothing is lost")


@contextmanager
def _explained(stage: Stage, folder: Path) -> Iterator[None]:
    """Turn what is not a number, and want of memory, into what to do about it."""
    try:
        yield
    except FloatingPointError as error:
        advice = "lower the learning rate or set weights.clip_gradient"
        raise UserError(f"{stage.name}: {error}; the last good checkpoint is in {folder}; {advice}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        raise UserError(f"{stage.name}: a step asks for more memory than there is; {stage.less_memory}") from None


def _added(sums: dict[str, Tensor], measures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums with a step's measures; those out of a checkpoint come from the CPU."""
    values = {name: value.detach().double() for name, value in measures.items()}
    return {name: value + sums[name].to(value.device) if name in sums else value for name, value in values.items()}


def place_of(epoch: int, step: int, paths: tuple[str, ...]) -> str:
    """Return where in a stage something happened, in words."""
    return f"epoch {epoch + 1}, step {step + 1} (videos {', '.join(paths[:4])}, ...)"
