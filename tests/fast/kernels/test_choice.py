"""Which set of kernels computes with a tensor, and what happens where there is no compiler."""

import pytest
import torch

from pvnas.fast.kernels import choice, cpp, cpp_library, pytorch
from pvnas.fast.kernels.choice import by_pytorch, kernel_facts, kernels_for
from pvnas.fast.kernels.cpp_library import compiler, supported

CPU = torch.device("cpu")
NEEDS_A_COMPILER = pytest.mark.skipif(compiler() is None or not supported(), reason="needs Linux and a C++ compiler")


@NEEDS_A_COMPILER
def test_compiled_kernels_where_they_work():
    assert kernels_for(torch.ones(1)) is cpp
    assert kernels_for(torch.ones(1, dtype=torch.float64)) is cpp
    assert kernel_facts(CPU) == {"kernels": "c++", "kernels_selftest": "passed"}


def test_pytorchs_operations_where_they_are_wanted_or_all_there_is():
    with by_pytorch():
        assert kernels_for(torch.ones(1)) is pytorch
        assert kernel_facts(CPU)["kernels"] == "pytorch"
    for x in (torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.bfloat16), torch.ones(1, device="meta")):
        assert kernels_for(x) is pytorch


def test_without_a_compiler_all_goes_on_with_pytorchs_operations(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cpp_library, "compiler", lambda: None)
    monkeypatch.setattr(cpp_library, "supported", lambda: True)
    monkeypatch.setattr(cpp_library, "library", cpp_library.library.__wrapped__)  # another test may have asked for it
    choice._chosen.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=r"C\+\+ kernels do not work here \(there is no C\+\+ compiler\): PyT"):
            assert kernels_for(torch.ones(1)) is pytorch
        assert kernel_facts(CPU)["kernels_selftest"] == "could not be compiled: there is no C++ compiler"
    finally:
        choice._chosen.cache_clear()


def test_where_they_are_not_written_for_nothing_is_said(monkeypatch, recwarn):
    monkeypatch.setattr(cpp_library, "supported", lambda: False)
    choice._chosen.cache_clear()
    try:
        assert kernels_for(torch.ones(1)) is pytorch
    finally:
        choice._chosen.cache_clear()
    assert not recwarn.list
