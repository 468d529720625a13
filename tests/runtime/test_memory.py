"""What memory is free: of the machine and of its control groups, version 1 and 2, in made folders of theirs."""

import math
from pathlib import Path

from pvnas.runtime.memory import GROUP, MACHINE, free_memory, shown_bytes

MIB = 1 << 20


def machine(folder: Path, groups: str, free_mib: int = 8000) -> Path:
    """Write what /proc says of a machine and of the control groups of this process."""
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(f"MemTotal: 16384000 kB\nMemAvailable: {free_mib << 10} kB\n")
    (folder / "self" / "cgroup").write_text(groups)
    return folder


def group(folder: Path, version: int, limit: str, taken_mib: int, inactive_mib: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, str(taken_mib * MIB)), strict=True):
        (folder / name).write_text(f"{value}\n")
    prefix = "" if version == 2 else "total_"
    (folder / "memory.stat").write_text(f"anon 1\n{prefix}inactive_file {inactive_mib * MIB}\n")


def test_the_machine_alone(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", "0::/\n")
    assert free_memory(proc, tmp_path / "groups") == (8000 * MIB, MACHINE)


def test_a_group_of_version_2_and_those_above_it(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", "0::/jobs/7\n")
    group(tmp_path / "groups" / "jobs" / "7", 2, "max", 100)
    group(tmp_path / "groups" / "jobs", 2, str(1000 * MIB), 300, inactive_mib=50)
    assert free_memory(proc, tmp_path / "groups") == (750 * MIB, GROUP)


def test_a_group_of_version_1_in_a_container_that_sees_its_root_alone(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/\n")
    group(tmp_path / "groups" / "memory", 1, str(2000 * MIB), 1500, inactive_mib=100)
    assert free_memory(proc, tmp_path / "groups") == (600 * MIB, GROUP)


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", "0::/a\n")
    group(tmp_path / "groups" / "a", 2, str(100 * MIB), 120)
    assert free_memory(proc, tmp_path / "groups") == (0, GROUP)


def test_no_limit_and_no_proc_are_no_error(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", "4:memory:/\n")
    group(tmp_path / "groups" / "memory", 1, "9223372036854771712", 500)
    assert free_memory(proc, tmp_path / "groups")[1] == MACHINE
    free, _ = free_memory(tmp_path / "nothing", tmp_path / "nothing")
    assert 0 < free <= math.inf


def test_sizes_are_shown_as_a_person_reads_them() -> None:
    assert list(map(shown_bytes, (MIB / 4, 2.26 * MIB, 3415 * MIB))) == ["256 KiB", "2.3 MiB", "3.3 GiB"]
