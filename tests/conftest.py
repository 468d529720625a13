"""What all tests share: one thread, the generated set in its smallest useful form, and the real data where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from pvnas.data.shapes import write_shapes

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("pvnas", deadline=None)  # no test asserts a time, on a busy machine least of all
settings.load_profile("pvnas")


def pytest_sessionstart() -> None:
    """One thread: the tests' tensors are tiny, and another number of threads changes the last bits.

    Kernels in Triton run in its interpreter where there is no GPU, which Triton asks where its own functions are
    defined: so before anything imports it.
    """
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def tiny_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the generated set: of each of the 8 classes 4 training, 1 validation and 1 test video."""
    return write_shapes(tmp_path_factory.mktemp("tiny_shapes") / "set", videos_per_class=6)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real videos and annotations that stays outside of the repository, or skip."""
    folder = Path(os.environ.get("PVNAS_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set PVNAS_TEST_DATA to its folder")
    return folder


class StopAfter:
    """A stop request that comes after so many questions: at an exact step, where a signal would come by luck."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def stop_after() -> type[StopAfter]:
    """Return what takes the place of a StopRequest: ``stop_after(5)``."""
    return StopAfter
