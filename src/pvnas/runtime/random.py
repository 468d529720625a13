"""Random streams named by what they are for: (seed, epoch, step, sample), never by process, worker or call order."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def key(seed: int, *parts: int | str) -> int:
    """Return a number of 63 bits that depends on the seed and the parts only, the same on every machine.

    Numbers and texts differ: ``key(0, 1) != key(0, "1")``, and so do ``key(0, "ab")`` and ``key(0, "a", "b")``.
    """
    text = json.dumps([int(seed), *(part if isinstance(part, str) else int(part) for part in parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """Return a CPU generator of its own for ``key(seed, *parts)``."""
    return torch.Generator().manual_seed(key(seed, *parts))


@contextmanager
def seed_all(seed: int) -> Iterator[None]:
    """Seed torch's global generators (CPU and the current GPU) inside the block; put their states back after it."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
