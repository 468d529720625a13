"""What the bits of a run hang on beside its config and its videos, and whether that is still as it was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvnas.errors import UserError

FIELDS = ("threads", "torch", "cuda", "gpu", "kernels", "vectors")
"""Of environment.json. The number of processes is none of them, unless sums are left to the backend."""
FIELDS_IF_FAST = (*FIELDS, "processes")


def read_environment(path: Path) -> dict[str, Any]:
    """Return what environment.json says; nothing where there is none, or none that can be read."""
    try:
        environment = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return environment if isinstance(environment, dict) else {}


def drift_of(before: Mapping[str, Any], now: Mapping[str, Any], *, strict: bool = True) -> list[str]:
    """Return one text for each field that is another one now; of a field that was not noted then nothing is said."""
    names = FIELDS if strict else FIELDS_IF_FAST
    return [f"{name}: {before[name]} -> {now[name]}" for name in names if name in before and before[name] != now[name]]


def check_drift(run_dir: Path, changes: list[str], *, accepted: bool) -> None:
    """Raise UserError with the changes, if there are any and they are not accepted."""
    if changes and not accepted:
        raise UserError(
            f"{run_dir} was begun under other conditions ({'; '.join(changes)}), so that it would not end in the bits "
            "of a run that nothing interrupts; go on as it was begun, or, to go on all the same and have the report "
            "say so, type --accept_drift true"
        )
