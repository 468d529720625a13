"""Where pvnas runs: the one line of a system that it does not run on, and no import that only some systems have."""

import subprocess
import sys

# Modules of Python that Windows lacks. Only their import at the top of a module is a mistake.
UNIX_ONLY = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")


def test_windows_is_refused_in_one_line_before_anything_unix_only_is_imported() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({UNIX_ONLY!r}))
from pvnas.cli import main
sys.platform = "win32"
sys.exit(main(["demo"]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("pvnas: error: pvnas runs on Linux and macOS, not on Windows")
    assert run.stderr.count("\n") == 1
