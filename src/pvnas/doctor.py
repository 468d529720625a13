"""`pvnas doctor`: what a run needs, tried on this machine, and what here would make it one that cannot be repeated."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import lock_descriptor

from pvnas.data.clips.workers import free_bytes
from pvnas.errors import UserError
from pvnas.fast.kernels.choice import kernel_facts
from pvnas.runtime.device import choose_device, describe_machine
from pvnas.runtime.files import opened, write_atomic
from pvnas.runtime.memory import free_memory, shown_bytes

PACKAGES = ("torch", "numpy", "av", "simplejpeg", "safetensors", "jinja2", "matplotlib")
CHANGES_BITS = (
    *("PVNAS_KERNELS", "PVNAS_CXXFLAGS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"),
    *("MKL_CBWR", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Variables of the environment under which the same run ends in other last bits."""
SECONDS_TO_MEET = 60
MEETING = """
import sys, torch, torch.distributed as dist
dist.init_process_group("gloo", init_method=sys.argv[1], world_size=2, rank=int(sys.argv[2]))
total = torch.ones(1)
dist.all_reduce(total)
assert total.item() == 2
dist.destroy_process_group()
"""


class Finding(NamedTuple):
    """What was looked at, what it is, and what is wrong with it (empty: nothing)."""

    name: str
    value: str
    problem: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """Yield what was found, one after the other; ``folder``: where runs will lie, made where it is missing."""
    yield from _packages()
    yield from _machine()
    yield from map(_tried, (_kernels, _decoding, _packing))
    yield from (_tried(look, folder) for look in (_room, _renames, _locks))
    yield from map(_tried, (_shared_memory, _processes))
    yield from _repeatable()


def _tried(look: Callable[..., Finding], *about: Path) -> Finding:
    """Return what a look finds; that it fails is a finding, too."""
    try:
        return look(*about)
    except (OSError, UserError, RuntimeError, ValueError, subprocess.SubprocessError, ImportError) as error:
        name = look.__name__.strip("_").replace("_", " ")
        return Finding(name, "does not work", (str(error).splitlines() or [type(error).__name__])[0])


def _packages() -> Iterator[Finding]:
    facts = describe_machine()
    yield Finding("pvnas", f"{facts['pvnas']}, Python {facts['python']}, {facts['system']}")
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing", f"type: pip install {name}")


def _machine() -> Iterator[Finding]:
    facts = describe_machine()
    yield Finding("processor", f"{facts['cpu']}, {facts['vectors']}")
    yield Finding("cores", f"{facts['cores']} for this process, {facts['threads']} threads of PyTorch")
    free, what = free_memory()
    yield Finding(
        "memory", f"{shown_bytes(free)} that {what}", "" if free > 1 << 30 else "under 1 GiB: runs may be killed"
    )
    gpu = f"{facts['gpu']}, {facts['gpu_memory_gib']} GiB, CUDA {facts['cuda']}" if facts["gpu"] else "none"
    yield Finding("GPU", gpu)


def _kernels() -> Finding:
    facts = kernel_facts(choose_device("auto"), torch.float32)
    selftest, slow = facts["kernels_selftest"], facts["kernels"] == "pytorch"
    return Finding("kernels", f"{facts['kernels']}, self-test: {selftest}", "slower than they could be" if slow else "")


def _decoding() -> Finding:
    """Write a video of eight frames into memory and read it."""
    import av
    import numpy as np

    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 30 * level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, mode="r") as written:
        levels = [float(frame.to_ndarray(format="rgb24").mean()) for frame in written.decode(video=0)]
    lacking = [name for name in ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg") if name not in av.codecs_available]
    wrong = len(levels) != 8 or any(abs(level - 30 * k) > 8 for k, level in enumerate(levels))
    problem = (
        "reads other frames than were written" if wrong else f"cannot read {', '.join(lacking)}" if lacking else ""
    )
    library = ".".join(map(str, av.library_versions["libavcodec"]))
    return Finding("decoding", f"libavcodec {library} reads what it writes", problem)


def _packing() -> Finding:
    import numpy as np
    import simplejpeg

    picture = np.zeros((16, 16, 3), np.uint8)
    same = (simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(picture, quality=90)) == picture).all()
    return Finding("packing", "JPEG reads what it writes", "" if same else "reads another picture than was written")


def _room(folder: Path) -> Finding:
    folder.mkdir(parents=True, exist_ok=True)
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    return Finding("disk", f"{shown_bytes(free)} free in {folder}", "" if free > 1 << 28 else "hardly room for a run")


def _renames(folder: Path) -> Finding:
    """Write over a file as checkpoints and tables are written: aside, to the disk, renamed."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file, started = Path(place, "file"), time.perf_counter()
        for content in ("old", "new"):
            write_atomic(file, content)
        milliseconds = 500 * (time.perf_counter() - started)
        names, wrong = os.listdir(place), file.read_text() != "new"
    problem = "a rename leaves the old file, or another one" if wrong or names != ["file"] else ""
    return Finding("atomic writes", f"written, flushed and renamed in {milliseconds:.1f} ms", problem)


def _locks(folder: Path) -> Finding:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place, "lock")
        try:
            with opened(file, os.O_RDWR | os.O_CREAT) as mine, opened(file, os.O_RDWR) as other:
                first, second = (lock_descriptor(descriptor, blocking=False) for descriptor in (mine, other))
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            return Finding("locks", "none", "two runs in one directory would not be kept apart")
    held = first and not second
    return Finding(
        "locks", "kept" if held else "not kept", "" if held else "two runs in one directory are not kept apart"
    )


def _shared_memory() -> Finding:
    free = free_bytes()
    return Finding("shared memory", shown_bytes(free) if free < 1 << 50 else "no limit")


def _processes() -> Finding:
    """Let two processes of torch.distributed meet."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", MEETING, f"file://{place}/meeting"]
        started = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
        try:
            errors = [process.communicate(timeout=SECONDS_TO_MEET)[1].strip() for process in started]
        finally:
            for process in started:
                process.kill()
    codes = [process.returncode for process in started]
    said = (next(filter(None, errors), "") or f"exit codes {codes}").splitlines()[-1]
    problem = f"--processes will not work: {said}" if any(codes) else ""
    return Finding("processes", "two of them meet over gloo", problem)


def _repeatable() -> Iterator[Finding]:
    here = [f"{name}={os.environ[name]}" for name in CHANGES_BITS if name in os.environ]
    problem = "the same run without them ends in other last bits" if here else ""
    yield Finding("environment", ", ".join(here) or "nothing that changes bits", problem)
    if torch.cuda.is_available():
        yield Finding("GPU sums", "some of cuDNN's and PyTorch's add in an order that changes from run to run")
