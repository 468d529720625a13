"""The processes that make one run together: who they are, what they tell each other, and what ends them all.

The engine is torch.distributed: gloo between processors, nccl between GPUs. torchrun, SLURM's srun or
`pvnas run --processes` starts the processes; their environment says who they are. All compute the same numbers from the
same numbers. They differ in the logical shards of a batch that they run, and in that the first alone writes and speaks.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from pvnas.config import RunConfig
from pvnas.errors import LostProcessError, UserError
from pvnas.runtime.device import is_want_of_memory
from pvnas.runtime.signals import Interrupted

Result = TypeVar("Result")
Ending = TypeVar("Ending", UserError, Interrupted)
PATIENCE = timedelta(days=7)
"""How long the others wait while one prepares what all of them need. That one dies is seen at once."""
ALARM, LOOK_SECONDS = "alarm", 1.0
ROLL_CALL_SECONDS = 3.0
"""How long the living have to answer when one of them has seen that another is lost: they look each second."""
LOSS_OF_PROCESS = "loss_of_process"
"""A measure that several processes have beside the others: the losses of each one's shards, to name where it fails."""
ENDINGS: dict[str, type[BaseException]] = {kind.__name__: kind for kind in (UserError, Interrupted, FloatingPointError)}
"""What ends all processes when it ends one, by name."""


@dataclass(frozen=True)
class World:
    """The processes of a run as one of them sees them. A process alone sends nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number among those on this host."""
    local_size: int = 1
    patient: Any = None
    """The group for waits without a deadline."""
    store: Any = None
    """Where each can leave a word for the others, even when no call reaches them any more."""
    names: tuple[str, ...] = ()
    """Each process as a message names it."""
    strict: bool = True
    """Whether sums over shards are, to the bit, those of a single process."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def part(self, n: int) -> range:
        """Return which of ``n`` things in a row are this process's, dealt out as evenly as they go."""
        return range(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def any(self, *are_so: bool, patient: bool = False) -> list[bool]:
        """Return of each answer whether it is so in any process."""
        if self.size == 1:
            return list(are_so)
        flags = torch.tensor(are_so, dtype=torch.uint8)
        self.call(dist.all_reduce, flags, dist.ReduceOp.MAX, patient=patient)
        return [bool(flag) for flag in flags]

    def together(self, function: Callable[[], Result], *, patient: bool = False) -> Result:
        """Return what the function gives here; an ending that it raises in one process is raised in all of them.

        ``patient``: wait for the others as long as they live.
        """
        if self.size == 1:
            return function()
        result, ending = _outcome(function)
        if self.any(ending is not None, patient=patient)[0]:
            self._raise_first(self.exchange(_described(ending)), ending)
        return result  # type: ignore[return-value]

    def first_does(self, function: Callable[[], Result], *, patient: bool = True) -> Result:
        """Return in all processes what the function gives in the first one, JSON data; its endings are all's."""
        if self.size == 1:
            return function()
        result, ending = _outcome(function) if self.is_first else (None, None)
        result, described = self.exchange((result, _described(ending)), patient=patient)[0]
        self._raise_first([described], ending)
        return result

    def alike(self, ending: Ending) -> Ending:
        """Return an ending that all processes raise alike, marked as said by the first one alone."""
        if self.size > 1:
            ending.said_elsewhere = not self.is_first
        return ending

    def exchange(self, value: Any, *, patient: bool = False) -> list[Any]:
        """Return the JSON data of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        return [json.loads(part.numpy().tobytes()) for part in self.gather(content, patient=patient)]

    def gather(self, tensor: Tensor, *, patient: bool = False) -> list[Tensor]:
        """Return the tensor (on the CPU) of every process, in the order of their ranks; first sides may differ."""
        if self.size == 1:
            return [tensor]
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self.call(dist.all_gather, lengths, torch.tensor([len(tensor)]), patient=patient)
        padded = tensor.new_zeros(max(map(int, lengths)), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        self.call(dist.all_gather, parts, padded, patient=patient)
        return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]

    def from_first(self, content: bytes | None) -> bytes:
        """Return the bytes that the first process has, in all of them; the others give None."""
        if self.size == 1:
            return content or b""
        length = torch.tensor([len(content or b"")])
        self.call(dist.broadcast, length, 0, patient=True)
        received = torch.frombuffer(bytearray(content or bytes(int(length))), dtype=torch.uint8)
        self.call(dist.broadcast, received, 0, patient=True)
        return received.numpy().tobytes()

    def _raise_first(self, endings: Sequence[dict[str, str] | None], own: BaseException | None) -> None:
        """Raise the ending of the first process that has one: there the very same, elsewhere one of its kind."""
        for rank, ending in enumerate(endings):
            if ending is not None:
                is_own = rank == self.rank and own is not None
                raised = own if is_own else ENDINGS[ending["kind"]](ending["text"])
                raised.said_elsewhere = not self.is_first  # type: ignore[union-attr]
                raise raised  # type: ignore[misc]

    def call(self, collective: Callable[..., Any], *arguments: Any, patient: bool = False) -> None:
        """Make a call of torch.distributed that all processes make. Raises LostProcessError.

        While it waits it lets signals in, and looks now and then whether another process has found one lost: most calls
        are answered by neighbours, who may live.
        """
        with self.names_the_lost():
            work = collective(*arguments, group=self.patient if patient else None, async_op=True)
            started = looked = time.monotonic()
            while not work.is_completed():
                waited = time.monotonic() - started
                time.sleep(min(0.0001 + waited / 50, 0.05))  # short for a step's sums, long for long waits
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    if self.store is not None and self.store.check([ALARM]):
                        raise RuntimeError("another process has found one lost")
            work.wait()

    @contextmanager
    def names_the_lost(self) -> Iterator[None]:
        """Turn the error of a call that other processes did not answer into one that says which ones."""
        try:
            yield
        except RuntimeError as error:
            if is_want_of_memory(error):
                raise
            raise self._lost(error) from None

    def _lost(self, error: RuntimeError) -> LostProcessError:
        """Return the error that names who does not answer a roll call; the first of the others will say it."""
        others = [rank for rank in range(self.size) if rank != self.rank and self.store is not None]
        # The first one stays a little longer: the words of all are left with it.
        until = time.monotonic() + ROLL_CALL_SECONDS * (1.5 if self.is_first else 1.0)
        try:
            if others:
                self.store.set(ALARM, "yes")  # for those whose own call has not noticed anything yet
                self.store.set(f"here/{self.rank}", "yes")
            while others and time.monotonic() < until:
                others = [rank for rank in others if not self.store.check([f"here/{rank}"])]
                time.sleep(0.05)
        except RuntimeError:  # nobody keeps the words any more
            others = [0]
        names = self.names or [f"process {rank}" for rank in range(self.size)]
        lost = " and ".join(names[rank] for rank in others) or f"one of the {self.size} processes"
        why = (str(error).splitlines() or [type(error).__name__])[0]
        named = LostProcessError(f"{lost} was lost, or did not answer in time ({why:.160})")
        named.said_elsewhere = self.rank != min(set(range(self.size)) - set(others))
        return named


ALONE = World()
_joined: list[World] = []
"""The world that this process has joined, if it has."""


def _outcome(function: Callable[[], Result]) -> tuple[Result | None, BaseException | None]:
    try:
        return function(), None
    except tuple(ENDINGS.values()) as ending:
        return None, ending


def _described(ending: BaseException | None) -> dict[str, str] | None:
    if ending is None:
        return None
    return {"kind": next(name for name, kind in ENDINGS.items() if isinstance(ending, kind)), "text": str(ending)}


# ---- joining


def place_of(environment: Mapping[str, str]) -> World:
    """Return which process this is by the variables of torchrun (also Kubernetes's PyTorchJob) or of SLURM's srun.

    Raises UserError for numbers that no process has.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]
        values = [environment.get(name, default) for name, default in zip(names, ("", "", "0", "1"), strict=True)]
    elif "SLURM_PROCID" in environment and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        names = ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"]
        values = [environment.get(name, "") for name in names]
        values[3] = _tasks_of_node(values[3], environment.get("SLURM_NODEID", "0"))
    else:
        return ALONE
    try:
        rank, size, local_rank, local_size = map(int, values)
    except ValueError:
        rank, size, local_rank, local_size = -1, 0, 0, 0
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        shown = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise UserError(f"no process of a run has {shown}; start the processes with torchrun, or srun")
    return World(rank, size, local_rank, local_size)


def _tasks_of_node(tasks: str, node: str) -> str:
    """Return the tasks on a node, of SLURM's ``2(x3),1``: two on each of three nodes and one on the fourth."""
    counts: list[str] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks):
        counts += [count] * int(times or 1)
    return counts[int(node)] if node.isdecimal() and int(node) < len(counts) else ""


@contextmanager
def joined_world(config: RunConfig) -> Iterator[World]:
    """Join the processes that the environment tells of and leave them at the end; alone where it tells of none.

    Inside a block of this it gives the same world. Raises UserError where they do not find each other.
    """
    place = place_of(os.environ)
    if place.size == 1 or _joined:
        yield _joined[-1] if _joined else ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    deadline = timedelta(seconds=config.lost_after)
    try:
        store, rank, size = next(rendezvous(_address(), place.rank, place.size, timeout=deadline))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=deadline)
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {place.rank} does not find the other {place.size - 1} ({str(error).splitlines()[0]:.200}); "
            "start them together, with torchrun or srun"
        ) from None
    try:
        world = replace(place, patient=patient, strict=config.determinism == "strict")
        names = world.exchange(f"process {place.rank} (pid {os.getpid()} on {socket.gethostname()})")
        # By these names, since a store may outlive processes that were lost, and the words that they have left there.
        store = dist.PrefixStore(json.dumps(names), store)
        _joined.append(replace(world, names=tuple(names), store=store))
        yield _joined[-1]
    except UserError as error:
        error.said_elsewhere = bool(error.said_elsewhere)
        raise
    finally:
        _joined.clear()
        with suppress(RuntimeError, AssertionError):  # the others may be gone
            dist.destroy_process_group()


def _address() -> str:
    """Return where the processes meet, as a URL of torch.distributed."""
    if "RANK" in os.environ:
        return "env://"
    host = os.environ.get("MASTER_ADDR") or os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    port = os.environ.get("MASTER_PORT") or str(20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000)
    return f"tcp://{host}:{port}"
