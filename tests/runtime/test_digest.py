"""The digest tells every difference in bits and nothing else."""

import hashlib
import struct

import torch

from pvnas.runtime.checkpoint import digest


def test_known_value() -> None:
    """Written out by hand, since digests are compared across versions: each part after its length in 8 bytes."""
    tensors = {"b": torch.arange(4, dtype=torch.float32).reshape(2, 2), "a": torch.tensor(7)}
    a = [b"a", b"int64[]", struct.pack("<q", 7)]
    b = [b"b", b"float32[2, 2]", struct.pack("<4f", 0, 1, 2, 3)]
    content = b"".join(struct.pack(">Q", len(part)) + part for part in [*a, *b, b"genotype", b"{}"])
    assert digest(tensors, "{}") == hashlib.sha256(content).hexdigest()
    assert digest(tensors, "{}") == "9797c10bf01a7bd1e175ab4b23b89bc51796819367506e56f5d9ac2f25762c30"


def test_order_and_memory_format_do_not_matter() -> None:
    x = torch.randn(2, 3, 4, 5)
    y = torch.randn(3).bfloat16()
    assert digest({"x": x, "y": y}, None) == digest({"y": y, "x": x.to(memory_format=torch.channels_last)}, None)


def test_every_difference_counts() -> None:
    x = torch.zeros(2, 3)
    flipped = x.clone()
    flipped[1, 2] = -0.0
    others = [
        digest({"x": flipped}, None),
        digest({"x": x.reshape(3, 2)}, None),
        digest({"x": x.int()}, None),
        digest({"y": x}, None),
        digest({"x": x, "y": torch.zeros(0)}, None),
        digest({"x": x}, ""),
        digest({"x": x}, "{}"),
        digest({}, None),
        digest({"x": x}, None),
    ]
    assert len(set(others)) == len(others)
