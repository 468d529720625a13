"""The C++ kernels, compiled once for a machine by its C++ compiler and kept in the user's cache."""

import ctypes
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("*/cpu.cpp"))
INCLUDE = FOLDER / "include"
# $PVNAS_CXXFLAGS come last and win: `-mno-avx512f` holds vectors to AVX2, as `make test-avx2` does.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp", *os.environ.get("PVNAS_CXXFLAGS", "").split())
TYPES = {torch.float32: "float", torch.float64: "double"}

_watchers: list[Callable[[object], None]] = []


class CannotCompileError(Exception):
    """What the compiler says, in a line."""


def call(name: str, *arguments: Tensor | int | tuple[Tensor | int | None, ...] | None) -> None:
    """Run a kernel of the first tensor's type by a record of the number of threads and the arguments, in 64 bits each.

    Tensors are taken as they lie in memory. A tuple stands for its parts.
    """
    flat = [part for each in arguments for part in (each if isinstance(each, tuple) else (each,))]
    for watcher in _watchers:
        watcher(flat)
    dtype = next(part.dtype for part in flat if isinstance(part, Tensor))
    record = [part.data_ptr() if isinstance(part, Tensor) else part or 0 for part in flat]
    getattr(library(dtype), f"pvnas_{name}")(struct.pack(f"{1 + len(record)}q", torch.get_num_threads(), *record))


def as_bits(number: float) -> int:
    """Return a float64 as ``call`` takes it."""
    return int(struct.unpack("q", struct.pack("d", number))[0])


@contextmanager
def watched(watcher: Callable[[object], None]) -> Iterator[None]:
    """Show a function the arguments of each kernel, which PyTorch's dispatcher does not see."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def supported() -> bool:
    """Return whether the kernels are written for this kind of machine: Linux with a 64-bit processor."""
    return sys.platform == "linux" and sys.maxsize > 2**32 and sys.byteorder == "little"


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """Return the kernels for numbers of a type, compiled if they have never been. Raises CannotCompileError."""
    path = library_path(dtype)
    if not path.exists():
        _compile(path, TYPES[dtype])
    return ctypes.CDLL(str(path))


def cache_folder() -> Path:
    """Return where compiled kernels are kept: $XDG_CACHE_HOME/pvnas/kernels, ~/.cache without it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pvnas" / "kernels"


def compiler() -> str | None:
    """Return the C++ compiler: $CXX, or what there is of c++, g++, clang++."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def library_path(dtype: torch.dtype) -> Path:
    """Return the file of the kernels for numbers of a type, there or not."""
    return cache_folder() / f"{TYPES[dtype]}-{_fingerprint()}.so"


def _fingerprint() -> str:
    """A name that changes with the sources, the flags, the compiler and the processor."""
    digest = hashlib.sha256()
    for path in (*SOURCES, *sorted(INCLUDE.iterdir())):
        digest.update(path.read_bytes())
    words = [*FLAGS, compiler() or "", platform.machine(), _processor(), torch.__version__]
    digest.update("\n".join(words).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """The processor and what it can do, since a compiled kernel asks for that."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _compile(path: Path, number: str) -> None:
    """Compile all sources, side by side, and put the library in its place at once: others may be doing the same."""
    command = compiler()
    if command is None:
        raise CannotCompileError("there is no C++ compiler")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            objects = [str(Path(folder) / f"{source.parent.name}.o") for source in SOURCES]
            flags = [command, *FLAGS, f"-I{INCLUDE}", f"-DREAL={number}"]
            calls = [[*flags, "-c", str(source), "-o", target] for source, target in zip(SOURCES, objects, strict=True)]
            cores = os.cpu_count() or 1
            for first in range(0, len(calls), cores):
                _run(calls[first : first + cores])
            linked = Path(folder) / path.name
            _run([[command, *FLAGS, "-shared", "-o", str(linked), *objects]])
            linked.replace(path)
    except OSError as error:
        raise CannotCompileError(str(error)) from None


def _run(commands: list[list[str]]) -> None:
    """Run commands side by side; none is left behind, whatever ends this. Raises CannotCompileError."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            processes.append(process)
        for command, process in zip(commands, processes, strict=True):
            _, errors = process.communicate()
            if process.returncode:
                lines = [*errors.splitlines(), f"ended with exit code {process.returncode}"]
                said = next((line for line in lines if "error" in line), lines[0])
                raise CannotCompileError(f"{command[0]}: {said.strip()}")
    finally:
        for process in processes:
            process.kill()
            process.wait()
