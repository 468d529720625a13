"""Convolutions 1x1x1 and 3x1x1 as matrix products over channels, in Triton.

A program either holds a whole kernel, or goes through it in steps. In the kernels' arguments ``x``, ``y`` and ``g`` are
a tensor, the elements from a pixel to the next and those from an edge's channels to the next edge's; ``weights`` (t, k,
from, to) a tensor and its strides. P: pixels of a program, K: channels that it reads at once, N: that it writes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels import triton_blocks as tb
from pvnas.fast.kernels.batchnorm.triton import add_moments, batch_statistics, joined_moments, store_moments
from pvnas.fast.kernels.tensors import empty_pictures, sum_type

Edges = tuple[Tensor, int, int]
"""``x``, ``y`` or ``g``."""
ONE_EACH = 1 << 30
"""Programs: one for each block of pixels."""
# Where a program goes through a kernel in steps, and for the gradient of a kernel: up to 64 channels, more.
STEPS = tb.Setting(128, 4, 3, 64), tb.Setting(128, 8, 3, 128)
KERNEL_GRAD = tb.Setting(64, 4, 3)
# Where it holds the kernel, by taps and whether moments are computed: the same two.
HOLDING = {
    (1, False): (tb.Setting(64, 4, 1, 64, ONE_EACH), tb.Setting(64, 4, 3, 128)),
    (1, True): (tb.Setting(64, 4, 3), tb.Setting(64, 4, 3)),
    (3, False): (tb.Setting(64, 4, 3, 64, ONE_EACH), tb.Setting(64, 4, 3, 64, ONE_EACH)),
    (3, True): (tb.Setting(64, 4, 3), tb.Setting(64, 4, 3, 64, 2 * tb.PROGRAMS)),
}
CHANNELS_HELD = 128
"""Up to as many are faster so."""
SIZES = ["pixels", "columns", "each", "frame", "frames", "runs", "together", "edges"]


def channel_conv(
    x: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    into: Tensor | None = None,
    step: int = 0,
) -> Tensor:
    return _convolve(x, kernel, edges, frames, relu, into, step, with_moments=False)[0]


def channel_conv_statistics(
    x: Tensor, kernel: Tensor, edges: int, frames: int = 1, relu: bool = False, eps: float = 0.0
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    y, moments = _convolve(x, kernel, edges, frames, relu, None, 0, with_moments=True)
    return y, batch_statistics(y, eps) if moments is None else joined_moments(*moments, y.numel() // y.shape[1], eps)


def _convolve(
    x: Tensor, kernel: Tensor, edges: int, frames: int, relu: bool, into: Tensor | None, step: int, with_moments: bool
) -> tuple[Tensor, tuple[Tensor, int] | None]:
    f, _, h, w = x.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    y = empty_pictures(x, f, edges * b, h, w) if into is None else into
    weights = kernel.reshape(edges, b, a, taps).permute(3, 0, 2, 1)
    from_x, to_y = (*tb.strided(x), 0 if x.shape[1] == a else a), (*tb.strided(y), step or b)
    return y, _multiply(from_x, weights, to_y, frames, 1, relu=relu, mask=None, moments=with_moments)


def channel_conv_input_grad(
    grad: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    shared: bool = False,
    first: int = 0,
    step: int = 0,
    behind_relu: Tensor | None = None,
) -> Tensor:
    f, _, h, w = grad.shape
    b, a, taps = len(kernel) // edges, *kernel.shape[1:3]
    x_grad = empty_pictures(grad, f, a if shared else edges * a, h, w)
    weights = kernel.reshape(edges, b, a, taps).permute(3, 0, 1, 2)
    from_grad, to_x = (*tb.strided(grad[:, first:]), step or b), (*tb.strided(x_grad), a)
    mask = None if behind_relu is None else (*tb.strided(behind_relu), a)
    _multiply(from_grad, weights, to_x, frames, -1, relu=False, mask=mask, moments=False)
    return x_grad


def channel_conv_kernel_grad(
    grad: Tensor,
    x: Tensor,
    kernel: Tensor,
    edges: int,
    frames: int = 1,
    relu: bool = False,
    first: int = 0,
    step: int = 0,
) -> Tensor:
    """The gradient is in the type of sums."""
    (f, _, h, w), (a, taps), b = grad.shape, kernel.shape[1:3], len(kernel) // edges
    block_b, block_a = tb.channel_block(b), tb.channel_block(a)
    blocks = triton.cdiv(b, block_b) * triton.cdiv(a, block_a) * edges * taps
    parts, each = tb.parts_of(f * h * w, blocks, KERNEL_GRAD)
    sums = grad.new_empty(parts, edges * b, a, taps, 1, dtype=sum_type(grad))
    _kernel_grad[(blocks * parts,)](
        (*tb.strided(grad[:, first:]), step or b), (*tb.strided(x), 0 if x.shape[1] == a else a), sums, f * h * w, each,
        h * w, frames, b, a, edges,
        TAPS=taps, RELU=relu, BLOCK_B=block_b, BLOCK_A=block_a, BLOCK_P=KERNEL_GRAD.pixels, PRECISION=_precision(grad),
        num_warps=KERNEL_GRAD.warps, num_stages=KERNEL_GRAD.stages,
    )  # fmt: skip
    return tb.summed(sums)


def _multiply(
    x: Edges, weights: Tensor, y: Edges, frames: int, sign: int, *, relu: bool, mask: Edges | None, moments: bool
) -> tuple[Tensor, int] | None:
    """Write a product over channels to y, summed over edges where y has the channels of one.

    ``weights``: (t, k, from, to); ``sign``: -1 for a gradient: of a frame, from those that it has reached. Return, if
    ``moments`` are asked for and a program holds a kernel, the first two arguments of ``joined_moments``.
    """
    if weights.stride(3) != 1 and weights.stride(2) != 1:  # neighbours in memory are read together
        weights = weights.contiguous()
    (taps, edges, n_from, n_to), (f, channels, h, w) = weights.shape, y[0].shape
    runs, setting = 1 if channels == n_to else edges, HOLDING[taps, moments][max(n_from, n_to) > 64]
    holds = runs == edges and n_from <= CHANNELS_HELD and (mask is None or taps == 1) and _fits(x[0], weights, setting)
    setting = setting if holds else STEPS[n_to > 64]
    block_k = tb.channel_block(n_from, CHANNELS_HELD if holds else 64)
    block_n = tb.channel_block(n_to, setting.channels)
    given, blocks = (x, (weights, *weights.stride()), y), triton.cdiv(n_to, block_n) * runs
    flags = {
        "RELU": relu, "BLOCK_P": setting.pixels, "BLOCK_K": block_k, "BLOCK_N": block_n, "PRECISION": _precision(x[0]),
        "num_warps": setting.warps, "num_stages": setting.stages,
    }  # fmt: skip
    if not holds:
        _multiply_in_steps[(triton.cdiv(f * h * w, setting.pixels) * blocks,)](
            *given, mask, f * h * w, h * w, frames, n_from, n_to, runs, edges // runs, TAPS=taps, SIGN=sign, **flags
        )
        return None
    frames = frames if taps > 1 else 1
    length = f * h * w // frames
    parts, each = tb.parts_of(length, blocks, setting)
    written = y[0].new_empty(parts, 2, channels, dtype=sum_type(y[0])) if moments else None
    held = (*given, written, channels, length, each, n_from, n_to, runs)
    if taps == 1:
        _multiply_once[(parts * blocks,)](*held, mask, **flags)
    else:
        _multiply_in_time[(parts * blocks,)](*held, h * w, frames, SIGN=sign, **flags)
    return None if written is None else (written, each * frames)


def _fits(x: Tensor, weights: Tensor, setting: tb.Setting) -> bool:
    """Whether a program can hold a whole kernel: in tensor cores alone, in whose shared memory is room for operands."""
    if not x.is_cuda:
        return True
    taps, _, n_from, n_to = weights.shape
    rows = setting.stages * setting.pixels + taps * tb.channel_block(n_to, setting.channels)
    return (x.element_size() == 2 or _precision(x) == "tf32") and (
        rows * tb.channel_block(n_from, CHANNELS_HELD) * x.element_size() <= tb.shared_memory(x.device) - 16384
    )


def _precision(x: Tensor) -> str:
    """As PyTorch's own products: fp32 as it is, unless TF32 is allowed."""
    return "tf32" if x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


@triton.jit
def _weights(weights, edge, tap, c, n_from, to, n_to):
    """The weights of an edge and a tap from channels ``c`` to channels ``to``."""
    address = weights[0] + edge * weights[2] + tap * weights[1] + c[:, None] * weights[3] + to[None, :] * weights[4]
    return tl.load(address, mask=(c < n_from)[:, None] & (to < n_to)[None, :], other=0.0)


@triton.jit
def _at(x, pixel, edge, offset, c):
    """Where channels of an edge lie, of pixels from one on."""
    return x[0] + pixel * x[1] + edge * x[2] + offset[:, None] * x[1] + c[None, :]


@triton.jit
def _read(address, mask, RELU: tl.constexpr):
    values = tl.load(address, mask=mask, other=0.0)
    if RELU:
        values = tl.maximum(values, 0.0).to(values.dtype)
    return values


@triton.jit
def _multiply_one(address, c, n_from, weight, like, RELU: tl.constexpr):
    """The product of one pixel, (N,)."""
    values = _read(address + c, c < n_from, RELU).to(like.dtype)
    return tl.sum(values[:, None] * weight.to(like.dtype), 0)


@triton.jit
def _masked(total, address, valid):
    """The products, zero where a mask is not above zero."""
    return tl.where(tl.load(address, mask=valid, other=0.0) > 0, total, 0.0)


@triton.jit(do_not_specialize=SIZES)
def _multiply_once(
    x, weights, y, moments, y_channels, pixels, each, n_from, n_to, runs, mask,
    RELU: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each run: y[p] = sum over from of x[p, from] weights[from, to], which a program reads once.

    ``mask``: zero where it is not above zero. ``moments``: those of y are written to it, (parts, 2, kN).
    """
    to, in_to, program = tb.channels_of_program(n_to, BLOCK_N)
    run, part = program % runs, program // runs
    c, offset = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_P)
    begin, end = part * each, tl.minimum(part * each + each, pixels)
    weight, zero = _weights(weights, run, 0, c, n_from, to, n_to), tb.zeros(y[0], BLOCK_P, BLOCK_N)
    if moments is not None:
        sums, squares = zero, zero
        around = _multiply_one(x[0] + begin.to(tl.int64) * x[1] + run * x[2], c, n_from, weight, zero, RELU)
    for first in range(begin, end, BLOCK_P):
        p, inside = tl.full((), first, tl.int64), (first + offset < end)[:, None]
        values = _read(_at(x, p, run, offset, c), inside & (c < n_from)[None, :], RELU)
        total = tl.dot(values, weight, input_precision=PRECISION, out_dtype=zero.dtype)
        if mask is not None:
            total = _masked(total, _at(mask, p, run, offset, to), inside & in_to[None, :])
        result = total.to(y[0].dtype.element_ty)
        tl.store(_at(y, p, run, offset, to), result, mask=inside & in_to[None, :])
        if moments is not None:
            sums, squares = add_moments(sums, squares, result, around, inside)
    if moments is not None:
        store_moments(moments + run * y[2], part, y_channels, to, in_to, around, sums, squares, end - begin)


@triton.jit(do_not_specialize=SIZES)
def _multiply_in_time(
    x, weights, y, moments, y_channels, columns, each, n_from, n_to, runs, frame, frames,
    SIGN: tl.constexpr, RELU: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """For each run: y[t] = sum over from and three taps of x[t + SIGN * (tap - 1), from] weights[tap, from, to].

    Frame by frame: a frame is read once, for the three that it reaches. ``columns``: pixels of a frame in all clips.
    """
    to, in_to, program = tb.channels_of_program(n_to, BLOCK_N)
    run, part = program % runs, program // runs
    c, offset = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_P)
    begin, end = part * each, tl.minimum(part * each + each, columns)
    to_before = _weights(weights, run, 1 + SIGN, c, n_from, to, n_to)
    to_same = _weights(weights, run, 1, c, n_from, to, n_to)
    to_after = _weights(weights, run, 1 - SIGN, c, n_from, to, n_to)
    zero = tb.zeros(y[0], BLOCK_P, BLOCK_N)
    if moments is not None:
        sums, squares = zero, zero
        one = x[0] + run * x[2] + (begin // frame * (frames * frame) + begin % frame).to(tl.int64) * x[1]
        around = _multiply_one(one, c, n_from, to_same, zero, RELU)
    for first in range(begin, end, BLOCK_P):
        q = first + offset
        inside, pixel = (q < end)[:, None], q // frame * (frames * frame) + q % frame
        x_at, target = tb.at((x[0] + run * x[2], x[1]), pixel, c), tb.at((y[0] + run * y[2], y[1]), pixel, to)
        before, same = zero, zero
        for t in range(frames + 1):
            there, done = inside & (offset[:, None] * 0 + t < frames), inside & (offset[:, None] * 0 + t > 0)
            values = _read(x_at + t * frame * x[1], there & (c < n_from)[None, :], RELU)
            before = tl.dot(values, to_before, before, input_precision=PRECISION, out_dtype=zero.dtype)
            result = before.to(y[0].dtype.element_ty)
            tl.store(target + (t - 1) * frame * y[1], result, mask=done & in_to[None, :])
            if moments is not None:
                sums, squares = add_moments(sums, squares, result, around, done)
            before = tl.dot(values, to_same, same, input_precision=PRECISION, out_dtype=zero.dtype)
            same = tl.dot(values, to_after, input_precision=PRECISION, out_dtype=zero.dtype)
    if moments is not None:
        count = (end - begin) * frames
        store_moments(moments + run * y[2], part, y_channels, to, in_to, around, sums, squares, count)


@triton.jit(do_not_specialize=SIZES)
def _multiply_in_steps(
    x, weights, y, mask, pixels, frame, frames, n_from, n_to, runs, together,
    TAPS: tl.constexpr, SIGN: tl.constexpr, RELU: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each run: y[p] = sum over edges, taps and from of x[p + SIGN * (tap - 1) frames, from] weights[from, to]."""
    to, in_to, program = tb.channels_of_program(n_to, BLOCK_N)
    run, p = program % runs, program // runs * BLOCK_P + tl.arange(0, BLOCK_P)
    time = p // frame % frames
    total = tb.zeros(y[0], BLOCK_P, BLOCK_N)
    parts = tl.cdiv(n_from, BLOCK_K)
    for step in range(together * TAPS * parts):  # one loop, whose loads run ahead of its products
        c = step % parts * BLOCK_K + tl.arange(0, BLOCK_K)
        tap, edge = step // parts % TAPS, step // (parts * TAPS) + run
        shift = SIGN * (tap - TAPS // 2)
        there = (p < pixels) & (time + shift >= 0) & (time + shift < frames)
        x_at = tb.at((x[0] + edge * x[2], x[1]), p + shift * frame, c)
        values = _read(x_at, there[:, None] & (c < n_from)[None, :], RELU)
        weight = _weights(weights, edge, tap, c, n_from, to, n_to)
        total = tl.dot(values, weight, total, input_precision=PRECISION, out_dtype=total.dtype)
    valid = (p < pixels)[:, None] & in_to[None, :]
    if mask is not None:
        total = _masked(total, tb.at((mask[0] + run * mask[2], mask[1]), p, to), valid)
    tb.store(tb.at((y[0] + run * y[2], y[1]), p, to), total, valid)


@triton.jit(do_not_specialize=SIZES)
def _kernel_grad(
    g, x, sums, pixels, each, frame, frames, n_b, n_a, edges,
    TAPS: tl.constexpr, RELU: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """For each edge and tap: sums[b, a] = sum over a part of the pixels of g[p, b] x[p + (tap - 1) frames, a]."""
    a, in_a, program = tb.channels_of_program(n_a, BLOCK_A)
    blocks_b = tl.cdiv(n_b, BLOCK_B)
    b = program % blocks_b * BLOCK_B + tl.arange(0, BLOCK_B)
    program = program // blocks_b
    tap, edge, part = program % TAPS, program // TAPS % edges, program // (TAPS * edges)
    shift, offset = tap - TAPS // 2, tl.arange(0, BLOCK_P)
    total = tb.zeros(sums, BLOCK_B, BLOCK_A)
    end = tl.minimum(part * each + each, pixels)
    for first in range(part * each, end, BLOCK_P):
        p, inside = tl.full((), first, tl.int64), first + offset < end
        there = inside
        if TAPS > 1:
            time = (first + offset) // frame % frames + shift
            there = inside & (time >= 0) & (time < frames)
        g_at = g[0] + p * g[1] + edge * g[2] + offset[None, :] * g[1] + b[:, None]
        gradient = tl.load(g_at, mask=inside[None, :] & (b < n_b)[:, None], other=0.0)
        values = _read(_at(x, p + shift * frame, edge, offset, a), there[:, None] & in_a[None, :], RELU)
        total = tl.dot(gradient, values, total, input_precision=PRECISION, out_dtype=total.dtype)
    target = sums + (part * edges + edge).to(tl.int64) * n_b * n_a * TAPS + (b[:, None] * n_a + a[None, :]) * TAPS + tap
    tl.store(target, total, mask=(b < n_b)[:, None] & in_a[None, :])
