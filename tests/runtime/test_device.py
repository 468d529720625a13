"""The machine as it is chosen and described."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from pvnas.errors import UserError
from pvnas.runtime.device import (
    _copies,
    choose_device,
    copied_to,
    describe_machine,
    keep_freed_memory,
    set_threads,
    usable_cores,
)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device cpu"):
        choose_device("cuda")
    with pytest.raises(UserError, match="auto, cpu and cuda"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        assert set_threads(0) == torch.get_num_threads() == usable_cores()
        with pytest.raises(UserError):
            set_threads(-1)
    finally:
        torch.set_num_threads(before)


def test_the_description_is_json_with_versions_and_without_names_of_this_machine() -> None:
    machine = json.loads(json.dumps(describe_machine()))
    assert {"cpu", "cores", "gpu", "torch", "python", "pvnas"} <= set(machine)
    assert machine["torch"] == torch.__version__
    assert machine["cpu"]


def test_what_is_there_is_not_copied() -> None:
    tensor = torch.arange(4)
    assert copied_to(torch.device("cpu"), [tensor])[0] is tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_to_a_gpu_run_beside_its_work_and_are_read_whole() -> None:
    device, rows = torch.device("cuda"), torch.randn(8192, 8192, device="cuda")
    parts, sums = [torch.full((1 << 20,), float(n)).pin_memory() for n in range(8)], []
    copied_to(device, parts)  # what the first copies wait for: streams and memory
    torch.cuda.synchronize()
    for part in parts:
        rows = rows @ rows  # tens of milliseconds, a copy less than one
        sums.append(copied_to(device, [part])[0].sum())  # and gives its memory back before the GPU has made the sum
    _copies(device).synchronize()
    assert not torch.cuda.current_stream().query()
    assert [float(x) for x in sums] == [float(n << 20) for n in range(8)]


FAULTS = """
import resource, sys, torch
from pvnas.runtime.device import keep_freed_memory
told = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(1 << 20) for _ in range(20)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
rounds = [faults() for _ in range(5)]
print(told, rounds[0], rounds[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
@pytest.mark.parametrize("setting", [None, "131072"])
def test_freed_memory_is_kept_unless_the_user_has_said_otherwise(setting: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    if setting:
        environment["MALLOC_TRIM_THRESHOLD_"] = setting
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=environment)
    told, first, last = done.stdout.split()
    assert told == str(setting is None)
    assert int(first) > 100
    assert (int(last) < int(first) / 10) is (setting is None)


def test_memory_is_left_alone_where_there_is_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
