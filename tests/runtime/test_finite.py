"""Numbers that are not finite are told at once on a CPU."""

import pytest
import torch

from pvnas.runtime.gpu import FiniteCheck


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_on_a_cpu_at_once(bad):
    check = FiniteCheck(torch.device("cpu"))
    check.step = "step 3"
    check.require("all", [torch.ones(3), torch.zeros(2, 2)])
    with pytest.raises(FloatingPointError, match=r"^the second is not a number in step 3$"):
        check.require("the second", [torch.ones(3), torch.tensor([[0.0, bad]])])
    check.settle()  # nothing is left


def test_a_number_beyond_its_bound_is_told_beside_what_is_expected():
    check = FiniteCheck(torch.device("cpu"))
    check.step = "step 3"
    check.require_below("the loss", torch.tensor(7.0), 7.0, "guessing gives 2.08")
    with pytest.raises(FloatingPointError, match=r"^the loss is 3.6e\+08 in step 3, where guessing gives 2.08$"):
        check.require_below("the loss", torch.tensor(3.6e8), 7.0, "guessing gives 2.08")
    with pytest.raises(FloatingPointError, match=r"^the loss is not a number in step 3$"):
        check.require_below("the loss", torch.tensor(float("nan")), 7.0, "guessing gives 2.08")


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
    with pytest.raises(FloatingPointError, match=r"^bad is not"):
        check.settle()


class Arrived(FiniteCheck):
    """What a GPU does, with answers that have always arrived."""

    def __init__(self):
        super().__init__(torch.device("cuda"))

    def _ask(self, question, answer):
        self._asked.append((self.step, question, answer, self))

    def synchronize(self):
        pass


def test_a_step_reads_what_the_step_before_asked():
    check = Arrived()
    check.step = "step 1"
    check.require("the loss", [torch.tensor(float("nan"))])
    check.require("the gradient", [torch.ones(2)])  # of the same step: nothing is read
    check.step = "step 2"
    with pytest.raises(FloatingPointError, match=r"^the loss is not a number in step 1$"):
        check.require("the loss", [torch.ones(2)])
