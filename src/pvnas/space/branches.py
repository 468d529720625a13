"""The operations with parameters of several edges that leave one node, computed together, forward and backward.

Legend: N clips, T frames, F = N*T folded frames, C channels of an edge, k edges; their channels lie side by side (kC).

All edges that leave a node see the same ReLU(x). So a convolution of each is one convolution to k times the channels,
and whatever follows goes on in k groups: a depthwise convolution has groups anyway, a BN never mixes channels. The
parameters stay where the plain cell has them; here their kernels lie one after another along the output channels.

The backward pass is written out since autograd would keep every tensor on the way, the k copies of the input among
them: a branch keeps what its own backward pass reads, and the inputs of convolutions only where the gradients of their
kernels are asked for, which the architecture step does not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.space.layers import fold_time, joined_kernel, pointwise, split_phases, unfold_time
from pvnas.space.norms import Norms, norm_backward, normalise

Kernels = Sequence[Tensor]
Kept = tuple[Any, ...]


@dataclass(frozen=True)
class Fan:
    """Some edges that leave one node together."""

    edges: int
    stride: int
    frames: int
    """T, the frames of a clip."""
    kernel_gradients: bool
    """Whether the gradients of the kernels will be asked for."""
    input_gradient: bool
    """Whether the gradient of the node will be asked for, or else the last BN's alone."""
    remake: bool = False
    """Whether tensors that are cheap to make again are made again, not kept."""


class Input:
    """ReLU(x) of the node, (F, C, H, W), and the forms of it that several branches read, each made once."""

    def __init__(self, relu_x_FCHW: Tensor, fan: Fan) -> None:
        self.r_FCHW, self.fan = relu_x_FCHW, fan

    @cached_property
    def repeated(self) -> Tensor:
        """The channels once for each edge, (F, kC, H, W)."""
        return _repeated(self.r_FCHW, self.fan)

    @cached_property
    def even(self) -> Tensor:
        """The even rows and columns, dense in channels-last memory."""
        return self.r_FCHW[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)

    @cached_property
    def odd(self) -> Tensor:
        """The odd rows and columns; of odd sizes padded with zeros to as many as there are even ones."""
        h, w = self.r_FCHW.shape[2:]
        odd = self.r_FCHW[:, :, 1::2, 1::2].contiguous(memory_format=torch.channels_last)
        return F.pad(odd, (0, w % 2, 0, h % 2)) if h % 2 or w % 2 else odd

    def on_even_pixels(self, x_FCHW: Tensor) -> Tensor:
        """Return zeros of the input's shape with x on the even rows and columns."""
        y = torch.zeros_like(self.r_FCHW)
        y[:, :, ::2, ::2] = x_FCHW
        return y


class BranchGradient(NamedTuple):
    """What the backward pass of a branch returns."""

    r_FCHW: Tensor
    """For the branch's input, (F, C, H, W)."""
    kernels: Sequence[Tensor | None]
    """For its kernels, where the fan asks for them."""


class Branch(ABC):
    """One kind of operation up to, and without, its last BN."""

    def prepare(self, kernels: Kernels, fan: Fan) -> Kernels:
        """Return the edges' kernels with what is made of them alone."""
        return kernels

    @abstractmethod
    def forward(self, inputs: Input, kernels: Kernels, norms: Norms) -> tuple[Tensor, Kept]:
        """Return the (F, kC, H', W') that the last BN will see, and what else a backward pass may need.

        ``kernels``: prepared; ``norms``: the BN layers on the way, one per edge.
        """

    def keep(self, z_FCHW: Tensor, rest: Kept, fan: Fan) -> Kept:
        """Return what the backward pass of this fan needs of what ``forward`` has returned."""
        return z_FCHW, *rest

    def again(self, inputs: Input, kernels: Kernels, kept: Kept) -> tuple[Tensor, Kept]:
        """Return what ``forward`` returned first, and what ``backward`` needs: as kept, or made again."""
        return kept[0], kept[1:]

    @abstractmethod
    def backward(self, gradient: Tensor, inputs: Input, kernels: Kernels, kept: Kept) -> BranchGradient:
        """Return the gradients for the input and the kernels from that of what ``forward`` returned first."""


class Separable(Branch):
    """(ReLU, depthwise 3x3, pointwise, BN) twice; the stride in the first."""

    def forward(self, inputs: Input, kernels: Kernels, norms: Norms) -> tuple[Tensor, Kept]:
        """Return what the second BN will see, and what the first one saw and found."""
        depthwise1, pointwise1, depthwise2, pointwise2 = kernels
        a = _pointwise(_depthwise(inputs.repeated, depthwise1, inputs.fan.stride), pointwise1, inputs.fan)
        state = norms.state(a)
        z = _pointwise(_depthwise(normalise(a, state).relu_(), depthwise2), pointwise2, inputs.fan)
        return z, (a, state)

    def keep(self, z_FCHW: Tensor, rest: Kept, fan: Fan) -> Kept:
        """Keep what the first BN saw, and what the second one saw where that is not made again."""
        if self._remakes(fan):
            return rest
        return (z_FCHW, *rest) if fan.input_gradient else (z_FCHW,)

    def again(self, inputs: Input, kernels: Kernels, kept: Kept) -> tuple[Tensor, Kept]:
        """Return what the second BN saw; where that is made again, all on the way to it too."""
        if not self._remakes(inputs.fan):
            return super().again(inputs, kernels, kept)
        _, _, depthwise2, pointwise2 = kernels
        h = normalise(*kept).relu_()
        u = _depthwise(h, depthwise2)
        return _pointwise(u, pointwise2, inputs.fan), (*kept, h, u)

    @staticmethod
    def _remakes(fan: Fan) -> bool:
        """Whether the second BN's input is made again: all but the last convolution is needed again in any case."""
        return fan.remake and fan.kernel_gradients

    def backward(self, gradient: Tensor, inputs: Input, kernels: Kernels, kept: Kept) -> BranchGradient:
        """Go backwards through both halves; the first depthwise convolution's output is made again."""
        fan = inputs.fan
        depthwise1, pointwise1, depthwise2, pointwise2 = kernels
        a, state, *made = kept
        if not made:
            h = normalise(a, state).relu_()
            made = [h, _depthwise(h, depthwise2) if fan.kernel_gradients else None]
        h, u = made
        g, d_pointwise2 = _pointwise_backward(gradient, u, pointwise2, fan)
        d_depthwise2 = _depthwise_kernel_gradient(g, h, depthwise2, fan)
        g = _depthwise(g, depthwise2.flip(2, 3))
        torch.ops.aten.threshold_backward.grad_input(g, h, 0, grad_input=g)
        g, _ = norm_backward(g, a, state)
        u = _depthwise(inputs.repeated, depthwise1, fan.stride) if fan.kernel_gradients else None
        g, d_pointwise1 = _pointwise_backward(g, u, pointwise1, fan)
        if fan.stride == 1:
            d_depthwise1 = _depthwise_kernel_gradient(g, inputs.repeated, depthwise1, fan)
            g = _depthwise(g, depthwise1.flip(2, 3))
        else:
            g, d_depthwise1 = conv_backward(g, inputs.repeated, depthwise1, fan, (2, 2), (1, 1), g.shape[1])
        return BranchGradient(_summed(g, fan.edges), (d_depthwise1, d_pointwise1, d_depthwise2, d_pointwise2))


class DilatedSeparable(Branch):
    """ReLU, depthwise 3x3 of dilation 2, pointwise, BN.

    At stride 2 every tap falls on an even pixel: an undilated convolution of those. At stride 1 the gradient for the
    kernel, slow on a CPU, is that of an undilated one on the four phases of even and odd pixels.
    """

    def forward(self, inputs: Input, kernels: Kernels, norms: Norms) -> tuple[Tensor, Kept]:
        """Return what the BN will see."""
        depthwise, pointwise = kernels
        return _pointwise(self._depthwise(inputs, depthwise), pointwise, inputs.fan), ()

    def keep(self, z_FCHW: Tensor, rest: Kept, fan: Fan) -> Kept:
        """Keep what the BN saw where it is not made again."""
        return () if self._remakes(fan) else (z_FCHW,)

    def again(self, inputs: Input, kernels: Kernels, kept: Kept) -> tuple[Tensor, Kept]:
        """Return what the BN saw; where that is made again, the depthwise output too."""
        if not self._remakes(inputs.fan):
            return super().again(inputs, kernels, kept)
        depthwise, pointwise = kernels
        u = self._depthwise(inputs, depthwise)
        return _pointwise(u, pointwise, inputs.fan), (u,)

    def backward(self, gradient: Tensor, inputs: Input, kernels: Kernels, kept: Kept) -> BranchGradient:
        """Go backwards through the pointwise, then the depthwise convolution."""
        fan = inputs.fan
        depthwise, pointwise = kernels
        u = kept[0] if kept else self._depthwise(inputs, depthwise) if fan.kernel_gradients else None
        g, d_pointwise = _pointwise_backward(gradient, u, pointwise, fan)
        d_depthwise = None
        if fan.kernel_gradients:
            x, g_x = (inputs.even, g) if fan.stride == 2 else (split_phases(inputs.r_FCHW), split_phases(g))
            d_depthwise = _depthwise_kernel_gradient(g_x, _repeated(x, fan), depthwise, fan)
        dr = _summed(_depthwise(g, depthwise.flip(2, 3), dilation=1 if fan.stride == 2 else 2), fan.edges)
        return BranchGradient(inputs.on_even_pixels(dr) if fan.stride == 2 else dr, (d_depthwise, d_pointwise))

    @staticmethod
    def _remakes(fan: Fan) -> bool:
        """Whether the BN's input is made again: where the node has no gradient, it is all that is needed."""
        return fan.remake and fan.input_gradient

    @staticmethod
    def _depthwise(inputs: Input, kernel: Tensor) -> Tensor:
        if inputs.fan.stride == 2:
            return _depthwise(_repeated(inputs.even, inputs.fan), kernel)
        return _depthwise(inputs.repeated, kernel, dilation=2)


class Temporal3x3(Branch):
    """ReLU, dense 1x3x3, 3x1x1, BN; the first convolution has the same input for all edges."""

    def prepare(self, kernels: Kernels, fan: Fan) -> Kernels:
        """Return the dense kernel in the memory of the pictures: else PyTorch copies it whenever it reads it."""
        spatial, temporal = kernels
        return spatial.contiguous(memory_format=torch.channels_last), temporal

    def forward(self, inputs: Input, kernels: Kernels, norms: Norms) -> tuple[Tensor, Kept]:
        """Return what the BN will see, and what the temporal convolution saw."""
        spatial, temporal = kernels
        s = F.conv2d(inputs.r_FCHW, spatial, None, inputs.fan.stride, 1)
        return _over_time(s, temporal, inputs.fan, inputs.fan.edges), (s,)

    def keep(self, z_FCHW: Tensor, rest: Kept, fan: Fan) -> Kept:
        """Keep what the temporal convolution saw for the gradient of its kernel alone."""
        return (z_FCHW, *rest) if fan.kernel_gradients else (z_FCHW, None)

    def backward(self, gradient: Tensor, inputs: Input, kernels: Kernels, kept: Kept) -> BranchGradient:
        """Go backwards through both convolutions."""
        fan = inputs.fan
        spatial, temporal = kernels
        g, d_temporal = _over_time_backward(gradient, kept[0], temporal, fan, fan.edges)
        g, d_spatial = conv_backward(g, inputs.r_FCHW, spatial, fan, (fan.stride, fan.stride), (1, 1))
        if d_spatial is not None:  # dense as its parameter: optimisers take many such tensors at once
            d_spatial = d_spatial.contiguous()
        return BranchGradient(g, (d_spatial, d_temporal))


class Temporal1x1(Branch):
    """ReLU, 1x1x1, 3x1x1, BN: nothing lies between the two convolutions, so that one of their product does.

    The product is taken of the kernels, (C, C) by (C, C, 3), and not once per pixel.
    """

    def prepare(self, kernels: Kernels, fan: Fan) -> Kernels:
        """Return both kernels and their product."""
        spatial, temporal = kernels
        return spatial, temporal, _product(spatial, temporal, fan.edges)

    def forward(self, inputs: Input, kernels: Kernels, norms: Norms) -> tuple[Tensor, Kept]:
        """Return what the BN will see."""
        r_FCHW = inputs.even if inputs.fan.stride == 2 else inputs.r_FCHW
        return _over_time(r_FCHW, kernels[2], inputs.fan), ()

    def backward(self, gradient: Tensor, inputs: Input, kernels: Kernels, kept: Kept) -> BranchGradient:
        """Go backwards through the one convolution, then to both kernels through their product."""
        fan = inputs.fan
        r_FCHW = inputs.even if fan.stride == 2 else inputs.r_FCHW
        spatial, temporal, product = kernels
        g, d_product = _over_time_backward(gradient, r_FCHW, product, fan)
        d_kernels = (None, None) if d_product is None else product_backward(d_product, spatial, temporal, fan.edges)
        return BranchGradient(inputs.on_even_pixels(g) if fan.stride == 2 else g, d_kernels)


class Pointwise(Branch):
    """ReLU, pointwise convolution, BN: what brings a cell's input to the cell's width."""

    def forward(self, inputs: Input, kernels: Kernels, norms: Norms) -> tuple[Tensor, Kept]:
        """Return what the BN will see."""
        return pointwise(inputs.r_FCHW, kernels[0]), ()

    def backward(self, gradient: Tensor, inputs: Input, kernels: Kernels, kept: Kept) -> BranchGradient:
        """Go backwards through the convolution."""
        dr, d_kernel = conv_backward(gradient, inputs.r_FCHW, kernels[0], inputs.fan)
        return BranchGradient(dr, (d_kernel,))


class Reduction(Branch):
    """Identity at stride 2: ReLU, two pointwise convolutions, one of the even and one of the odd pixels, joined, BN."""

    def forward(self, inputs: Input, kernels: Kernels, norms: Norms) -> tuple[Tensor, Kept]:
        """Return what the BN will see, the halves of each edge side by side."""
        halves = [
            pointwise(x, kernel).permute(0, 2, 3, 1).unflatten(3, (inputs.fan.edges, -1))
            for x, kernel in zip((inputs.even, inputs.odd), kernels, strict=True)
        ]
        return torch.cat(halves, 4).flatten(3).permute(0, 3, 1, 2), ()

    def backward(self, gradient: Tensor, inputs: Input, kernels: Kernels, kept: Kept) -> BranchGradient:
        """Part the gradient into halves, go backwards through each and put the pixels together."""
        fan = inputs.fan
        h, w = inputs.r_FCHW.shape[2:]
        sizes = [len(kernel) // fan.edges for kernel in kernels]
        halves = gradient.permute(0, 2, 3, 1).unflatten(3, (fan.edges, -1)).split(sizes, 4)
        (even, d_even), (odd, d_odd) = (
            conv_backward(half.flatten(3).permute(0, 3, 1, 2), x, kernel, fan)
            for half, x, kernel in zip(halves, (inputs.even, inputs.odd), kernels, strict=True)
        )
        dr = inputs.on_even_pixels(even)
        dr[:, :, 1::2, 1::2] = odd[:, :, : h // 2, : w // 2]  # the rest is the padding of odd sizes
        return BranchGradient(dr, (d_even, d_odd))


BRANCHES: dict[str, Branch] = {
    "identity": Reduction(),
    "sep_conv_1x3x3": Separable(),
    "dil_sep_conv_1x3x3": DilatedSeparable(),
    "temporal_conv_3+3x3": Temporal3x3(),
    "temporal_conv_3+1x1": Temporal1x1(),
}


def _repeated(x_FCHW: Tensor, fan: Fan) -> Tensor:
    """Return the channels once for each edge. Joined, which is a few times faster than repeated."""
    return torch.cat([x_FCHW] * fan.edges, 1) if fan.edges > 1 else x_FCHW


def _summed(x_FCHW: Tensor, k: int) -> Tensor:
    """Return the sum (F, C, H, W) over k edges: the backward pass of ``_repeated``."""
    if k == 1:
        return x_FCHW
    first, second, *others = x_FCHW.chunk(k, 1)
    total = first + second
    for other in others:
        total += other
    return total


def _depthwise(x_FCHW: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """A 3x3 depthwise convolution; with the kernel flipped, at stride 1, the gradient for its input."""
    return F.conv2d(x_FCHW, kernel, None, stride, dilation, dilation, x_FCHW.shape[1])


def _pointwise(x_FCHW: Tensor, kernel: Tensor, fan: Fan) -> Tensor:
    """A 1x1 convolution of each edge's own channels."""
    return pointwise(x_FCHW, kernel) if fan.edges == 1 else F.conv2d(x_FCHW, kernel, groups=fan.edges)


def _over_time(x_FCHW: Tensor, kernel: Tensor, fan: Fan, groups: int = 1) -> Tensor:
    """A 3x1x1 convolution; its kernel is (out, in, 3, 1)."""
    y_NCTP = F.conv2d(unfold_time(x_FCHW, fan.frames).flatten(3), kernel, None, 1, (1, 0), 1, groups)
    return fold_time(y_NCTP.unflatten(3, x_FCHW.shape[2:]))


def _product(spatial: Tensor, temporal: Tensor, edges: int) -> Tensor:
    """Return the kernel (kC, C, 3, 1) of a 1x1x1 convolution (kC, C, 1, 1) and then a 3x1x1 one (kC, C, 3, 1)."""
    c = spatial.shape[1]
    first_kCC, later_kCCt = spatial.view(edges, c, c), temporal.view(edges, c, c, 3)
    return joined_kernel(first_kCC, later_kCCt).reshape(edges * c, c, 3, 1)


def product_backward(gradient: Tensor, spatial: Tensor, temporal: Tensor, edges: int) -> tuple[Tensor, Tensor]:
    """Return the gradients for both kernels of ``_product``."""
    c = spatial.shape[1]
    first_kCC, later_kCCt, g_kCCt = (x.view(edges, c, c, -1) for x in (spatial, temporal, gradient))
    d_first = torch.einsum("kamt,kabt->kmb", later_kCCt, g_kCCt)
    d_later = torch.einsum("kabt,kmb->kamt", g_kCCt, first_kCC.squeeze(3))
    return d_first.reshape(spatial.shape), d_later.reshape(temporal.shape)


def conv_backward(
    gradient: Tensor,
    x: Tensor | None,
    kernel: Tensor,
    fan: Fan,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    of_input: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients for the input and, where the fan asks for it, for the kernel of a convolution.

    ``x`` None: an input that was not kept, of the gradient's shape.
    """
    x = torch.empty_like(gradient) if x is None else x
    wanted = [of_input, fan.kernel_gradients, False]
    dx, d_kernel, _ = torch.ops.aten.convolution_backward(
        gradient, x, kernel, None, stride, padding, (1, 1), False, (0, 0), groups, wanted
    )
    return dx, d_kernel


def _depthwise_kernel_gradient(gradient: Tensor, x: Tensor, kernel: Tensor, fan: Fan) -> Tensor | None:
    """Of a 3x3 depthwise convolution at stride 1."""
    if not fan.kernel_gradients:
        return None
    return conv_backward(gradient, x, kernel, fan, padding=(1, 1), groups=gradient.shape[1], of_input=False)[1]


def _pointwise_backward(gradient: Tensor, x: Tensor | None, kernel: Tensor, fan: Fan) -> tuple[Tensor, Tensor | None]:
    """As of a convolution in groups; from 32 channels on the kernel's gradient is twice as fast as a matrix product."""
    if fan.edges == 1 or x is None or kernel.shape[1] < 32:
        return conv_backward(gradient, x, kernel, fan, groups=fan.edges)
    dx, _ = conv_backward(gradient, None, kernel, replace(fan, kernel_gradients=False), groups=fan.edges)
    g_PkC, x_PkC = (t.permute(0, 2, 3, 1).reshape(-1, fan.edges, t.shape[1] // fan.edges) for t in (gradient, x))
    return dx, torch.bmm(g_PkC.permute(1, 2, 0), x_PkC.permute(1, 0, 2)).reshape(kernel.shape)


def _over_time_backward(
    gradient: Tensor, x_FCHW: Tensor | None, kernel: Tensor, fan: Fan, groups: int = 1
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients for the input and the kernel of ``_over_time``."""
    products = _by_products_over_time(gradient, x_FCHW, groups)
    own_fan = replace(fan, kernel_gradients=fan.kernel_gradients and not products)
    g_NCTP = unfold_time(gradient, fan.frames).flatten(3)
    x_NCTP = None if x_FCHW is None else unfold_time(x_FCHW, fan.frames).flatten(3)
    dx_NCTP, d_kernel = conv_backward(g_NCTP, x_NCTP, kernel, own_fan, padding=(1, 0), groups=groups)
    if products and fan.kernel_gradients:
        assert x_FCHW is not None
        d_kernel = _over_time_kernel_gradient(gradient, x_FCHW, fan.frames)
    return fold_time(dx_NCTP.unflatten(3, gradient.shape[2:])), d_kernel


def _by_products_over_time(gradient: Tensor, x_FCHW: Tensor | None, groups: int) -> bool:
    """Whether the kernel's gradient is faster as products of matrices: on a CPU, from 64 channels on."""
    return x_FCHW is not None and groups == 1 and gradient.device.type == "cpu" and x_FCHW.shape[1] >= 64


def _over_time_kernel_gradient(gradient: Tensor, x_FCHW: Tensor, frames: int) -> Tensor:
    """Return the gradient (out, in, 3, 1) for the kernel of ``_over_time``: for each tap a product over all pixels."""
    g_NQC, x_NQC = (
        t.permute(0, 2, 3, 1).reshape(-1, frames * t.shape[2:].numel(), t.shape[1]) for t in (gradient, x_FCHW)
    )
    frame = gradient.shape[2:].numel()
    taps = ((g_NQC[:, frame:], x_NQC[:, :-frame]), (g_NQC, x_NQC), (g_NQC[:, :-frame], x_NQC[:, frame:]))
    return torch.stack([torch.bmm(g.transpose(1, 2), x).sum(0) for g, x in taps], -1).unsqueeze(-1)
