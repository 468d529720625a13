"""Kernels that are wrong must not be trusted: by nobody, told once, and remembered."""

import inspect
import json
import os
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

from pvnas.config import NetworkConfig
from pvnas.fast.accelerate import accelerate
from pvnas.fast.inference import for_inference
from pvnas.fast.kernels import choice, cpp, cpp_library, pytorch, selftest
from pvnas.fast.kernels.cpp_library import compiler, supported
from pvnas.fast.kernels.interface import Kernels
from pvnas.space.genotype import random_genotype
from pvnas.space.network import PVNASNetwork
from pvnas.space.supernet import Supernet

CPU = torch.device("cpu")
X = torch.empty(0)
pytestmark = pytest.mark.skipif(compiler() is None or not supported(), reason="needs Linux and a C++ compiler")


@pytest.fixture(autouse=True)
def records(monkeypatch, tmp_path):
    """A folder of its own for what is remembered; kernels are compiled no second time."""
    library = cpp_library.library_path(torch.float32)
    monkeypatch.setattr(choice, "_record_path", lambda device, dtype: tmp_path / f"{library.stem}-{dtype}.json")
    choice._chosen.cache_clear()
    yield tmp_path
    choice._chosen.cache_clear()


def break_kernel(monkeypatch, name, change):
    right = getattr(cpp, name)
    monkeypatch.setattr(cpp, name, lambda *args, **kwargs: change(right(*args, **kwargs)))


def test_kernels_that_are_right_are_used_and_not_tested_again(monkeypatch, records):
    assert choice.kernels_for(X) is cpp
    assert choice.kernel_facts(CPU) == {"kernels": "c++", "kernels_selftest": "passed"}
    assert [json.loads(path.read_text()) for path in records.iterdir()] == [{"kernels": "c++", "wrong": None}]
    choice._chosen.cache_clear()
    monkeypatch.setattr(selftest, "first_wrong", lambda *_: pytest.fail("tested again"))
    assert choice.kernels_for(X) is cpp


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_kernels_pass_in_each_type(dtype):
    assert selftest.first_wrong(cpp, CPU, dtype) is None


def test_every_kernel_of_the_interface_is_asked(monkeypatch):
    """A kernel that the self-test does not call would be trusted without one."""
    names = [name for name, function in vars(Kernels).items() if inspect.isfunction(function) and name[0] != "_"]
    asked = set()
    for name in names:
        right = getattr(cpp, name)
        monkeypatch.setattr(cpp, name, lambda *a, _n=name, _r=right, **k: asked.add(_n) or _r(*a, **k))
    assert selftest.first_wrong(cpp, CPU, torch.float32) is None
    assert asked == set(names)


@pytest.mark.parametrize(
    "name, change, says",
    [
        ("channel_conv_kernel_grad", lambda grad: grad.roll(1, 0), r"channel_conv is off by"),
        ("normalise", lambda y: y * 1.01, "batch norm is off by"),
        ("pool_grad", lambda x_grad: torch.full_like(x_grad, torch.nan), "pool is off by nan"),
        ("depthwise_norm_grad", lambda pair: (pair[0], -pair[1]), "depthwise behind batch norm is off by"),
        ("pick_pixels", lambda y: -y, "pixels is off by"),
    ],
)
def test_a_wrong_kernel_is_seen_told_once_and_remembered(name, change, says, monkeypatch, records):
    break_kernel(monkeypatch, name, change)
    with pytest.warns(RuntimeWarning, match=rf"c\+\+ kernels are wrong on this machine \({says}") as told:
        used = [choice.kernels_for(X) for _ in range(2)]
    assert used == [pytorch, pytorch]
    assert len(told) == 1
    facts = choice.kernel_facts(CPU)
    assert facts["kernels"] == "pytorch"
    assert facts["kernels_selftest"].startswith("failed: ")
    monkeypatch.undo()  # the library is right again, which nobody knows
    monkeypatch.setattr(choice, "_record_path", lambda device, dtype: next(records.iterdir()))
    choice._chosen.cache_clear()
    with pytest.warns(RuntimeWarning, match="wrong on this machine"):
        assert choice.kernels_for(X) is pytorch


def test_what_runs_by_wrong_kernels_is_right_all_the_same(monkeypatch):
    break_kernel(monkeypatch, "channel_conv", lambda y: y * 1.5)
    torch.manual_seed(0)
    plain = Supernet(3, width=4, stem="stride2")
    torch.manual_seed(0)
    fast = accelerate(Supernet(3, width=4, stem="stride2"))
    derived = PVNASNetwork(random_genotype(1), NetworkConfig(width=4, stem="stride2"), num_classes=3).eval()
    x = torch.randn(2, 3, 2, 40, 40)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(for_inference(derived)(x), derived(x), rtol=1e-3, atol=1e-4)


def test_a_type_without_kernels_is_not_tested(monkeypatch):
    monkeypatch.setattr(selftest, "first_wrong", lambda *_: pytest.fail("tested"))
    assert choice.kernels_for(X.bfloat16()) is pytorch
    assert choice.kernel_facts(CPU, torch.bfloat16) == {"kernels": "pytorch", "kernels_selftest": "not asked"}


def test_random_numbers_of_a_search_are_not_drawn():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    choice.kernels_for(X)
    assert torch.equal(torch.rand(3), expected)


def test_a_triton_that_does_not_work_is_told_and_left_alone(monkeypatch):
    def broken():
        raise RuntimeError("no C compiler\nfound")

    monkeypatch.setattr(choice, "_triton", broken)
    with pytest.warns(RuntimeWarning, match=r"Triton does not work here \(no C compiler\): PyTorch's operations"):
        assert choice._chosen("cuda", torch.float32)[0] is pytorch


def test_another_process_knows_what_failed(tmp_path):
    """With the real record: one process finds a wrong kernel, the next, whose kernels are right, reads of it."""
    script = """
        import sys, torch, warnings
        from pvnas.fast.kernels import choice, cpp
        if sys.argv[1] == "wrong":
            right = cpp.pool
            cpp.pool = lambda *a: tuple(x * 2 for x in right(*a))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            print(choice.kernels_for(torch.empty(0)).NAME, len(told))
    """
    library = cpp_library.library_path(torch.float32)
    cpp_library.library(torch.float32)
    kernels = tmp_path / "pvnas" / "kernels"
    kernels.mkdir(parents=True)
    (kernels / library.name).symlink_to(library)
    for word in ("wrong", "right"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), word],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["pytorch", "1"]
