"""What the bits of a run hang on beside config and videos, and whether that is as it was, and everywhere alike."""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvnas.errors import UserError
from pvnas.runtime.device import usable_cores
from pvnas.runtime.distributed import World

FIELDS = ("threads", "torch", "av", "device", "kernels", "vectors")
"""Of environment.json, of any run."""
FIELDS_OF_A_GPU = ("gpu", "cuda")


def read_environment(path: Path) -> dict[str, Any]:
    """Return what environment.json says; nothing where there is none, or none that can be read."""
    try:
        environment = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(environment, dict):
        return {}
    sound = {"threads": int, "drift": list}
    return {name: value for name, value in environment.items() if isinstance(value, sound.get(name, object))}


def drift_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one text for each field that is another one now; of a field that was not noted then nothing is said.

    The number of processes counts only where the order of sums is left to the backend.
    """
    names = [*FIELDS, *(FIELDS_OF_A_GPU if now.get("device") == "cuda" else ())]
    names += ["processes"] if now.get("sums") == "fast" else []
    return [f"{name}: {before[name]} -> {now[name]}" for name in names if name in before and before[name] != now[name]]


def check_drift(run_dir: Path, changes: list[str], *, accepted: bool) -> None:
    """Raise UserError with the changes, if there are any and they are not accepted."""
    if changes and not accepted:
        raise UserError(
            f"{run_dir} was begun under other conditions ({'; '.join(changes)}), so that it would not end in the bits "
            "of a run that nothing interrupts; go on as it was begun, or, to go on all the same and have the report "
            "say so, type --accept_drift true"
        )


def check_alike(world: World, environment: Mapping[str, Any]) -> None:
    """Raise UserError, in all processes, where they do not run under the same conditions."""
    everywhere = world.exchange({"host": socket.gethostname(), **environment})
    for rank, there in enumerate(everywhere):
        if differing := drift_of(everywhere[0], there):
            hosts = f"process 0 on {everywhere[0]['host']} and process {rank} on {there['host']}"
            raise world.alike(UserError(f"{hosts} do not run under the same conditions: {'; '.join(differing)}"))


def threads_for_each(world: World) -> int:
    """Return the CPU threads of each process: as many as there are cores for every one of them.

    Processes of a host that may use the same cores share them.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [usable_cores()]
    everywhere = world.exchange([socket.gethostname(), cores])
    sharing = sum(there == everywhere[world.rank] for there in everywhere)
    return min(world.exchange(max(1, usable_cores() // sharing)))
