"""The half-steps on a case small enough to differentiate by hand, in float64.

w and a are scalars; L_train = (w - a)^2 / 2 and L_val = (w - 3)^2 / 2 + a w.
"""

import pytest
import torch
from torch import nn

from pvnas.runtime.tensors import apply_gradients
from pvnas.search.objective import alpha_gradient, alpha_gradient_second_order, joint_gradient, weight_gradient


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


def test_one_level_takes_alpha_from_the_old_weights_and_weights_from_the_new_alpha():
    case = Case()
    alpha_sgd, weight_sgd = torch.optim.SGD([case.a], lr=0.1), torch.optim.SGD([case.w], lr=0.1)
    gradients = alpha_gradient(case, [case.a], "train")
    assert float(gradients[0]) == -(2.0 - 0.5)
    apply_gradients(alpha_sgd, [case.a], gradients)
    assert float(case.a.detach()) == pytest.approx(0.65)
    assert float(case.w.detach()) == 2.0
    gradients, _ = weight_gradient(case, [case.w], "train")
    assert float(gradients[0]) == pytest.approx(2.0 - 0.65)
    apply_gradients(weight_sgd, [case.w], gradients)
    assert float(case.a.detach()) == pytest.approx(0.65)
    assert case.updates == [False, True]
    assert case.w.grad is None
    assert case.a.grad is None


def test_joint_takes_both_from_one_pass():
    case = Case()
    weights, alphas, _ = joint_gradient(case, [case.w], [case.a], "train")
    assert (float(weights[0]), float(alphas[0])) == (1.5, -1.5)
    assert case.updates == [True]


@pytest.mark.parametrize(
    "lr, momentum, decay, velocity", [(0.1, 0.0, 0.0, None), (0.1, 0.9, 0.01, 0.4), (0.3, 0.9, 0.0, None)]
)
def test_second_order_equals_the_hand_computed_derivative(lr, momentum, decay, velocity):
    """d/da L_val(w'(a), a) with w' = w - lr (w - a + decay w + momentum v): w' (direct) + lr (w' - 3 + a)."""
    case = Case()
    w, a, v = 2.0, 0.5, velocity or 0.0
    moved = w - lr * ((w - a) + decay * w + momentum * v)
    expected = moved + lr * ((moved - 3) + a)
    gradient = alpha_gradient_second_order(
        case,
        [case.w],
        [case.a],
        "train",
        "validation",
        lr=lr,
        momentum=momentum,
        weight_decay=decay,
        velocity=[None if velocity is None else torch.tensor(velocity, dtype=torch.float64)],
    )
    assert float(gradient[0]) == pytest.approx(expected, rel=1e-9)
    assert float(case.w.detach()) == w
    assert float(case.a.detach()) == a
    assert not any(case.updates)


def test_second_order_is_not_first_order():
    case = Case()
    options = {"momentum": 0.0, "weight_decay": 0.0, "velocity": [None]}
    second = alpha_gradient_second_order(case, [case.w], [case.a], "train", "validation", lr=0.5, **options)
    first = alpha_gradient(case, [case.a], "validation")
    assert abs(float(second[0]) - float(first[0])) > 0.1
    none = alpha_gradient_second_order(case, [case.w], [case.a], "train", "validation", lr=0.0, **options)
    assert float(none[0]) == pytest.approx(float(first[0]))
