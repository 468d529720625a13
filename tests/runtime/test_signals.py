"""A signal asks for a stop; it breaks nothing; the second Ctrl-C leaves at once."""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from faults import start_python

from pvnas.runtime.checkpoint import load_checkpoint, save_checkpoint
from pvnas.runtime.signals import Interrupted, StopRequest, ends_waits, note_interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_the_old_handlers_come_back(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert "stopping" in capfd.readouterr().err


def test_a_ctrl_c_that_something_swallows_before_a_run_listens_is_not_lost() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        note_interrupts()
        with suppress(KeyboardInterrupt):  # as an import does with a bare `except`
            os.kill(os.getpid(), signal.SIGINT)
        with StopRequest() as stop:
            assert stop.requested
        with StopRequest() as stop:
            assert not stop.requested
        note_interrupts()
        with StopRequest() as stop:
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_comes_too_late_for_an_inner_block_is_the_outer_ones() -> None:
    with StopRequest() as outer:
        with StopRequest() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert inner.requested
        assert outer.requested
        with pytest.raises(Interrupted), ends_waits():
            pass
    with StopRequest() as outer:
        with StopRequest():
            pass
        assert not outer.requested


def test_a_ctrl_c_in_an_import_leaves_at_once_whatever_the_package_does_with_it(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(
        "import time\ntry:\n    print('importing', flush=True)\n    time.sleep(60)\nexcept:\n    pass\n"
    )
    code = """
    import signal, sys
    from pvnas.runtime.signals import note_interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    note_interrupts()
    sys.path.insert(0, sys.argv[1])
    import greedy
    print("went on")
    """
    process = start_python(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "\npvnas: stopped\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_save_leaves_a_whole_checkpoint(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def signalled(descriptor: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM if stop.requested else number)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", signalled)
    with StopRequest() as stop:
        save_checkpoint(tmp_path, "x", {"w": torch.ones(3)}, {"step": 1})
    assert stop.requested
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state == {"step": 1}


HOLD = """
    import sys, time
    from pvnas.runtime.signals import StopRequest
    with StopRequest() as stop:
        print("ready")
        while not stop.requested:
            time.sleep(0.01)
        print("requested")
        {after}
"""


@pytest.mark.parametrize("after", ["time.sleep(60)", "sum(range(10**11))"])
def test_a_second_ctrl_c_leaves_at_once_even_in_a_long_call(after: str) -> None:
    process = start_python(HOLD.format(after=after))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "requested\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)  # far less than the call would take
    assert process.returncode == -signal.SIGINT


def test_sigterm_may_be_repeated() -> None:
    process = start_python(HOLD.format(after="sys.stdin.readline(); print('saved')"))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "requested\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate("\n", timeout=10)
    assert (output, process.returncode) == ("saved\n", 0)


def test_a_forked_worker_leaves_ctrl_c_to_its_parent_and_obeys_sigterm() -> None:
    with StopRequest() as stop:
        worker = os.fork()
        if worker == 0:
            time.sleep(30)
            os._exit(0)
        time.sleep(0.1)
        os.kill(worker, signal.SIGINT)
        time.sleep(0.1)
        assert os.waitpid(worker, os.WNOHANG) == (0, 0)
        os.kill(worker, signal.SIGTERM)
        _, status = os.waitpid(worker, 0)
        assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
        assert not stop.requested


def test_outside_of_the_main_thread_it_only_holds_the_flag() -> None:
    flags: list[bool] = []

    def run() -> None:
        with StopRequest() as stop:
            flags.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert flags == [False]


def test_the_exit_code_says_try_again() -> None:
    assert Interrupted("x").exit_code == 75
    assert subprocess.run(["sh", "-c", f"exit {Interrupted.exit_code}"], check=False).returncode == os.EX_TEMPFAIL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_wait_at_once_and_no_other_work(number: signal.Signals) -> None:
    with StopRequest() as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        with pytest.raises(Interrupted), ends_waits():
            time.sleep(60)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)  # again, while a checkpoint is saved, say
        with pytest.raises(Interrupted), ends_waits():  # asked before: nothing is begun any more
            raise AssertionError


def test_waits_within_waits_and_a_request_within_a_request() -> None:
    with StopRequest() as outer, ends_waits():
        with ends_waits():
            pass
        with StopRequest() as inner:
            os.kill(os.getpid(), signal.SIGTERM)  # only the inner one hears, and nothing waits for it
            assert inner.requested
            assert not outer.requested
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_without_a_request_and_in_another_thread_waits_are_as_they_were() -> None:
    with ends_waits():
        pass
    done: list[int] = []

    def run() -> None:
        with ends_waits():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)

    with StopRequest() as stop:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert (done, stop.requested) == ([1], True)


def test_what_takes_errors_for_damage_does_not_take_a_stop_for_one() -> None:
    assert not issubclass(Interrupted, Exception)
