"""One SHA-256 that says whether two runs ended in the same bits."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def digest(tensors: dict[str, Tensor], genotype_json: str | None) -> str:
    """Return the SHA-256 (hex) over name, dtype, shape and bytes of the tensors in the order of their names.

    The genotype's JSON text counts as it is; None and an empty text differ. Where tensors lie (device, memory format)
    does not matter. Lengths come before contents, so that no two inputs are read alike.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        _add(total, name.encode())
        _add(total, f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode())
        _add(total, _bytes_of(tensor))
    if genotype_json is not None:
        _add(total, b"genotype")
        _add(total, genotype_json.encode())
    return total.hexdigest()


def _add(total: hashlib._Hash, content: bytes | memoryview) -> None:
    total.update(len(content).to_bytes(8))
    total.update(content)


def _bytes_of(tensor: Tensor) -> memoryview:
    # Through uint8, since numpy knows no bfloat16.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
