"""What the tests of the search space share."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from pvnas.space.kernels import by_pytorch


@pytest.fixture(params=["own kernels", "pytorch"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once by our own kernels, where they can be compiled, and once by PyTorch's operations."""
    with by_pytorch() if request.param == "pytorch" else nullcontext():
        yield
