"""Each kernel alone: how far off PyTorch's operations in float64, how fast, at what share of a copy's rate.

    python benchmarks/kernel_speed.py OUT [--device cuda] [--precision bf16] [--sizes 28x64x4 14x128x4 7x256x4]

A size is the side of the pictures, the channels of a node and the edges that leave it; the default sizes are those of
the paper's search cells. ``error``: the norm of the difference, of the norm. ``bytes``: what a kernel must at least
read and write. Writes OUT/kernel_speed.json and prints a table. The set is the one that is used on the device,
see ``result["set"]``; of the C++ set on a CPU in fp32 some are left out, which are computed where they are read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common import command_line, describe_machine, now
from pvnas.bench.roofline import measure_machine, timed
from pvnas.fast.kernels.choice import kernels_for
from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.fast.kernels.tensors import tap_by_tap, unnormed

FRAMES, ROUNDS, CALLS, EPS = 8, 5, 10, 1e-3
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Case(NamedTuple):
    """One kernel at one size."""

    name: str
    run: Callable[[], Any]
    expected: Callable[[], Any]
    """The same by PyTorch's operations, in float64."""
    moved: list[Tensor]
    """What it reads and writes."""


class Size(NamedTuple):
    """Pictures of ``side`` squared pixels, the channels of a node and the edges that leave it."""

    pictures: int
    side: int
    channels: int
    edges: int

    def __str__(self) -> str:
        return f"{self.side}x{self.channels}x{self.edges}"


class Bench:
    """The kernels at one size, with random numbers."""

    def __init__(self, kernels: Kernels, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        self.kernels, self.size, self.device, self.dtype = kernels, size, device, dtype
        self.draw = torch.Generator(device).manual_seed(0)
        k = size.edges
        self.x, self.z, self.g, self.of_x = (self.pictures(n * size.channels) for n in (1, k, k, 1))

    def numbers(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draw, device=self.device)

    def pictures(self, channels: int, side: int | None = None) -> Tensor:
        side = side or self.size.side
        return self.numbers(self.size.pictures, side, side, channels).to(self.dtype).permute(0, 3, 1, 2)

    def normed(self, z: Tensor) -> Normed:
        return Normed(z, z.double().mean((0, 2, 3)).float(), (z.double().var((0, 2, 3), correction=0)).rsqrt().float())

    # ---- by group

    def depthwise(self) -> Iterator[Case]:
        kernels, x, g = self.kernels, self.x, self.g
        c, k = self.size.channels, self.size.edges
        kernel = (self.numbers(k * c, 1, 3, 3) * 0.3).to(self.dtype)
        taps = tap_by_tap(kernel)
        for stride, dilation in ((1, 1), (1, 2), (2, 1), (2, 2)):
            small = g if stride == 1 else self.pictures(k * c, -(-self.size.side // 2))
            name = f"depthwise, stride {stride}, dilation {dilation}"

            def passes(small: Tensor = small, stride: int = stride, dilation: int = dilation) -> list[Tensor]:
                repeated, weights = asked(x.double().relu().repeat(1, k, 1, 1), kernel.double())
                y = F.conv2d(repeated, weights, None, stride, dilation, dilation, k * c)
                dx, dk = torch.autograd.grad(y, (repeated, weights), small.double())
                return [y, dx.unflatten(1, (k, c)).sum(1), dk]

            settings = (stride, dilation)
            if self.kernels.NAME != "c++":  # which computes it where it is read
                yield Case(name, lambda s=settings: kernels.depthwise(x, taps, *s), lambda p=passes: p()[0], [x, small])
            run = lambda small=small, s=settings: kernels.depthwise_input_grad(small, taps, x, *s)  # noqa: E731
            yield Case(f"{name}: of the input", run, lambda p=passes: p()[1], [x, small])
            run = lambda small=small, s=settings: kernels.depthwise_kernel_grad(small, x, *s)  # noqa: E731
            yield Case(f"{name}: of the kernel", run, lambda p=passes: p()[2], [x, small])
        yield from self.depthwise_behind_norm(kernel, taps)

    def depthwise_behind_norm(self, kernel: Tensor, taps: Tensor) -> Iterator[Case]:
        kernels, z, g = self.kernels, self.z, self.g
        norm = self.normed(z)

        def passes() -> list[Tensor]:
            n = (z.double() - per_channel(norm.mean)) * per_channel(norm.inverse_std)
            normed, weights = asked(n, kernel.double())
            y = F.conv2d(normed.relu(), weights, None, 1, 1, 1, len(kernel))
            return [y, *torch.autograd.grad(y, (normed, weights), g.double())]

        name = "depthwise of BN"
        if self.kernels.NAME != "c++":
            yield Case(name, lambda: kernels.depthwise(z, taps, norm=norm), lambda: passes()[0], [z, z])
        run = lambda: kernels.depthwise_norm_grad(g, taps, norm)[0]  # noqa: E731
        yield Case(f"{name}: of the input", run, lambda: passes()[1], [g, z, z])
        run = lambda: kernels.depthwise_kernel_grad(g, z, norm=norm)  # noqa: E731
        yield Case(f"{name}: of the kernel", run, lambda: passes()[2], [g, z])

    def channel_convs(self) -> Iterator[Case]:
        kernels, z, g, k, c = self.kernels, self.z, self.g, self.size.edges, self.size.channels
        for taps in (1, 3):
            kernel = (self.numbers(k * c, c, taps, 1) * 0.1).to(self.dtype)

            def passes(kernel: Tensor = kernel, taps: int = taps) -> list[Tensor]:
                read, weights = asked(z.double(), kernel.double())
                clips = read.unflatten(0, (-1, FRAMES)).transpose(1, 2).flatten(3)
                y = F.conv2d(clips, weights, None, 1, (taps // 2, 0), 1, k).transpose(1, 2).reshape(z.shape)
                return [y, *torch.autograd.grad(y, (read, weights), g.double())]

            name, given = f"{taps}x1x1", (kernel, k, FRAMES)
            yield Case(name, lambda a=given: kernels.channel_conv(z, *a), lambda p=passes: p()[0], [z, z])
            run = lambda a=given: kernels.channel_conv_statistics(z, *a, eps=EPS)[1][2]  # noqa: E731
            inverse = lambda p=passes: (p()[0].var((0, 2, 3), correction=0) + EPS).rsqrt()  # noqa: E731
            yield Case(f"{name} and its statistics", run, inverse, [z, z])
            run = lambda a=given: kernels.channel_conv_input_grad(g, *a)  # noqa: E731
            yield Case(f"{name}: of the input", run, lambda p=passes: p()[1], [g, g])
            run = lambda a=given: kernels.channel_conv_input_grad(g, *a, shared=True)  # noqa: E731
            summed = lambda p=passes: p()[1].unflatten(1, (k, c)).sum(1)  # noqa: E731
            yield Case(f"{name}: of an input of all edges", run, summed, [g, self.x])
            run = lambda a=given: kernels.channel_conv_kernel_grad(g, z, *a)  # noqa: E731
            yield Case(f"{name}: of the kernel", run, lambda p=passes: p()[2], [g, z])

    def norms(self) -> Iterator[Case]:
        kernels, x, z, g, k, c = self.kernels, self.x, self.z, self.g, self.size.edges, self.size.channels
        of_edges = [self.normed(z), self.normed(self.pictures(k * c))]
        shared = [self.normed(x), self.normed(self.pictures(c)), unnormed(x)]
        weights = torch.rand(k, 5, generator=self.draw, device=self.device)
        every = [*of_edges, *shared]
        scale = weights.double().repeat_interleave(c, 0)

        def output(o: int) -> Tensor:
            y = (every[o].z.double() - per_channel(every[o].mean)) * per_channel(every[o].inverse_std)
            return y if o < 2 else y.repeat(1, k, 1, 1)

        def product(o: int) -> Tensor:
            return (g.double() * output(o)).sum((0, 2, 3))

        def sums() -> Tensor:
            return torch.stack([g.double().sum((0, 2, 3)), *(product(o) for o in range(5))]).view(6, k, c)

        def z_grad() -> Tensor:
            y, count = output(1), g.numel() / (k * c)
            d = g.double() - per_channel(g.double().sum((0, 2, 3))) / count - y * per_channel(product(1)) / count
            return d * per_channel(scale[:, 1] * every[1].inverse_std.double())

        everything = [g, z, z, x, x, x]
        target = torch.empty_like(g)

        def add() -> Tensor:
            kernels.add_mixed(target, of_edges, shared, weights, begin=True)
            return target

        total = lambda: sum(output(o) * per_channel(scale[:, o]) for o in range(5))  # noqa: E731
        yield Case("sum of all operations", add, total, everything)
        run = lambda: kernels.mixed_grad_sums(g, of_edges, shared, k)  # noqa: E731
        yield Case("sums of their backward pass", run, sums, everything)
        known = sums().float()[:3].contiguous()
        run = lambda: kernels.per_edge_grads(g, of_edges, weights[:, :2], known, of_batch=True)  # noqa: E731
        if self.kernels.NAME != "c++":
            yield Case("gradients of the edges' BN", lambda: run()[1], z_grad, [g, z, z, z, z])
        variance = lambda: z.double().var((0, 2, 3), correction=0)  # noqa: E731
        yield Case("statistics", lambda: kernels.batch_statistics(z, EPS)[1], variance, [z])

    def poolings(self) -> Iterator[Case]:
        kernels, x = self.kernels, self.x
        for stride in (1, 2):
            average, maximum, which = kernels.pool(x, stride)
            average_grad, max_grad = (self.pictures(x.shape[1], average.shape[2]) for _ in range(2))

            def passes(stride: int = stride, a: Tensor = average_grad, b: Tensor = max_grad) -> list[Tensor]:
                (read,) = asked(x.double().contiguous())
                outputs = F.avg_pool2d(read, 3, stride, 1, count_include_pad=False), F.max_pool2d(read, 3, stride, 1)
                return [*outputs, *torch.autograd.grad(outputs, read, (a.double(), b.double()))]

            moved = [x, average, maximum, which]
            run = lambda s=stride: kernels.pool(x, s)[0]  # noqa: E731
            yield Case(f"poolings, stride {stride}", run, lambda p=passes: p()[0], moved)
            given = (average_grad, max_grad, which, x, stride, None, None)
            run = lambda a=given: kernels.pool_grad(*a)  # noqa: E731
            yield Case(f"poolings, stride {stride}: backward", run, lambda p=passes: p()[2], moved)

    def cases(self) -> Iterator[Case]:
        """All of them, group by group."""
        for group in (self.depthwise, self.channel_convs, self.norms, self.poolings):
            yield from group()


def asked(*tensors: Tensor) -> list[Tensor]:
    """Let tensors ask for their gradients."""
    return [tensor.detach().requires_grad_() for tensor in tensors]


def per_channel(values: Tensor) -> Tensor:
    """One number a channel, in float64, beside pictures."""
    return values.double().view(-1, 1, 1)


def error_of(case: Case) -> float:
    """Return how far a kernel is off."""
    expected = case.expected().detach()
    return float((case.run().double() - expected).norm() / expected.norm())


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Return the least seconds of a call, several in a row; on a GPU recorded, so that the host is not measured."""
    for _ in range(2):
        run()
    calls: Callable[[], Any] = lambda: [run() for _ in range(CALLS)]  # noqa: E731
    if device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            calls()
        calls = graph.replay
    return min(timed(calls, device) for _ in range(ROUNDS)) / CALLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=list(TYPES), help="[bf16 on a GPU, fp32 on a CPU]")
    parser.add_argument("--pictures", type=int, default=256, help="clips of 8 frames, folded")
    parser.add_argument("--sizes", nargs="*", default=["28x64x4", "14x128x4", "7x256x4"])
    args = parser.parse_args()
    device = torch.device(args.device)
    dtype = TYPES[args.precision or ("bf16" if device.type == "cuda" else "fp32")]
    kernels = kernels_for(torch.empty(0, device=device, dtype=dtype))

    rate = measure_machine(device, dtype).bytes_per_s
    result: dict[str, Any] = {"date": now(), "command": command_line(), "machine": describe_machine()}
    result |= {"set": kernels.NAME}
    result |= {"precision": str(dtype), "pictures": args.pictures, "copy_bytes_per_s": rate, "kernels": []}
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{'kernel':48} {'size':>10} {'error':>8} {'us':>8} {'share':>6}")
    for text in args.sizes:
        side, channels, edges = (int(number) for number in text.split("x"))
        for case in Bench(kernels, Size(args.pictures, side, channels, edges), device, dtype).cases():
            error, seconds = error_of(case), seconds_of(case.run, device)
            moved = sum(tensor.nbytes for tensor in case.moved)
            share = moved / rate / seconds
            print(f"{case.name:48} {text:>10} {error:8.1e} {seconds * 1e6:8.1f} {share:6.2f}", flush=True)
            row = {"kernel": case.name, "size": text, "error": error, "seconds": seconds, "bytes": moved}
            result["kernels"].append(row | {"share_of_a_copy": round(share, 3)})
            (args.out / "kernel_speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
