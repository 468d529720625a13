"""Compiling the kernels in C++, and what happens where they cannot be."""

import os
import stat

import pytest
import torch

from pvnas.fast.kernels import cpp, cpp_library
from pvnas.fast.kernels.cpp_library import CannotCompileError

needs_a_compiler = pytest.mark.skipif(cpp_library.compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A cache in which nothing was compiled before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pvnas" / "kernels"


def use_compiler(tmp_path, monkeypatch, script):
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))


@needs_a_compiler
def test_compiled_once_for_all_processes(empty_cache, monkeypatch):
    monkeypatch.setattr(cpp_library, "FLAGS", (*cpp_library.FLAGS[:1], "-O0", *cpp_library.FLAGS[2:]))  # sooner
    cpp_library.library.__wrapped__(torch.float32)
    (path,) = empty_cache.iterdir()
    assert path.name.startswith("float-")
    monkeypatch.setattr(cpp_library, "_compile", lambda *a: pytest.fail("compiled again"))
    library = cpp_library.library.__wrapped__(torch.float32)
    assert library.pvnas_depthwise_kernel_grad
    assert library.pvnas_spread_pixels


def test_compiled_again_when_a_source_or_a_header_changes(monkeypatch, tmp_path):
    names = {cpp_library._fingerprint()}
    (tmp_path / "one.h").write_text("// other")
    monkeypatch.setattr(cpp_library, "INCLUDE", tmp_path)
    names.add(cpp_library._fingerprint())
    monkeypatch.setattr(cpp_library, "SOURCES", cpp_library.SOURCES[:1])
    names.add(cpp_library._fingerprint())
    assert len(names) == 3


def test_without_a_compiler(empty_cache, monkeypatch):
    monkeypatch.setattr(cpp_library, "compiler", lambda: None)
    with pytest.raises(CannotCompileError, match=r"there is no C\+\+ compiler"):
        cpp_library.library.__wrapped__(torch.float32)


def test_what_the_compiler_says_is_told_in_a_line(empty_cache, monkeypatch, tmp_path):
    use_compiler(
        tmp_path, monkeypatch, "echo 'x.cpp:1: note: no'; echo 'x.cpp:2: error: -fopenmp is unknown' >&2; exit 1"
    )
    with pytest.raises(CannotCompileError, match=r"compiler: x\.cpp:2: error: -fopenmp is unknown$"):
        cpp_library.library.__wrapped__(torch.float32)
    assert list(empty_cache.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(empty_cache):
    empty_cache.mkdir(parents=True)
    empty_cache.chmod(0o500)
    with pytest.raises(CannotCompileError, match="Permission denied"):
        cpp_library.library.__wrapped__(torch.float32)


def test_a_cache_that_is_a_file(empty_cache):
    empty_cache.parent.mkdir()
    empty_cache.write_text("")
    with pytest.raises(CannotCompileError, match="File exists"):
        cpp_library.library.__wrapped__(torch.float32)


@pytest.mark.parametrize("chosen", ["c++ float64"], indirect=True)
def test_watchers_see_the_tensors_that_kernels_read_and_write(make, kernels):
    calls, x = [], make(1, 8, 4, 4)
    with cpp_library.watched(calls.append):
        y = cpp.pick_pixels(x, 0)
    cpp.pick_pixels(x, 1)
    (arguments,) = calls
    assert [a is x or a is y for a in arguments if isinstance(a, torch.Tensor)] == [True, True]
