"""Compiling the kernels for a CPU, and what happens where they cannot be."""

import os
import stat

import pytest
import torch
from pvnas.space.kernels.cpu import library
from pvnas.space.kernels.cpu.library import CannotCompileError

from pvnas.space import kernels

needs_a_compiler = pytest.mark.skipif(library.compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def a_cache(monkeypatch, tmp_path):
    """A cache of our own, and no memory of what was compiled before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pvnas" / "kernels"


def a_compiler(tmp_path, monkeypatch, script):
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))


@needs_a_compiler
def test_compiled_once_for_all_processes(a_cache, monkeypatch):
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS[:1], "-O0", *library.FLAGS[2:]))  # sooner
    library.library.__wrapped__(torch.float32)
    (made,) = a_cache.iterdir()
    assert made.name.startswith("float-")
    monkeypatch.setattr(library, "_compile", lambda *a: pytest.fail("compiled again"))
    assert library.library.__wrapped__(torch.float32).pvnas_depthwise_kernel_gradient


def test_without_a_compiler_cells_go_on_with_pytorchs_operations(a_cache, monkeypatch):
    monkeypatch.setattr(library, "compiler", lambda: None)
    monkeypatch.setattr(library, "library", library.library.__wrapped__)  # which another test may have asked for
    with pytest.warns(RuntimeWarning, match=r"cannot be compiled \(there is no C\+\+ compiler\): cells compute"):
        assert kernels._on_cpu.__wrapped__(torch.float32) is None


def test_what_the_compiler_says_is_told_in_a_line(a_cache, monkeypatch, tmp_path):
    a_compiler(
        tmp_path, monkeypatch, "echo 'x.cpp:1: note: no'; echo 'x.cpp:2: error: -fopenmp is unknown' >&2; exit 1"
    )
    with pytest.raises(CannotCompileError, match=r"compiler: x\.cpp:2: error: -fopenmp is unknown$"):
        library.library.__wrapped__(torch.float32)
    assert list(a_cache.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(a_cache, monkeypatch):
    a_cache.mkdir(parents=True)
    a_cache.chmod(0o500)
    with pytest.raises(CannotCompileError, match="Permission denied"):
        library.library.__wrapped__(torch.float32)


def test_a_cache_that_is_a_file(a_cache):
    a_cache.parent.mkdir()
    a_cache.write_text("")
    with pytest.raises(CannotCompileError, match="File exists"):
        library.library.__wrapped__(torch.float32)


def test_left_out_where_they_are_not_wanted(monkeypatch):
    with kernels.by_pytorch():
        assert kernels.kernels_for(torch.ones(1)) is None
        assert kernels.kind_on(torch.device("cpu")) == "pytorch"
    for x in (torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.bfloat16), torch.ones(1, device="meta")):
        assert kernels.kernels_for(x) is None


@needs_a_compiler
def test_watchers_see_the_tensors_that_kernels_read_and_write():
    from pvnas.space.kernels.cpu import KERNELS

    seen = []
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    with library.watched(seen.append):
        y = KERNELS.every_other(x, 0)
    KERNELS.every_other(x, 1)
    (arguments,) = seen
    assert kernels.kind_on(x.device) == "c++"
    assert [a is x or a is y for a in arguments if isinstance(a, torch.Tensor)] == [True, True]
