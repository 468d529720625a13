"""What a step asks of a machine, counted."""

import pytest
import torch

from pvnas.bench.roofline import Machine, Work, count_bytes, count_macs
from pvnas.fast.kernels import cpp
from pvnas.fast.kernels.cpp_library import compiler, supported

A, B = torch.ones(8, 16), torch.ones(8, 16)
BYTES = A.nbytes


@pytest.mark.parametrize(
    "step, expected",
    [
        (lambda: A + B, 3 * BYTES),
        (lambda: A.clone().add_(B), 2 * BYTES + 3 * BYTES),
        (lambda: A.view(16, 8).t()[:4], 0),
        (lambda: [torch.empty(99), A.new_empty(99), torch.empty_like(A)], 0),
        (lambda: A.new_zeros(8, 16), 2 * BYTES),  # what it is like, though not read, and what is written
    ],
)
def test_bytes_of_operations(step, expected):
    assert count_bytes(step) == expected


@pytest.mark.skipif(compiler() is None or not supported(), reason="needs Linux and a C++ compiler")
def test_bytes_of_kernels_of_our_own():
    x = torch.ones(2, 4, 4, 16).permute(0, 3, 1, 2)
    assert count_bytes(lambda: cpp.pick_pixels(x, 0)) == x.nbytes + x.nbytes // 4


def test_macs_and_the_longer_of_two_times():
    assert count_macs(lambda: A @ B.t()) == 8 * 8 * 16
    machine = Machine(macs_per_s=100.0, bytes_per_s=10.0)
    assert machine.seconds_of(Work(macs=200, bytes=10)) == 2.0
    assert machine.seconds_of(Work(macs=200, bytes=30)) == 3.0
