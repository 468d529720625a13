"""Faults made on purpose: a process that is killed at its n-th call of the file system."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir", "ftruncate")


def killed_at(call: int, action: Callable[[], object]) -> bool:
    """Run the action in a forked process that SIGKILLs itself at this call (counted from 1); False if it ended before.

    A write is killed when half of its bytes are written, every other call before it happens.
    """
    child = os.fork()
    if child == 0:
        try:
            _arm(call)
            action()
        except BaseException:
            os._exit(99)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _arm(call: int) -> None:
    left = [call]

    def armed(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return replacement

    for name in CALLS:
        setattr(os, name, armed(name, getattr(os, name)))


def start_python(code: str, *args: object) -> subprocess.Popen[str]:
    """Start a real process with this code; its output can be read line by line."""
    command = [sys.executable, "-u", "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
