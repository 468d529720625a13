"""How much memory this process may still take: what the machine has free, and what its control groups leave of it."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

MACHINE, GROUP = "the machine has free", "the control group (of a container or a job) leaves"
# Files of a control group: its limit, what it takes, and the line of memory.stat with what it could give back.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> tuple[float, str]:
    """Return the bytes, and in words what leaves no more; infinity where the system does not say."""
    left_by_groups = min(_left_by_groups(proc / "self" / "cgroup", groups), default=math.inf)
    return min((_free_of_machine(proc / "meminfo"), MACHINE), (left_by_groups, GROUP))


def shown_bytes(number: float) -> str:
    """Return a size as a person reads it."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number / 2**10:.0f} KiB"


def _free_of_machine(meminfo: Path) -> float:
    with suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(int(line.split()[1]) << 10)
    with suppress(OSError, ValueError, AttributeError):  # macOS does not say what is free: half of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    return math.inf


def _left_by_groups(own: Path, root: Path) -> Iterator[float]:
    """Yield what each control group leaves that this process is in, up to the root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, files = (root / "memory", VERSION_1) if controllers else (root, VERSION_2)
        group = PurePosixPath(place.strip("/"))
        # In a container the place may be the host's, of which only the root is there.
        for one in (group, *group.parents):
            with suppress(OSError, ValueError):
                yield _left_by_group(folder / one, *files)


def _left_by_group(folder: Path, limit: str, taken: str, reclaimable: str) -> float:
    """Return what one group leaves. Raises OSError, ValueError where it has no limit or does not say."""
    most, now = (int((folder / name).read_text()) for name in (limit, taken))
    rows = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
    given_back = sum(int(row[1]) for row in rows if len(row) == 2 and row[0] == reclaimable)
    return float(max(0, most - now + given_back))
