"""The half-steps on a case small enough to differentiate by hand, in float64.

w and a are scalars; L_train = (w - a)^2 / 2 and L_val = (w - 3)^2 / 2 + a w.
"""

import pytest
import torch
from torch import nn

from pvnas.search.step import second_order_gradient


def sgd_of(case, lr, momentum=0.0, decay=0.0, velocity=None):
    """The SGD of w, with so much momentum gathered."""
    sgd = torch.optim.SGD([case.w], lr=lr, momentum=momentum, weight_decay=decay)
    if velocity is not None:
        sgd.state[case.w]["momentum_buffer"] = torch.tensor(velocity, dtype=torch.float64)
    return sgd


class Case:
    def __init__(self, w=2.0, a=0.5):
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.updates = []

    def __call__(self, parameters, batch, *, update_statistics):
        self.updates.append(update_statistics)
        w, a = self.w, self.a
        loss = (w - a) ** 2 / 2 if batch == "train" else (w - 3) ** 2 / 2 + a * w
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)], {
            "loss": loss.detach()
        }


@pytest.mark.parametrize(
    "lr, momentum, decay, velocity", [(0.1, 0.0, 0.0, None), (0.1, 0.9, 0.01, 0.4), (0.3, 0.9, 0.0, None)]
)
def test_second_order_equals_the_hand_computed_derivative(lr, momentum, decay, velocity):
    """d/da L_val(w'(a), a) with w' = w - lr (w - a + decay w + momentum v): w' (direct) + lr (w' - 3 + a)."""
    case = Case()
    w, a, v = 2.0, 0.5, velocity or 0.0
    moved = w - lr * ((w - a) + decay * w + momentum * v)
    expected = moved + lr * ((moved - 3) + a)
    sgd = sgd_of(case, lr, momentum, decay, velocity)
    gradient = second_order_gradient(case, [case.a], sgd, "validation", "train")
    assert float(gradient[0]) == pytest.approx(expected, rel=1e-9)
    assert float(case.w.detach()) == w
    assert float(case.a.detach()) == a
    assert not any(case.updates)


def test_second_order_is_not_first_order():
    case = Case()
    second = second_order_gradient(case, [case.a], sgd_of(case, 0.5), "validation", "train")
    first, _ = case([case.a], "validation", update_statistics=False)
    assert abs(float(second[0]) - float(first[0])) > 0.1
    none = second_order_gradient(case, [case.a], sgd_of(case, 0.0), "validation", "train")
    assert float(none[0]) == pytest.approx(float(first[0]))
