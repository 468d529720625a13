"""Depthwise 3x3 convolutions in Triton; ReLU and batch norm before them are computed as they read.

At stride 1 row by row, so that a row of a picture is read once, not for each tap that sees it: a program takes some
columns of the frames and goes down their rows. A row that it reads is the lower row of one output, the middle of
another and the upper of a third; of these two sums, not all nine taps, are held. At dilation 2 the even and the odd
rows are two such series.
"""

import triton
import triton.language as tl
from torch import Tensor

from pvnas.fast.kernels import triton_blocks as tb
from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import empty_output, empty_pictures, rows_of, sum_type

# At stride 1 over 28x28 pixels of 64 channels, 14x14 of 128 and 7x7 of 256.
FORWARD, FORWARD_NORMED, KERNEL_GRAD = tb.Setting(32, 4, 4), tb.Setting(16, 4, 4), tb.Setting(8, 2, 4)
BACKWARD, BACKWARD_NORMED = tb.Setting(32), tb.Setting(32, 4, 4)
FORWARD_STRIDE2, BACKWARD_STRIDE2, KERNEL_GRAD_STRIDE2 = tb.Setting(32), tb.Setting(64), tb.Setting(32)
SIZES = ["pixels", "columns", "each", "h", "w", "h_out", "w_out", "edges", "frames"]


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None) -> Tensor:
    (f, c_in, h, w), c_out = x.shape, len(kernel)
    y = empty_output(x, c_out, stride)
    given = (tb.strided(x), _taps(kernel), tb.normed_argument(norm), y, c_in, h, w)
    flags = {"block": tb.channel_block(c_in), "DILATION": dilation}
    if stride == 1:
        setting = FORWARD if norm is None else FORWARD_NORMED
        tb.launch(_depthwise_rows, setting, f * w, c_out, *given, times=dilation, STAGES=setting.stages, **flags)
    else:
        tb.launch(_depthwise_stride2, FORWARD_STRIDE2, y.numel() // c_out, c_out, *given, *y.shape[2:], **flags)
    return y


def depthwise_input_grad(
    grad: Tensor, kernel: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, into: Tensor | None = None
) -> Tensor:
    if stride == 1:
        return _input_grad_rows(grad, kernel, x, dilation, None, into)[0]
    f, c, h, w = x.shape
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    tb.launch(
        _input_grad_stride2, BACKWARD_STRIDE2, rows_of(grad).pixels, c,
        tb.strided(grad), _taps(kernel), x_grad, h, w, *grad.shape[2:], len(kernel) // c, f,
        times=4, DILATION=dilation, ADD=into is not None,
    )  # fmt: skip
    return x_grad


def depthwise_norm_grad(grad: Tensor, kernel: Tensor, norm: Normed) -> tuple[Tensor, Tensor]:
    x_grad, sums = _input_grad_rows(grad, kernel, norm.z, 1, norm, None)
    return x_grad, tb.summed(sums)


def _input_grad_rows(
    grad: Tensor, kernel: Tensor, x: Tensor, dilation: int, norm: Normed | None, into: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradient and, if there is a norm, sums (parts, 2, 1, C) as ``depthwise_norm_grad`` does."""
    f, c, h, w = x.shape
    x_grad = empty_pictures(x, f, c, h, w) if into is None else into
    setting = BACKWARD if norm is None else BACKWARD_NORMED
    parts = triton.cdiv(f * w, setting.pixels) * dilation
    sums = grad.new_empty(parts if norm else 0, 2, 1, c, dtype=sum_type(grad))
    tb.launch(
        _depthwise_input_grad_rows, setting, f * w, c,
        tb.strided(grad), _taps(kernel), tb.normed_argument(norm), x_grad, sums, h, w,
        times=dilation, EDGES=len(kernel) // c, DILATION=dilation, ADD=into is not None, STAGES=setting.stages,
    )  # fmt: skip
    return x_grad, sums


def depthwise_kernel_grad(
    grad: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None
) -> Tensor:
    """The gradient is in the type of sums."""
    (f, c_in, h, w), c_out = x.shape, grad.shape[1]
    setting, pixels = (KERNEL_GRAD, f * w) if stride == 1 else (KERNEL_GRAD_STRIDE2, rows_of(grad).pixels)
    block = tb.channel_block(c_in)
    blocks = triton.cdiv(c_out, block)
    parts, each = tb.parts_of(pixels, blocks, setting)
    sums = grad.new_empty(parts, c_out, 9, dtype=sum_type(grad))
    given = (pixels, c_out, tb.strided(grad), tb.strided(x), tb.normed_argument(norm), sums, each, c_in, h, w)
    flags = {"DILATION": dilation, "BLOCK_P": setting.pixels, "BLOCK_C": block, "num_warps": setting.warps}
    if stride == 1:
        _kernel_grad_rows[(blocks * parts,)](*given, STAGES=setting.stages, **flags)
    else:
        _kernel_grad_stride2[(blocks * parts,)](*given, *grad.shape[2:], **flags)
    return tb.summed(sums).view(c_out, 1, 3, 3)


def _taps(kernel: Tensor) -> tuple[Tensor, int, int]:
    """Return kernels (kC, 1, 3, 3), elements from a channel to the next and from a tap to the next."""
    return kernel, kernel.stride(0), kernel.stride(3)


@triton.jit
def _load_norm(norm, c, in_c):
    """What a batch norm normalises some channels by, and its parameters where it has some; of none nothing."""
    return [None if numbers is None else tb.load(numbers + c, in_c)[None, :] for numbers in norm[2:]]


@triton.jit
def _prologue(x, norm, inside):
    """What a convolution makes of x before it multiplies: ReLU(x) or ReLU(BN(x)), zero outside the picture."""
    if len(norm):
        x = (x - norm[0]) * norm[1]
        if norm[2] is not None:
            x = x * norm[2] + norm[3]
        x = tl.where(inside, x, 0.0)
    return tl.maximum(x, 0.0)


@triton.jit
def _prologues(x, like, norm, columns, there):
    """The same of a row's pixels and their neighbours, in the type of sums."""
    return [_prologue(x[n].to(like.dtype), norm, columns[n] & there) for n in (0, 1, 2)]


@triton.jit
def _load_taps(kernel, c, in_c):
    """The nine taps of each channel's kernel. Neighbours in memory where k_channel is 1, and so read together."""
    first, k_channel, k_tap = kernel
    return [tb.load(first + c * k_channel + tap * k_tap, in_c)[None, :] for tap in (0, 1, 2, 3, 4, 5, 6, 7, 8)]


@triton.jit
def _store_taps(target, sums, in_c):
    """Write the sums of nine taps next to each other."""
    for tap in tl.static_range(9):
        tl.store(target + tap, tl.sum(sums[tap], 0), mask=in_c)


@triton.jit
def _within(h, q, i):
    """Whether a picture has this row, as a mask; i is a Python number in Triton's interpreter."""
    row = q[:, None] * 0 + i
    return (row >= 0) & (row < h)


@triton.jit(do_not_specialize=SIZES)
def _depthwise_rows(
    columns, channels, x, kernel, norm, y, c_in, h, w,
    DILATION: tl.constexpr, STAGES: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The convolution of ReLU(x) or ReLU(BN(x))."""
    q, c, in_c, start, first, near = tb.columns_of_program(columns, channels, h, w, DILATION, BLOCK_P, BLOCK_C)
    valid, row = near[1], x[1]
    from_x, target = tb.at(x, first, c % c_in), tb.at((y, channels), first, c)
    statistics, k = _load_norm(norm, c, in_c), _load_taps(kernel, c, in_c)
    above, here = tb.zeros(y, BLOCK_P, BLOCK_C), tb.zeros(y, BLOCK_P, BLOCK_C)
    for i in tl.range(start, h + DILATION, DILATION, num_stages=STAGES):
        there, done = _within(h, q, i), i - DILATION
        values = tb.load_three(from_x + i * w * row, DILATION * row, near, there)
        values = _prologues(values, above, statistics, near, there)
        above = above + values[0] * k[6] + values[1] * k[7] + values[2] * k[8]  # fused multiplications and additions
        tb.store(target + done * w * channels, above, valid & _within(h, q, done))
        above = here + values[0] * k[3] + values[1] * k[4] + values[2] * k[5]
        here = values[0] * k[0] + values[1] * k[1] + values[2] * k[2]


@triton.jit(do_not_specialize=SIZES)
def _depthwise_input_grad_rows(
    columns, channels, g, kernel, norm, dx, sums, h, w,
    EDGES: tl.constexpr, DILATION: tl.constexpr, ADD: tl.constexpr, STAGES: tl.constexpr, BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradient for what edges convolve: as ``_depthwise_rows`` with the kernels turned, summed over edges.

    ``norm``: of ReLU(BN(x)). The gradient is for BN(x); ``sums`` (programs, 2, C): of it, and of it times x as
    BN has it before its parameters.
    """
    q, c, in_c, start, first, near = tb.columns_of_program(columns, channels, h, w, DILATION, BLOCK_P, BLOCK_C)
    valid, row = near[1], g[1]
    from_g, target = tb.at(g, first, c), tb.at((dx, channels), first, c)
    statistics, k = _load_norm(norm, c, in_c), _load_taps(kernel, c, in_c)
    zero = tb.zeros(dx, BLOCK_P, BLOCK_C)
    above, here, total, product = zero, zero, zero, zero
    for i in tl.range(start, h + DILATION, DILATION, num_stages=STAGES):
        below, there = zero, _within(h, q, i)
        for edge in tl.static_range(EDGES):
            d = tb.load_three(from_g + i * w * row + edge * channels, DILATION * row, near, there)
            d = [one.to(zero.dtype) for one in d]
            if EDGES > 1:
                k = _load_taps(kernel, edge * channels + c, in_c)
            above = above + d[0] * k[2] + d[1] * k[1] + d[2] * k[0]
            here = here + d[0] * k[5] + d[1] * k[4] + d[2] * k[3]
            below = below + d[0] * k[8] + d[1] * k[7] + d[2] * k[6]
        done = i - DILATION
        stored = valid & _within(h, q, done)
        if len(norm):
            z = tb.load(tb.at(norm, first, c) + done * w * norm[1], stored)
            above = (
                tl.where(_prologue(z, statistics, stored) > 0, above, 0.0).to(dx.dtype.element_ty).to(zero.dtype)
            )  # rounded as it is stored
            total += above
            product += above * ((z - statistics[0]) * statistics[1])
        if ADD:
            above += tb.load(target + done * w * channels, stored)
        tb.store(target + done * w * channels, above, stored)
        above, here = here, below
    if len(norm):
        sums_at = sums + tl.program_id(0) // tl.cdiv(channels, BLOCK_C) * 2 * channels + c
        tl.store(sums_at, tl.sum(total, 0), mask=in_c)
        tl.store(sums_at + channels, tl.sum(product, 0), mask=in_c)


@triton.jit(do_not_specialize=SIZES)
def _kernel_grad_rows(
    columns, channels, g, x, norm, sums, each, c_in, h, w,
    DILATION: tl.constexpr, STAGES: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradient for the kernels, of a part of the columns: (parts, kC, 9)."""
    c, in_c, part = tb.channels_of_program(channels, BLOCK_C)
    statistics = _load_norm(norm, c, in_c)
    totals = [tb.zeros(sums, BLOCK_P, BLOCK_C)] * 9
    end = tl.minimum(part * each + each, columns)
    for block in range(part * each, end, BLOCK_P):
        q = block + tl.arange(0, BLOCK_P)
        first, near = tb.neighbours(q, end, in_c, h, w, DILATION)
        from_x, from_g, g_step = tb.at(x, first, c % c_in), tb.at(g, first, c), DILATION * w * g[1]
        for start in tl.static_range(DILATION):
            for i in tl.range(start, h, DILATION, num_stages=STAGES):
                there = _within(h, q, i)
                values = tb.load_three(from_x + i * w * x[1], DILATION * x[1], near, there)
                values = _prologues(values, totals[0], statistics, near, there)
                g_at = from_g + i * w * g[1]
                above = tb.load(g_at - g_step, near[1] & _within(h, q, i - DILATION))
                here = tb.load(g_at, near[1] & there)
                d = (tb.load(g_at + g_step, near[1] & _within(h, q, i + DILATION)), here, above)
                totals = [totals[n] + d[n // 3] * values[n % 3] for n in (0, 1, 2, 3, 4, 5, 6, 7, 8)]
    _store_taps(sums + (part * channels + c) * 9, totals, in_c)


@triton.jit
def _tap_stride2(x, frame, i, j, valid, c, norm, h, w, KY: tl.constexpr, KX: tl.constexpr, DILATION: tl.constexpr):
    """What one tap of the kernel multiplies, for each pixel of the output."""
    a, b = i * 2 + (KY - 1) * DILATION, j * 2 + (KX - 1) * DILATION
    inside = ((a >= 0) & (a < h) & (b >= 0) & (b < w))[:, None] & valid
    return _prologue(tb.load(tb.at(x, (frame * h + a) * w + b, c), inside), norm, inside)


@triton.jit(do_not_specialize=SIZES)
def _depthwise_stride2(
    pixels, channels, x, kernel, norm, y, c_in, h, w, h_out, w_out,
    DILATION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, in_c, _, valid = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C)
    frame, i, j = p // (h_out * w_out), p // w_out % h_out, p % w_out
    statistics, total = _load_norm(norm, c, in_c), tb.zeros(y, BLOCK_P, BLOCK_C)
    for tap in tl.static_range(9):
        values = _tap_stride2(x, frame, i, j, valid, c % c_in, statistics, h, w, tap // 3, tap % 3, DILATION)
        total += values * tb.load(kernel[0] + c * kernel[1] + tap * kernel[2], in_c)[None, :]
    tb.store(tb.at((y, channels), p, c), total, valid)


@triton.jit(do_not_specialize=SIZES)
def _input_grad_stride2(
    pixels, channels, g, kernel, dx, h, w, h_out, w_out, edges, frames,
    DILATION: tl.constexpr, ADD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """At stride 2, where a pixel's row and column say which taps have read it.

    At dilation 1 the middle one an even row, the outer ones an odd row; at dilation 2 all of them even rows alone. So a
    program takes pixels whose rows and columns are alike.
    """
    p, c, in_c, kind, _ = tb.block_of_program(pixels, channels, BLOCK_P, BLOCK_C, 4)
    odd_i, odd_j = kind // 2, kind % 2
    frame, i, j = p // (h_out * w_out), p // w_out % h_out * 2 + odd_i, p % w_out * 2 + odd_j
    valid = ((frame < frames) & (i < h) & (j < w))[:, None] & in_c[None, :]
    if DILATION == 1:
        first_y, count_y, first_x, count_x, step = 1 - odd_i, 1 + odd_i, 1 - odd_j, 1 + odd_j, 2
    else:
        first_y, count_y, first_x, count_x, step = 0, 3 - 3 * odd_i, 0, 3 - 3 * odd_j, 1
    total = tb.zeros(dx, BLOCK_P, BLOCK_C)
    for edge in range(edges):
        of_edge = edge * channels + c
        for y in range(count_y):
            ky = first_y + y * step
            a = (i - (ky - 1) * DILATION) // 2
            for x in range(count_x):
                kx = first_x + x * step
                b = (j - (kx - 1) * DILATION) // 2
                inside = ((a >= 0) & (a < h_out) & (b >= 0) & (b < w_out))[:, None] & valid
                weight = tb.load(kernel[0] + of_edge * kernel[1] + (ky * 3 + kx) * kernel[2], in_c)
                total += tb.load(tb.at(g, (frame * h_out + a) * w_out + b, of_edge), inside) * weight[None, :]
    target = tb.at((dx, channels), (frame * h + i) * w + j, c)
    if ADD:
        total += tb.load(target, valid)
    tb.store(target, total, valid)


@triton.jit(do_not_specialize=SIZES)
def _kernel_grad_stride2(
    pixels, channels, g, x, norm, sums, each, c_in, h, w, h_out, w_out,
    DILATION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    c, in_c, part = tb.channels_of_program(channels, BLOCK_C)
    statistics = _load_norm(norm, c, in_c)
    totals = [tb.zeros(sums, BLOCK_P, BLOCK_C)] * 9
    end = tl.minimum(part * each + each, pixels)
    for first in range(part * each, end, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        valid = (p < end)[:, None] & in_c[None, :]
        frame, i, j = p // (h_out * w_out), p // w_out % h_out, p % w_out
        d = tb.load(tb.at(g, p, c), valid)
        totals = [
            totals[n] + d * _tap_stride2(x, frame, i, j, valid, c % c_in, statistics, h, w, n // 3, n % 3, DILATION)
            for n in (0, 1, 2, 3, 4, 5, 6, 7, 8)
        ]
    _store_taps(sums + (part * channels + c) * 9, totals, in_c)
