"""What all Triton kernels share: how work is divided among programs, and how a program reads and writes its part.

A kernel's first arguments are pixels (or columns of pixels) and channels; ``x`` and ``g`` in its arguments are a tensor
and the elements from a pixel to the next (``strided``). Its programs take BLOCK_P pixels of BLOCK_C channels each.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import rows_of

PROGRAMS = 528  # four for each multiprocessor of a large GPU; fixed, so that sums have one order everywhere
FEW, BLOCK_PARTS, BLOCK_NUMBERS = 32, 32, 32


class Setting(NamedTuple):
    """How a kernel divides its work: the fastest on an H200."""

    pixels: int
    """Of a program, at a time."""
    warps: int = 4
    stages: int = 1
    """Blocks of pixels, or rows of them, that are asked for so many steps before they are used."""
    channels: int = 64
    """Of a program, at the most."""
    programs: int = PROGRAMS
    """About how many, where each takes several blocks of pixels."""


def strided(x: Tensor) -> tuple[Tensor, int]:
    """Return pictures as kernels take them. Raises ValueError where they do not lie so."""
    return x, rows_of(x).stride


def normed_argument(norm: Normed | None) -> tuple[Any, ...]:
    """Return what a batch norm reads as kernels take it: ``strided``, then what it normalises by. Of none, ()."""
    return () if norm is None else (*strided(norm.z), *norm[1:])


def channel_block(channels: int, most: int = 64) -> int:
    """Return how many channels a program takes."""
    return min(most, max(16, triton.next_power_of_2(channels)))


@cache
def shared_memory(device: torch.device) -> int:
    """Return how many bytes of it a program may have."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return int(driver.active.utils.get_device_properties(index)["max_shared_mem"])


def launch(
    kernel: Any, setting: Setting, pixels: int, channels: int, *given: Any, times: int = 1, block: int = 0, **flags: Any
) -> None:
    """Run a kernel over blocks of all pixels and channels, ``times`` each. ``block``: of channels, if another."""
    block = block or channel_block(channels)
    programs = triton.cdiv(pixels, setting.pixels) * triton.cdiv(channels, block) * times
    kernel[(programs,)](
        pixels, channels, *given, BLOCK_P=setting.pixels, BLOCK_C=block, num_warps=setting.warps, **flags
    )


def parts_of(pixels: int, blocks: int, setting: Setting) -> tuple[int, int]:
    """Return (parts, pixels of a part): of all pixels, where ``blocks`` of all programs work on each part."""
    wanted = max(1, setting.programs // blocks)
    each = triton.cdiv(triton.cdiv(pixels, wanted), setting.pixels) * setting.pixels
    return triton.cdiv(pixels, each), each


def summed(parts: Tensor) -> Tensor:
    """Return the sum of dense (parts, ...) over the parts."""
    if len(parts) < FEW:
        return parts[0] if len(parts) == 1 else parts.sum(0)
    total = torch.empty_like(parts[0])
    _summed[(triton.cdiv(total.numel(), BLOCK_NUMBERS),)](
        parts, total, len(parts), total.numel(), BLOCK_PARTS=BLOCK_PARTS, BLOCK_NUMBERS=BLOCK_NUMBERS, num_warps=4
    )
    return total


@triton.jit(do_not_specialize=["parts"])
def _summed(x, total, parts, numbers, BLOCK_PARTS: tl.constexpr, BLOCK_NUMBERS: tl.constexpr):
    n = tl.program_id(0) * BLOCK_NUMBERS + tl.arange(0, BLOCK_NUMBERS)
    sums = zeros(x, BLOCK_PARTS, BLOCK_NUMBERS)
    for first in tl.range(0, parts, BLOCK_PARTS, num_stages=1):
        part = first + tl.arange(0, BLOCK_PARTS)
        at = x + part.to(tl.int64)[:, None] * numbers + n[None, :]
        sums += tl.load(at, mask=(part < parts)[:, None] & (n < numbers)[None, :], other=0.0)
    tl.store(total + n, tl.sum(sums, 0), mask=n < numbers)


@triton.constexpr_function
def type_of_sums(dtype):
    """The type in which sums of this type are made."""
    return tl.float64 if dtype == tl.float64 else tl.float32


@triton.jit
def zeros(x, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Sums of what a tensor holds, at their beginning."""
    return tl.zeros([BLOCK_P, BLOCK_C], type_of_sums(x.dtype.element_ty))


@triton.jit
def channels_of_program(channels, BLOCK_C: tl.constexpr):
    """A program's channels, whether there are such, and its number among the programs that have these."""
    blocks = tl.cdiv(channels, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    return c, c < channels, tl.program_id(0) // blocks


@triton.jit
def block_of_program(pixels, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, edges=1):
    """A program's pixels, channels and edge, and whether there are such pixels of such channels."""
    c, in_c, program = channels_of_program(channels, BLOCK_C)
    p = program // edges * BLOCK_P + tl.arange(0, BLOCK_P)
    return p, c, in_c, program % edges, (p < pixels)[:, None] & in_c[None, :]


@triton.jit
def at(x, pixel, c):
    """Where channels of pixels lie."""
    return x[0] + pixel.to(tl.int64)[:, None] * x[1] + c[None, :]


@triton.jit
def load(address, mask):
    """Values in the type of sums, zero outside the mask."""
    values = tl.load(address, mask=mask, other=0.0)
    return values.to(type_of_sums(values.dtype))


@triton.jit
def store(address, values, mask):
    """Write values in the type that the tensor has."""
    tl.store(address, values.to(address.dtype.element_ty), mask=mask)


@triton.jit
def neighbours(q, end, in_c, h, w, DILATION: tl.constexpr):
    """Of some columns of the frames: the number of the first pixel of each, masks of the left ones, them, the right."""
    j = q % w
    valid = (q < end)[:, None] & in_c[None, :]
    left, right = valid & (j >= DILATION)[:, None], valid & (j < w - DILATION)[:, None]
    return q // w * (h * w) + j, (left, valid, right)


@triton.jit
def columns_of_program(columns, channels, h, w, DILATION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of a program that goes down columns of the frames: these, its channels, its first row, and their neighbours."""
    c, in_c, program = channels_of_program(channels, BLOCK_C)
    q = program // DILATION * BLOCK_P + tl.arange(0, BLOCK_P)
    first, near = neighbours(q, columns, in_c, h, w, DILATION)
    return q, c, in_c, program % DILATION, first, near


@triton.jit
def load_three(address, step, columns, there):
    """A row's pixels and their neighbours on both sides, as they lie in memory."""
    return [tl.load(address + (n - 1) * step, mask=columns[n] & there, other=0.0) for n in (0, 1, 2)]
