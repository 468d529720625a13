"""Worker processes that cannot go on, or hang: one line that says what to do, and an end; never a wait without one."""

import multiprocessing.queues
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pvnas.data.clips import workers
from pvnas.data.clips.loader import load
from pvnas.data.clips.workers import items_ahead
from pvnas.errors import UserError

MIB = 1 << 20
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="shared memory is a folder on Linux alone")


def limit(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let the system say that so many bytes of shared memory are free."""
    found = SimpleNamespace(f_bavail=size, f_frsize=1, f_blocks=1)
    monkeypatch.setattr(workers.os, "statvfs", lambda path: found)


@linux_only
@pytest.mark.parametrize("free, ahead", [(600, 2), (599, 1), (400, 1)])
def test_workers_make_as_many_batches_ahead_as_there_is_room_for(
    free: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, free * MIB)
    assert items_ahead(2, 100 * MIB) == ahead


@linux_only
def test_too_little_shared_memory_is_said_before_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 64 * MIB)
    with pytest.raises(UserError) as refused:
        next(load(lambda key: torch.zeros(1), range(4), workers=8, item_bytes=73 * MIB))
    assert str(refused.value) == (
        "/dev/shm has 64.0 MiB free, and the batches of 8 worker processes take 1.3 GiB: give it more "
        "(docker run --shm-size=1378m, or --ipc=host), or decode in the main process: --data.workers 0"
    )
    limit(monkeypatch, 300 * MIB)
    with pytest.raises(UserError, match=r"or read with fewer processes: --data.workers 2"):
        items_ahead(8, 73 * MIB)


@linux_only
def test_without_shared_memory_workers_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "FOLDER", tmp_path / "gone")
    with pytest.raises(UserError, match=r"No such file or directory.*mount -t tmpfs.*--data.workers 0"):
        items_ahead(2, 1)


def test_processes_that_cannot_be_started_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(UserError, match=r"2 processes .* cannot be started \(Resource temporarily unavailable\)"):
        next(load(lambda key: torch.zeros(1), range(4), workers=2, item_bytes=4))


LOAD = """
    import os, sys, torch
    from pvnas.data.clips.loader import load
    from pvnas.errors import UserError
    {setup}
    try:
        for item in load(lambda key: torch.full(({size},), key, dtype=torch.uint8), range(6), workers=2, item_bytes=0):
            print(int(item[0]), flush=True)
    except UserError as error:
        print(error)
"""


def start(code: str, *arguments: object, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*within, sys.executable, "-u", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: Any) -> str:
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return str(output)


@linux_only
def test_a_batch_that_no_longer_fits_is_one_line_and_an_end() -> None:
    """With a small /dev/shm of its own, where the system lets this test have one."""
    if os.geteuid() or not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no right to mount a file system")
    mounted = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh")
    process = start(LOAD.format(setup="", size=2 * MIB), within=mounted)
    assert said(process).startswith("/dev/shm is too small for the batches: give it more (docker run --shm-size=2g")


@linux_only
def test_too_many_open_files_are_one_line_and_an_end() -> None:
    """Enough of them for two workers to start, and not for their batches; who is the first to lack one is chance."""
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 11,) * 2)"
    output = said(start(LOAD.format(setup=few, size=8)))
    assert output.splitlines()[-1].startswith("too many open files for worker processes: allow more (ulimit -n 65536)")


@linux_only
def test_a_worker_that_lacks_open_files_says_so_by_its_end() -> None:
    """Whatever its error is: here that of a module of Python's which finds no folder for temporary files."""

    def make(key: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3,) * 2)
        multiprocessing.queues.Queue._on_queue_feeder_error(FileNotFoundError("no folder"), None)  # type: ignore[attr-defined]

    with pytest.raises(UserError, match=r"^too many open files for worker processes: allow more"):
        next(load(make, range(6), workers=1, item_bytes=0))


HANGS = """
    import os, sys, torch
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # what a worker that hangs is given to end by itself, in s
    from pvnas.data.clips.loader import load
    from pvnas.runtime.signals import Interrupted, StopRequest

    def hang(key):
        print(os.getpid(), flush=True)
        open(sys.argv[1]).read()  # a pipe that nobody writes to

    with StopRequest() as stop:
        try:
            next(load(hang, range(9), workers=1, item_bytes=0))
        except Interrupted as interrupted:
            sys.exit(interrupted.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_ends_the_wait_for_a_worker_that_hangs(number: signal.Signals, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = start(HANGS, tmp_path / "pipe")
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    with pytest.raises(ProcessLookupError):  # nobody is left behind
        os.kill(worker, 0)


GROUP = """
    import os, sys, torch
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # what a worker that hangs is given to end by itself, in s
    from pvnas.data.clips.loader import load
    from pvnas.runtime.signals import Interrupted, StopRequest

    def make(key):
        os.write(1, b"%d\\n" % os.getpid())  # in one piece: two processes write
        if sys.argv[1] == "wait":
            open(sys.argv[2]).read()  # a pipe that nobody writes to
        return torch.zeros(1)

    with StopRequest() as stop:
        try:
            for item in load(make, range(9), workers=2, item_bytes=0):
                while not stop.requested:  # a step
                    torch.ones(9).sum()
        except Interrupted as interrupted:
            sys.exit(interrupted.exit_code)
"""


@linux_only
@pytest.mark.parametrize("what", ["wait", "step"])
def test_a_scheduler_that_ends_all_processes_at_once_stops_a_run_in_order(what: str, tmp_path: Path) -> None:
    """The death of a worker would be an error in the middle of whatever the main process does."""
    os.mkfifo(tmp_path / "pipe")
    process = start(GROUP, what, tmp_path / "pipe")
    assert process.stdout is not None
    pids = {int(process.stdout.readline())}
    while len(pids) < 2:
        pids.add(int(process.stdout.readline()))
    try:
        for pid in (*pids, process.pid):
            os.kill(pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, errors
    assert "RuntimeError" not in errors
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
