"""The self-test: every kernel of a set, in the type that is asked for, against the reference on small tensors.

Kernels are compiled by whatever compiler a machine has, for whatever processor it has. One that gives wrong numbers
there would make a search that runs and finds nonsense, or a prediction that is wrong. So ``choice.kernels_for`` asks
this test before anything runs by a set, and keeps what it has found on disk.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from pvnas.fast.kernels import cpp, pytorch
from pvnas.fast.kernels.channel_conv.cpu import channel_conv_into, lay_out
from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.fast.kernels.pool.cpu import pool_single
from pvnas.fast.kernels.tensors import unnormed

# Of a tensor's norm: how much further off than the reference in the same type, and what is let pass anyway.
TIMES = 4.0
TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.02, torch.float32: 1e-3, torch.float64: 1e-9}
FRAMES, EPS = 3, 1e-5
# Channels of an edge, edges, height, width: widths that leave part of a vector empty, and tensors that no cache holds.
SHAPES = ((5, 2, 6, 7), (16, 4, 5, 4), (33, 1, 4, 3), (66, 1, 40, 41))

Draw = Callable[..., Tensor]
"""Returns a tensor of a shape, pictures in channels-last memory."""


def first_wrong(kernels: Kernels, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return the kernel that is wrong and by how much, in words; None: all are right. Draws no random numbers."""
    for shape in SHAPES:
        for name, case in CASES.items():
            exact = _run(case, pytorch, shape, device, dtype, torch.float64)
            by = _off(_run(case, kernels, shape, device, dtype, dtype), exact)
            if by <= TOLERANCE[dtype]:
                continue
            if not by <= TIMES * _off(_run(case, pytorch, shape, device, dtype, dtype), exact) + TOLERANCE[dtype]:
                return f"{name} is off by {by:.1%}"  # also where it is not a number
    return None


def _run(
    case: Any, kernels: Kernels, shape: tuple[int, ...], device: torch.device, rounded: torch.dtype, dtype: torch.dtype
) -> Tensor:
    """Return all numbers that a case gives: from inputs rounded to one type, computed in another."""
    generator = torch.Generator().manual_seed(sum(shape))

    def draw(*sizes: int, shift: float = 0.0, plain: bool = False) -> Tensor:
        x = (torch.randn(*sizes, generator=generator) + shift).to(device, torch.float32 if plain else rounded)
        x = x.to(torch.float64 if dtype == torch.float64 else x.dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        return torch.cat([tensor.double().flatten() for tensor in case(kernels, draw, *shape)])


def _off(numbers: Tensor, exact: Tensor) -> float:
    return float((numbers - exact).norm() / exact.norm())


def _in_memory(kernels: Kernels, x: Any, like: Tensor, edges: int) -> Tensor:
    """Return what only convolutions over channels can read: through one that changes nothing."""
    if isinstance(x, Tensor):
        return x
    channels = x.shape[1] // edges
    eye = torch.eye(channels, device=like.device, dtype=like.dtype)[..., None, None]
    return kernels.channel_conv(x, eye.repeat(edges, 1, 1, 1), edges)


def _depthwise(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    for given in product((1, 2), (1, 2)):  # stride, dilation
        x, kernel = draw(2, c, h, w), draw(k * c, 1, 3, 3)
        y = _in_memory(kernels, kernels.depthwise(x, kernel, *given), x, k)
        grad = draw(*y.shape)
        yield y
        yield kernels.depthwise_input_grad(grad, kernel, x, *given)
        yield kernels.depthwise_input_grad(grad, kernel, x, *given, into=draw(*x.shape))
        yield kernels.depthwise_kernel_grad(grad, x, *given)


def _depthwise_behind_norm(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    z, kernel, grad = draw(2, c, h, w, shift=1.0), draw(c, 1, 3, 3), draw(2, c, h, w)
    plain = Normed(z, draw(c, plain=True), draw(c, plain=True).abs())
    for norm in (plain, plain._replace(weight=draw(c, plain=True), bias=draw(c, plain=True))):
        yield _in_memory(kernels, kernels.depthwise(z, kernel, norm=norm), z, 1)
        yield kernels.depthwise_kernel_grad(grad, z, norm=norm)
        yield from kernels.depthwise_norm_grad(grad, kernel, norm)


def _channel_conv(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    for taps, shared in product((1, 3), (False, True)):
        x, kernel = draw(2 * FRAMES, c if shared else k * c, h, w), draw(k * (c + 1), c, taps, 1)
        grad = draw(2 * FRAMES, k * (c + 1), h, w)
        yield kernels.channel_conv(x, kernel, k, FRAMES, not shared)
        yield kernels.channel_conv_input_grad(grad, kernel, k, FRAMES, shared)
        yield kernels.channel_conv_kernel_grad(grad, x, kernel, k, FRAMES, not shared)
        y, statistics = kernels.channel_conv_statistics(x, kernel, k, FRAMES, not shared, EPS)
        yield from (y, *statistics)


def _channel_conv_in_time(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    h, w = min(h, 6), min(w, 7)
    for frames in (2, 4, 5, 9):  # numbers that an algorithm of kernels of our own takes apart in different ways
        x, kernel, grad = draw(2 * frames, c, h, w), draw(k * c, c, 3, 1), draw(2 * frames, k * c, h, w)
        yield kernels.channel_conv(x, kernel, k, frames)
        yield kernels.channel_conv_input_grad(grad, kernel, k, frames, shared=True)
        yield kernels.channel_conv_kernel_grad(grad, x, kernel, k, frames)


def _channel_conv_of_parts(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    x, kernel, halves = draw(2, c, h, w), draw(k * c, c, 1, 1), draw(2, 2 * k * c, h, w)
    yield kernels.channel_conv_input_grad(halves, kernel, k, shared=True, first=c, step=2 * c)
    yield kernels.channel_conv_kernel_grad(halves, x, kernel, k, first=c, step=2 * c)
    yield kernels.channel_conv_input_grad(draw(2, c, h, w), draw(c, c, 1, 1), 1, behind_relu=x)
    kernels.channel_conv(x, kernel, k, into=halves[:, c:], step=2 * c)
    yield halves


def _spatial_conv(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    frames = max(2, 256 // (h * w))  # enough of them for the algorithm of kernels of our own
    for side, stride in product((0, 1, 2), (1, 2)):  # of the squares that it may cut pictures into
        x, kernel = draw(frames, c, h + side, w + side), draw(k * c, c, 3, 3)
        y = kernels.spatial_conv(x, kernel, stride)
        yield y
        grad = draw(*y.shape)
        yield from (given for given in kernels.spatial_conv_grads(grad, kernel, x, stride) if given is not None)
        yield kernels.spatial_conv_grads(grad, kernel, x, stride, draw(*x.shape), kernel_grad=False)[0]


def _norms(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    def normed(channels: int) -> Normed:
        z = draw(2, channels, h, w, shift=2.0)
        mean, _, inverse_std = kernels.batch_statistics(z, EPS)
        return Normed(z, mean, inverse_std)

    yield kernels.normalise(normed(c))
    per_edge = [normed(k * c) for _ in range(3)]
    for shared in ([normed(c), normed(c)], [normed(c), normed(c), unnormed(draw(2, c, h, w))]):
        grad, weights = draw(2, k * c, h, w), draw(k, 3 + len(shared), plain=True)
        for begin in (True, False):
            sums = draw(2, 2 * k * c, h, w)
            kernels.add_mixed(sums[:, : k * c], per_edge, shared, weights, begin=begin)
            yield sums
        sums = kernels.mixed_grad_sums(grad, per_edge, shared, k)
        yield sums
        rest = torch.cat([sums[:1], sums[4:]])
        for of_batch in (True, False):
            grads = kernels.per_edge_grads(grad, per_edge, weights[:, :3], sums[:4], of_batch=of_batch)
            yield from (_in_memory(kernels, each, grad, k) for each in grads)
            yield from kernels.shared_grads(grad, shared, weights[:, 3:], rest, of_batch=of_batch)


def _norms_of_clips(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    """Norms with parameters, of clips that are multiplied by a number each."""
    z, grad, scales = draw(2 * FRAMES, c, h, w), draw(2 * FRAMES, c, h, w), draw(2, 2, plain=True)
    mean, _, inverse_std = kernels.batch_statistics(z, EPS)
    normed = Normed(z, mean, inverse_std, draw(c, plain=True), draw(c, plain=True))
    ones, node = mean.new_ones(1, 2), draw(2 * FRAMES, c, h, w)
    yield kernels.normalise(normed)
    kernels.add_mixed(node, [normed, unnormed(grad)], [], ones, begin=True, scales=scales.to(mean.dtype))
    of_clips = scales[1].to(mean.dtype)
    sums = kernels.mixed_grad_sums(grad, [normed], [], 1, of_clips)
    yield from (node, sums)
    for of_batch in (True, False):
        (each,) = kernels.per_edge_grads(grad, [normed], ones[:, :1], sums, of_batch=of_batch, scales=of_clips)
        yield _in_memory(kernels, each, grad, 1)


def _pool(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    for stride in (1, 2):
        x = draw(2, c, h, w)
        average, largest, which = kernels.pool(x, stride)
        yield from (average, largest)
        grads = draw(*average.shape), draw(*average.shape)
        yield kernels.pool_grad(*grads, which, x, stride, None, None)
        yield kernels.pool_grad(*grads, which, x, stride, draw(*x.shape), draw(*x.shape))
        yield kernels.pool_grad(grads[0], None, None, x, stride, None, None)
        yield kernels.pool_grad(None, grads[1], which, x, stride, None, None)
        into = draw(2, 3 * c, h, w)
        kernels.pool_grad(*grads, which, x, stride, draw(*x.shape), None, into[:, c : 2 * c])
        yield into


def _pixels(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    x = draw(2, c, h, w)
    even, odd = kernels.pick_pixels(x, 0), kernels.pick_pixels(x, 1)
    yield from (even, odd, kernels.spread_pixels(even, None, x, None), kernels.spread_pixels(even, odd, x, None))
    yield kernels.spread_pixels(even, odd, x, draw(*x.shape))


def _optical_flow(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    x = draw(c, h + 2, w + 1).cumsum(1).cumsum(2).sin()  # smooth somewhere, rough elsewhere
    yield kernels.optical_flow(x[:, 1:-1, 1:], x[:, 2:, :-1])
    yield kernels.optical_flow(x[:, 1:-1, 1:], x[:, 2:, :-1], steady=True)


def _predictions(kernels: Kernels, draw: Draw, c: int, k: int, h: int, w: int) -> Iterator[Tensor]:
    """What only predictions call, and only the set in C++ has."""
    x, kernel, bias = draw(2 * FRAMES, c, h, w), draw(c + 1, c, 3, 1), draw(c + 1)
    node, average, largest = draw(2 * FRAMES, 3 * c, h, w), draw(2 * FRAMES, c, h, w), draw(2 * FRAMES, c, h, w)
    into = node[:, 1 : c + 2]
    if kernels.NAME == cpp.NAME:
        layout = lay_out(kernel, 1, FRAMES)
        channel_conv_into(x, kernel, 1, FRAMES, True, into=into, bias=bias, added=True, laid_out=layout)
        pool_single(x, 1, averages=True, into=average, added=True)
        pool_single(x, 1, averages=False, into=largest)
    else:
        into += pytorch.channel_conv(x, kernel, 1, FRAMES, True) + bias[:, None, None]
        both = pytorch.pool(x, 1)
        average += both[0]
        largest.copy_(both[1])
    yield from (node, average, largest)


CASES: dict[str, Callable[[Kernels, Draw, int, int, int, int], Iterator[Tensor]]] = {
    "depthwise": _depthwise,
    "depthwise behind batch norm": _depthwise_behind_norm,
    "spatial_conv": _spatial_conv,
    "channel_conv": _channel_conv,
    "channel_conv in time": _channel_conv_in_time,
    "channel_conv of some channels": _channel_conv_of_parts,
    "batch norm": _norms,
    "batch norm of clips": _norms_of_clips,
    "pool": _pool,
    "pixels": _pixels,
    "optical flow": _optical_flow,
    "predictions": _predictions,
}
