"""What the benchmark scripts share: run a command of this checkout, and say on what it ran."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[1] / "src"


def environment() -> dict[str, str]:
    """The environment in which `python -m pvnas` is this checkout's."""
    paths = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def pvnas(arguments: list[str]) -> int:
    """Run one command of this checkout and return its exit code."""
    print("pvnas", *arguments, file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, "-m", "pvnas", *arguments], env=environment(), check=False).returncode


def describe_machine() -> dict[str, Any]:
    """Hardware and versions, for the record."""
    import torch

    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "gpu": gpu.name if gpu else None,
        "gpu_memory_gib": round(gpu.total_memory / 2**30, 1) if gpu else None,
        "cuda": torch.version.cuda,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of this checkout, where git knows it."""
    command = ["git", "-C", str(SOURCES.parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line() -> str:
    """The command that was typed, with names in place of the machine's paths, for the record."""
    script, *words = (Path(word).name for word in sys.argv)
    return " ".join(["python", f"benchmarks/{script}", *words])


def in_one_line(main: Callable[[], None]) -> None:
    """Run a script; a mistake that a person can mend is one line and exit code 2, a stop one line and 75."""
    from pvnas.errors import UserError
    from pvnas.runtime.signals import Interrupted

    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Interrupted as stopped:
        print(f"{Path(sys.argv[0]).name}: {stopped}; the same command goes on", file=sys.stderr)
        raise SystemExit(75) from None
