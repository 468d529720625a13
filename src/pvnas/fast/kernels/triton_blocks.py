"""How work is divided among Triton's programs."""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

PROGRAMS = 528  # four for each multiprocessor of a large GPU; fixed, so that sums have one order everywhere
FEW, BLOCK_PARTS, BLOCK_NUMBERS, WARPS, STAGES = 32, 32, 32, 4, 1


def triton_type(dtype: torch.dtype) -> tl.dtype:
    """Return Triton's name of ``sum_type``."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def channel_block(channels: int, most: int = 64) -> int:
    """Return how many channels a program takes."""
    return min(most, max(16, triton.next_power_of_2(channels)))


@cache
def shared_memory(device: torch.device) -> int:
    """Return how many bytes of it a program may have."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return int(driver.active.utils.get_device_properties(index)["max_shared_mem"])


def parts_of(pixels: int, blocks: int, block_pixels: int, programs: int = PROGRAMS) -> tuple[int, int]:
    """Return (parts, pixels of a part): of all pixels, where ``blocks`` of all programs work on each part."""
    wanted = max(1, programs // blocks)
    each = triton.cdiv(triton.cdiv(pixels, wanted), block_pixels) * block_pixels
    return triton.cdiv(pixels, each), each


def summed(parts: Tensor) -> Tensor:
    """Return the sum of dense (parts, ...) over the parts."""
    if len(parts) < FEW:
        return parts[0] if len(parts) == 1 else parts.sum(0)
    total = torch.empty_like(parts[0])
    numbers = total.numel()
    _summed[(triton.cdiv(numbers, BLOCK_NUMBERS),)](
        parts, total, len(parts), numbers,
        BLOCK_PARTS=BLOCK_PARTS, BLOCK_NUMBERS=BLOCK_NUMBERS, SUM=triton_type(parts.dtype), STAGES=STAGES,
        num_warps=WARPS,
    )  # fmt: skip
    return total


@triton.jit(do_not_specialize=["parts"])
def _summed(
    x, total, parts, numbers, BLOCK_PARTS: tl.constexpr, BLOCK_NUMBERS: tl.constexpr, SUM: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_NUMBERS + tl.arange(0, BLOCK_NUMBERS)
    sums = tl.zeros([BLOCK_PARTS, BLOCK_NUMBERS], SUM)
    for first in tl.range(0, parts, BLOCK_PARTS, num_stages=STAGES):
        part = first + tl.arange(0, BLOCK_PARTS)
        at = x + part.to(tl.int64)[:, None] * numbers + n[None, :]
        sums += tl.load(at, mask=(part < parts)[:, None] & (n < numbers)[None, :], other=0.0)
    tl.store(total + n, tl.sum(sums, 0), mask=n < numbers)
