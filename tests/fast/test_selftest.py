"""Kernels that are wrong must not be trusted."""

import pytest
import torch
from pvnas.space.kernels.cpu import KERNELS
from pvnas.space.kernels.cpu.library import compiler, supported

from pvnas.space import kernels, shared_cell, trial

CPU = torch.device("cpu")
LAYOUT = "S-NC S-RC T-NC T-RC"
pytestmark = pytest.mark.skipif(compiler() is None or not supported(), reason="needs Linux and a C++ compiler")


@pytest.fixture(autouse=True)
def nothing_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "_left_out", set())
    monkeypatch.setattr(trial.library, "trials", lambda dtype: tmp_path / "tried")
    trial.try_kernels.cache_clear()
    yield
    trial.try_kernels.cache_clear()


@pytest.mark.parametrize("width", [5, 16])
def test_kernels_that_are_right_are_used(width):
    assert trial.try_kernels(LAYOUT, width, CPU, torch.float32)
    assert kernels.kind_on(CPU) == "c++"


def test_what_was_found_right_is_not_tried_again(monkeypatch):
    assert trial.try_kernels(LAYOUT, 4, CPU, torch.float32)
    trial.try_kernels.cache_clear()
    tried = []
    monkeypatch.setattr(trial, "_wrong", lambda place, *_: tried.append(place.category))
    assert trial.try_kernels(LAYOUT, 4, CPU, torch.float32)
    assert not tried
    assert trial.try_kernels(LAYOUT, 14, CPU, torch.float32)
    assert tried == LAYOUT.split()


def test_a_type_without_kernels_is_not_tried():
    assert not trial.try_kernels(LAYOUT, 4, CPU, torch.bfloat16)
    assert kernels.kind_on(CPU) == "c++"


def wrong(kernel, change):
    def made(*args, **kwargs):
        return change(kernel(*args, **kwargs))

    return made


@pytest.mark.parametrize(
    "name, change, place",
    [
        ("mix_channels_kernel_gradient", lambda gradient: gradient.roll(1, 0), r"S-NC: the gradient of input0"),
        ("normalised", lambda y: y * 1.01, "S-NC: the output is off by"),
        ("pool_backward", lambda dx: torch.full_like(dx, torch.nan), "S-NC: the gradient of input 0 is off by nan"),
    ],
)
def test_kernels_that_are_wrong_are_left_out_with_a_warning(name, change, place, monkeypatch):
    broken = KERNELS._replace(**{name: wrong(getattr(KERNELS, name), change)})
    monkeypatch.setattr(kernels, "_on_cpu", lambda dtype: broken)
    monkeypatch.setattr(shared_cell, "kernels_for", kernels.kernels_for)
    with pytest.warns(RuntimeWarning, match=rf"kernels are wrong on this machine \({place}"):
        assert not trial.try_kernels(LAYOUT, 4, CPU, torch.float32)
    assert kernels.kind_on(CPU) == "pytorch"


def test_random_numbers_of_a_search_are_not_drawn():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    trial.try_kernels(LAYOUT, 4, CPU, torch.float32)
    assert torch.equal(torch.rand(3), expected)
