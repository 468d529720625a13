"""One run per directory, and a killed one does not block the next."""

import os
import socket
from pathlib import Path

import pytest
from faults import start_python

from pvnas.errors import UserError
from pvnas.runtime.files import TEMPORARY, run_lock

HOLD = """
    import sys
    from pathlib import Path
    from pvnas.runtime.files import run_lock
    with run_lock(Path(sys.argv[1])):
        print("held")
        sys.stdin.readline()
"""


def test_the_second_process_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    first = start_python(HOLD, tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(UserError) as error, run_lock(tmp_path):
        pass
    assert f"process {first.pid} on {socket.gethostname()[:64]}" in str(error.value)
    assert str(tmp_path) in str(error.value)
    first.communicate("\n", timeout=10)
    with run_lock(tmp_path):
        pass


def test_a_killed_holder_leaves_no_lock_and_its_strays_go(tmp_path: Path) -> None:
    first = start_python(HOLD, tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    stray = tmp_path / "genotypes" / f"{TEMPORARY}1-epoch_001.json"
    stray.parent.mkdir()
    stray.write_text("half")
    first.kill()
    first.communicate()
    with run_lock(tmp_path):
        assert not stray.exists()


def test_within_one_process_it_is_refused_too(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()}"), run_lock(tmp_path):
        pass


def test_a_forked_worker_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from pvnas.runtime.files import run_lock
        with run_lock(Path(sys.argv[1])):
            if os.fork() == 0:
                print("worker")
                sys.stdin.readline()
                os._exit(0)
            while True:
                os.wait()
    """
    parent = start_python(code, tmp_path)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "worker\n"
    with pytest.raises(UserError, match=f"process {parent.pid}"), run_lock(tmp_path):
        pass
    parent.kill()
    parent.wait(timeout=10)
    with run_lock(tmp_path):  # the worker still lives: it waits for its line
        pass
    parent.communicate("\n", timeout=10)


def test_a_fork_does_not_keep_the_lock_after_its_end(tmp_path: Path) -> None:
    for _ in range(20):
        with run_lock(tmp_path):
            worker = os.fork()
            if worker == 0:
                os._exit(0)
        with run_lock(tmp_path):
            assert os.waitpid(worker, 0)[1] == 0


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"pid": "x"}', b"[" * 5000])
def test_a_damaged_lock_file_is_still_a_lock(tmp_path: Path, content: bytes) -> None:
    with run_lock(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(UserError, match="another process is running"), run_lock(tmp_path):
            pass


def test_a_folder_that_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"), run_lock(tmp_path / "none"):
        pass
