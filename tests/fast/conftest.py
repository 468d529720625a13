"""What the tests of fast cells share."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType

import pytest
import torch

from pvnas.fast.kernels.choice import by_pytorch


@pytest.fixture(params=["compiled", "pytorch"])
def each_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once by compiled kernels, where they can be compiled, and once by PyTorch's operations."""
    with by_pytorch() if request.param == "pytorch" else nullcontext():
        yield


@pytest.fixture
def kernel_set(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return the kernels called pytorch, c++ or triton; PyTorch's own on a GPU are in fp32 as it is."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return lambda kind: import_module("pvnas.fast.kernels." + {"c++": "cpp", "triton": "triton_set"}.get(kind, kind))
