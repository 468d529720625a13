"""What is recorded when, and on a GPU that a recorded function gives what it gives when it is called."""

import pytest
import torch

from pvnas.runtime import gpu
from pvnas.runtime.gpu import Graphs

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Played:
    """In place of a CUDA graph: calls the function again, on the tensors that it was recorded with."""

    def __init__(self, function, inputs):
        self.function, self.inputs, self.outputs = function, inputs, [torch.empty(())]

    def replay(self):
        self.outputs[0].copy_(self.function(*self.inputs)[0])


@pytest.fixture
def recorded(monkeypatch):
    """The sizes of what was recorded, by a Graphs that needs no GPU."""
    sizes = []

    def record(self, function, tensors):
        sizes.append(tensors[0].shape)
        played = Played(function, [tensor.clone() for tensor in tensors])
        return gpu._Recorded(played, played.inputs, played.outputs)

    monkeypatch.setattr(Graphs, "_record", record)
    return sizes


def test_the_second_call_is_recorded_and_other_sizes_are_called_as_they_are(recorded):
    calls, own = [], Graphs()

    def total(x):
        calls.append(len(x))
        return [x.sum()]

    found = [float(own.call("total", total, (torch.full((n,), float(n)),))[0]) for n in (3, 3, 4, 4, 3)]
    assert found == [9, 9, 16, 16, 9]
    assert recorded == [(3,)]  # only the first size, and only from its second call on
    own.call("other", total, (torch.ones(3),))
    assert recorded == [(3,)]


@GPU
def test_a_recorded_function_sees_new_numbers_and_changes_what_it_changes():
    own, weight, seen = Graphs(), torch.ones(5, device="cuda"), torch.zeros(5, device="cuda")

    def work(x):
        seen.add_(x)
        return {"y": [x * weight]}

    for step in range(1, 5):
        weight.fill_(step)
        x = torch.full((5,), float(step), device="cuda")
        assert torch.equal(own.call("work", work, (x,))["y"][0], x * step)
    assert torch.equal(seen, torch.full((5,), 10.0, device="cuda"))
