"""A long stage and the loop that runs it: steps, measures, checkpoints, a clean stop and a resume at the exact step."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pvnas.errors import DivergedError, TooLargeError
from pvnas.runtime.checkpoint import Checkpoint, save_checkpoint
from pvnas.runtime.device import is_want_of_memory
from pvnas.runtime.distributed import ALONE, World
from pvnas.runtime.gpu import FiniteCheck
from pvnas.runtime.optimizers import ScheduledOptimizer
from pvnas.runtime.progress import Progress
from pvnas.runtime.random import key
from pvnas.runtime.signals import Interrupted, StopRequest

SUMS = "sums/"


class DivergedInError(FloatingPointError):
    """A step whose numbers are none, and the process in whose part of the batch they came up."""

    def __init__(self, text: str, rank: int) -> None:
        super().__init__(text)
        self.rank = rank


class Stage(ABC):
    """The making of a network: what the search and the training share, and what the loop asks of them."""

    name: ClassVar[str]
    """Also the name of its random streams and of its checkpoints' folder."""
    less_memory: ClassVar[str]
    """What a user can do where a step asks for more memory than there is."""
    lower_rate = "start anew with a lower learning rate"
    """What a user can do where the training diverges."""

    def __init__(
        self,
        network: nn.Module,
        optimizers: Mapping[str, ScheduledOptimizer],
        *,
        epochs: int,
        seed: int,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        """``optimizers``: by the name that their state has in a checkpoint; ``world``: the processes that share it."""
        self.network, self.optimizers, self.epochs, self.seed, self.device = network, optimizers, epochs, seed, device
        self.world = world
        self.finite = FiniteCheck(device)

    def step(self, epoch: int, step: int, batch: Any) -> dict[str, Tensor]:
        """Make one step and return sums over its clips, at least ``loss`` and ``clips``.

        Raises FloatingPointError that says which number is none, and in which step; on a GPU in a later step.
        """
        for optimizer in self.optimizers.values():
            optimizer.set_epoch(epoch + step / self.steps(), self.epochs)
        if not self.network.training:  # asked, since setting it walks over hundreds of layers
            self.begin_training()
        who = f"{self.world.names[self.world.rank]}, " if self.world.size > 1 else ""
        self.finite.step = f"epoch {epoch + 1}, step {step + 1} ({who}videos {', '.join(batch.paths[:4])}, ...)"
        return self.update(batch.to(self.device), key(self.seed, self.name, epoch, step))

    def begin_training(self) -> None:
        """Set the network's layers to training."""
        self.network.train()

    def start(self) -> None:  # noqa: B027 (most stages have nothing to write)
        """Write what a new stage begins with."""

    @abstractmethod
    def update(self, batch: Any, seed: int) -> dict[str, Tensor]:
        """Make the step on a batch that is on the device; ``seed``: of everything random in it."""

    @abstractmethod
    def steps(self) -> int:
        """Return the steps of an epoch."""

    @abstractmethod
    def batches(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Yield the batches of an epoch from a step on; each has ``paths`` and ``to(device)``."""

    @abstractmethod
    def end_epoch(self, epoch: int, sums: dict[str, Tensor], times: dict[str, float]) -> None:
        """Validate and write what belongs to a finished epoch (counted from 1)."""

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on: weights, BN statistics, the optimisers' state."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"{name}/{entry}": tensor for entry, tensor in optimizer.tensors().items()}
        return tensors

    def state(self) -> dict[str, Any]:
        """Return what tensors() cannot hold, as JSON data: the optimisers' settings."""
        return {name: optimizer.settings() for name, optimizer in self.optimizers.items()}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from what tensors() and state() returned."""
        self.network.load_state_dict(with_prefix(tensors, "network/"))
        for name, optimizer in self.optimizers.items():
            optimizer.restore(with_prefix(tensors, name + "/"), state[name])


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def run_epochs(
    stage: Stage,
    folder: Path,
    checkpoint: Checkpoint | None,
    stop: StopRequest,
    progress: Progress,
    *,
    checkpoint_minutes: float,
    until: tuple[int, int] | None = None,
) -> None:
    """Run a stage to its last epoch, or ``until`` so many epochs and steps, from its checkpoint or from the start.

    A checkpoint is saved after every epoch, every ``checkpoint_minutes`` and when a stop is asked for in any process
    (of the last whole step, where that ends a wait for videos); the last raises Interrupted. Raises UserError where a
    stage diverges (training.divergence) or asks for more memory than there is; no checkpoint holds such a step.
    """
    world, run, minutes = stage.world, _Run(stage, folder, checkpoint), checkpoint_minutes
    while run.epoch < stage.epochs and (run.epoch, run.step) != until:
        title = f"{stage.name} epoch {run.epoch + 1}/{stage.epochs}"
        task_of_epoch = progress.task(title, total=stage.steps(), completed=run.step, summary=False)
        with _explained(stage), task_of_epoch as task:
            batches = stage.batches(run.epoch, run.step)
            while run.step < stage.steps() and (run.epoch, run.step) != until:
                batch = world.together(partial(run.next_batch, batches))
                # A signal may come at any time, to any process: asked once, of all, since all must do the same.
                stopping, saving = *world.any(batch is None), False
                if not stopping:
                    task.advance(clips=run.make_step(batch) * world.size)
                    stopping, saving = world.any(stop.requested, world.is_first and run.minutes_unsaved() > minutes)
                if stopping or saving:
                    run.save()
                if stopping:
                    raise world.alike(Interrupted(_stopped(stage, f"in epoch {run.epoch + 1} after step {run.step}")))
        if (run.epoch, run.step) == until:
            run.save()
            return
        with _explained(stage):
            try:
                run.end_epoch()
            except Interrupted:  # in a wait of the validation
                run.save()
                where = f"in the validation after epoch {run.epoch + 1}"
                raise world.alike(Interrupted(_stopped(stage, where))) from None
        if world.any(stop.requested)[0] and run.epoch < stage.epochs:
            raise world.alike(Interrupted(_stopped(stage, f"after epoch {run.epoch}")))


def _stopped(stage: Stage, where: str) -> str:
    return f"{stage.name}: stopped {where}; nothing is lost"


class _Run:
    """How far a stage is, and what the steps of the epoch have measured and taken so far."""

    sums: dict[str, Tensor]

    def __init__(self, stage: Stage, folder: Path, checkpoint: Checkpoint | None) -> None:
        self.stage, self.folder = stage, folder
        self._start_epoch(0)
        if checkpoint is None:
            stage.world.first_does(stage.start)
        else:
            state = checkpoint.state
            self.epoch, self.step, self.times = state["epoch"], state["step"], state["times"]
            self.sums = with_prefix(checkpoint.tensors, SUMS)
            stage.restore(checkpoint.tensors, state["stage"])
        self.saved_at = time.monotonic()

    def _start_epoch(self, epoch: int) -> None:
        self.epoch, self.step = epoch, 0
        self.sums = {}
        self.times = {"seconds": 0.0, "wait": 0.0}

    def minutes_unsaved(self) -> float:
        """Return how long ago the last checkpoint was saved, or the run begun."""
        return (time.monotonic() - self.saved_at) / 60

    def next_batch(self, batches: Iterator[Any]) -> Any:
        """Return the batch of the next step; None where a stop request ends the wait for it."""
        started = time.perf_counter()
        try:
            return next(batches)
        except Interrupted:
            return None
        finally:
            waited = time.perf_counter() - started
            self.times["wait"] += waited
            self.times["seconds"] += waited

    def make_step(self, batch: Any) -> int:
        """Make the next step and return how many clips this process saw in it."""
        started = time.perf_counter()
        measures = self.stage.step(self.epoch, self.step, batch)
        for name, value in measures.items():
            value = value.detach().double()  # those out of a checkpoint come from the CPU
            self.sums[name] = value + self.sums[name].to(value.device) if name in self.sums else value
        self.step += 1
        self.times["seconds"] += time.perf_counter() - started
        return len(batch.paths)

    def end_epoch(self) -> None:
        self.stage.finite.settle()
        self.stage.end_epoch(self.epoch + 1, self.sums, self.times)
        self._start_epoch(self.epoch + 1)
        self.save()

    def save(self) -> None:
        self.stage.finite.settle()
        tensors = self.stage.tensors() | {SUMS + name: value for name, value in self.sums.items()}
        state = {"epoch": self.epoch, "step": self.step, "times": self.times, "stage": self.stage.state()}
        name = f"epoch_{self.epoch:03d}_step_{self.step:06d}"
        # One for all processes, which have the same; the others wait until it is on the disk.
        self.stage.world.first_does(lambda: save_checkpoint(self.folder, name, tensors, state).name, patient=False)
        self.saved_at = time.monotonic()


@contextmanager
def _explained(stage: Stage) -> Iterator[None]:
    """Turn what is not a number, and want of memory, into what to do about it."""
    try:
        yield
    except FloatingPointError as error:
        # All processes have the same numbers and are here; each names its own videos.
        text = stage.world.exchange(str(error))[error.rank if isinstance(error, DivergedInError) else 0]
        raise stage.world.alike(DivergedError(f"{stage.name} diverged: {text}; {stage.lower_rate}")) from None
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        raise TooLargeError(f"{stage.name}: a step asks for more memory than there is; {stage.less_memory}") from None
