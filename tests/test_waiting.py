"""How long threads spin at a barrier is set before torch is loaded, and what the user has set is left alone."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only PyTorch for Linux brings GCC's OpenMP runtime")


def spin_count(code: str, **settings: str) -> str:
    """Run this code in a new interpreter and return the spin count that the OpenMP runtime says it has taken."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **settings}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    counts = {line.partition("=")[2].strip(" '") for line in run.stderr.splitlines() if "GOMP_SPINCOUNT" in line}
    assert len(counts) == 1, run.stderr
    return counts.pop()


def test_threads_sleep_soon() -> None:
    assert spin_count("import pvnas; pvnas.create_model") == "1000"


@pytest.mark.parametrize(
    ("settings", "expected"), [({"GOMP_SPINCOUNT": "20"}, "20"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_what_the_user_has_set_stays(settings: dict[str, str], expected: str) -> None:
    assert spin_count("import pvnas; pvnas.create_model", **settings) == expected


def test_processes_started_later_have_it_where_torch_was_loaded_first() -> None:
    """This process itself cannot be helped any more; the runtime shows what it took in the other one alone."""
    child = "[sys.executable, '-c', 'import torch'], env=os.environ | {'OMP_DISPLAY_ENV': 'verbose'}"
    code = f"import os, subprocess, sys; import torch, pvnas; subprocess.run({child}, check=True)"
    assert spin_count(code, OMP_DISPLAY_ENV="false") == "1000"
