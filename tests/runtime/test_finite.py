"""Numbers that are not finite are told at once on a CPU."""

import pytest
import torch

from pvnas.runtime.finite import FiniteCheck


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_on_a_cpu_at_once(bad):
    check = FiniteCheck(torch.device("cpu"))
    check.require("all", [torch.ones(3), torch.zeros(2, 2)])
    with pytest.raises(FloatingPointError, match=r"^the second$"):
        check.require("the second", [torch.ones(3), torch.tensor([[0.0, bad]])])
    check.settle()  # nothing is left


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_without_waiting():
    check = FiniteCheck(torch.device("cuda"))
    bad = torch.tensor([float("nan")], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        check.require("good", [bad.new_ones(2)])
        check.require("bad", [bad])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(FloatingPointError, match=r"^bad$"):
        check.settle()
