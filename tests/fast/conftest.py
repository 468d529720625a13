"""What the tests of fast cells share."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from pvnas.fast.kernels.choice import by_pytorch


@pytest.fixture(params=["compiled", "pytorch"])
def each_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once by compiled kernels, where they can be compiled, and once by PyTorch's operations."""
    with by_pytorch() if request.param == "pytorch" else nullcontext():
        yield
