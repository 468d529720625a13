"""Real processes that join each other as torchrun's would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

PREAMBLE = """
import os, sys, time
import torch
from pvnas.config import RunConfig
from pvnas.errors import LostProcessError, UserError
from pvnas.runtime.distributed import joined_world
from pvnas.runtime.signals import Interrupted
from pvnas.runtime.tree_sum import TreeSum

torch.set_num_threads(1)
rank = int(os.environ.get("RANK") or os.environ["SLURM_PROCID"])
config = RunConfig()
"""


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def place(rank: int, size: int, port: int) -> dict[str, str]:
    """Return the variables that torchrun gives a process."""
    where = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    return {name: str(value) for name, value in where.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def place_by_slurm(rank: int, size: int, port: int) -> dict[str, str]:
    """Return the variables that srun gives a task of a job on one node."""
    where = {"PROCID": rank, "LOCALID": rank, "NODEID": 0, "STEP_NUM_TASKS": size, "STEP_TASKS_PER_NODE": size}
    return {f"SLURM_{name}": str(value) for name, value in where.items()} | {
        "SLURM_JOB_ID": str(port),
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    }


def children_of(pid: int) -> list[int]:
    """Return the processes that one has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_ended(pid: int) -> bool:
    """Return whether a process ends within seconds; one that nobody has waited for has, too."""
    until, stat = time.monotonic() + 10, Path(f"/proc/{pid}/stat")
    while time.monotonic() < until:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def joined(
    code: str,
    size: int = 2,
    seconds: float = 60,
    place: Callable[[int, int, int], dict[str, str]] = place,
    without: int | None = None,
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program in processes of one world, and return how each ended; ``without``: one that the others do not wait
    for, and that is killed when they have ended.
    """
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)],
            env=os.environ | place(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    ended = {}
    for rank in sorted(range(size), key=lambda rank: rank == without):  # that one last
        process = started[rank]
        if rank == without:
            process.kill()
        out, err = process.communicate(timeout=seconds)
        ended[rank] = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    return [ended[rank] for rank in range(size)]
