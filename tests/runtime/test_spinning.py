"""How threads wait follows how crowded the machine is, and what the user has set is left alone."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from pvnas.runtime.device import usable_cores
from pvnas.runtime.spinning import Crowding, IdleThreads, _has_gcc_runtime, queued_seconds

adaptable = pytest.mark.skipif(
    not (_has_gcc_runtime() and queued_seconds()),
    reason="not GCC's OpenMP runtime, or nobody counts queues",
)
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def in_new_python(code: str, **settings: str) -> str:
    """Return what this code prints in a new interpreter."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | settings
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=240).stdout


def comes_true(condition: Callable[[], bool]) -> bool:
    """Return whether it does so within a minute."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.0, 0.2, 0.2], [False, False, False]),  # not yet crowded
        ([0.3, 0.2, 0.11, 0.09, 0.2], [True, True, True, False, False]),  # crowded until it is quiet
        ([2.5, 0.0, 2.5], [True, False, True]),
    ],
)
def test_crowded_from_a_quarter_on_and_quiet_below_a_tenth(shares: list[float], expected: list[bool]) -> None:
    crowding = Crowding()
    assert not crowding.look({"1": 7.0, "2": 5.0}, now=100.0)
    queued = {"1": 7.0, "2": 5.0}
    for number, (share, crowded) in enumerate(zip(shares, expected, strict=True), start=1):
        queued = {"1": queued["1"] + share, "2": queued["2"] + share}  # two threads, in two seconds
        assert crowding.look(queued, now=100.0 + 2 * number) is crowded


def test_what_a_thread_had_queued_before_it_was_seen_does_not_count() -> None:
    crowding = Crowding()
    crowding.look({"1": 1.0, "ends": 50.0}, now=10.0)
    assert not crowding.look({"1": 1.0, "begins": 60.0}, now=11.0)


@adaptable
def test_each_thread_is_asked() -> None:
    threads = queued_seconds()
    assert str(threading.get_native_id()) in threads
    assert all(seconds >= 0 for seconds in threads.values())


@adaptable
def test_idle_threads_are_more_than_there_are_cores_and_go_when_told() -> None:
    before = set(os.listdir("/proc/self/task"))

    def idle_threads() -> int:
        return len(set(os.listdir("/proc/self/task")) - before)

    idle = IdleThreads()
    assert comes_true(lambda: idle_threads() > usable_cores())
    idle.end()
    assert comes_true(lambda: idle_threads() == 0)


BESIDE_BUSY_PROCESSES = r"""
import subprocess, sys, threading, time
import pvnas
from pvnas.runtime.device import usable_cores
from pvnas.runtime.spinning import adapt_spinning

assert adapt_spinning() and adapt_spinning()
# They end of themselves, should this process be killed.
busy = "import time; end = time.monotonic() + 130\nwhile time.monotonic() < end: pass"
loops = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(usable_cores() + 1)]
try:
    deadline = time.monotonic() + 120
    while "pvnas-idle" not in (names := [thread.name for thread in threading.enumerate()]):
        assert time.monotonic() < deadline, names
finally:
    for loop in loops:
        loop.kill()
print(names.count("pvnas-spinning"))
"""


@adaptable
def test_beside_busy_processes_threads_spin_shortly() -> None:
    assert in_new_python(BESIDE_BUSY_PROCESSES) == "1\n"


@adaptable
@pytest.mark.parametrize("settings", [{"GOMP_SPINCOUNT": "20"}, {"OMP_WAIT_POLICY": "passive"}])
def test_what_the_user_has_set_stays(settings: dict[str, str]) -> None:
    code = "from pvnas.runtime.spinning import adapt_spinning; print(adapt_spinning())"
    assert in_new_python(code, **settings) == "False\n"


def test_a_network_for_predictions_begins_to_watch() -> None:
    code = """
import threading, pvnas
pvnas.for_inference(pvnas.create_model("pvnas_tiny", genotype=pvnas.random_genotype(0), num_classes=3))
print("pvnas-spinning" in [thread.name for thread in threading.enumerate()])
"""
    assert in_new_python(code) == f"{_has_gcc_runtime() and bool(queued_seconds())}\n"
