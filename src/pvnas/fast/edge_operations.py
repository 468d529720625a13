"""The operations with parameters of all edges that leave one node, computed together, forward and backward.

All edges that leave a node see the same ReLU(x). So a convolution of each is one convolution to k times the channels,
and whatever follows goes on in k groups: a depthwise convolution has groups anyway, a BN never mixes channels. The
parameters stay where ``space`` has them; here their kernels lie one after another along the output channels.

The backward pass is written out since autograd would keep every tensor on the way, the k copies of the input among
them: an operation keeps what its own backward pass reads, and the inputs of convolutions only where the gradients of
their kernels are asked for, which the architecture step does not.

Legend: F folded frames, C channels of an edge, k edges; their channels lie side by side (kC).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pvnas.fast.edge_norms import EdgeNorms, batch_norm_grad
from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.fast.kernels.tensors import empty_pictures, tap_by_tap
from pvnas.space.layers import joined_kernel

ConvKernels = Sequence[Tensor]
Norms = Sequence[EdgeNorms]


@dataclass(frozen=True)
class EdgeGroup:
    """The edges that leave one node, and what is asked of them in a pass."""

    edges: int
    stride: int
    frames: int
    """T, the frames of a clip."""
    of_batch: bool
    """Whether the batch's own statistics normalise."""
    kernel_grads: bool
    """Whether the gradients of the kernels will be asked for."""
    input_grad: bool
    """Whether the gradient of the node will be asked for, or else those of the mixing weights alone."""


class NodeInput:
    """A node x (F, C, H, W), and the forms of its ReLU that several operations read, each made once."""

    def __init__(self, kernels: Kernels, x_FCHW: Tensor, group: EdgeGroup) -> None:
        self.kernels, self.x_FCHW, self.group = kernels, x_FCHW, group

    @cached_property
    def even(self) -> Tensor:
        """ReLU(x) at the even rows and columns."""
        return self.kernels.pick_pixels(self.x_FCHW, 0)

    @cached_property
    def odd(self) -> Tensor:
        """ReLU(x) at the odd rows and columns; of odd sizes padded with zeros to as many as there are even ones."""
        return self.kernels.pick_pixels(self.x_FCHW, 1)

    @cached_property
    def pooled(self) -> tuple[Tensor, Tensor, Tensor]:
        """What ``Kernels.pool`` makes of x."""
        return self.kernels.pool(self.x_FCHW, self.group.stride)

    def convolved(self, x: Any, kernel: Tensor, norms: EdgeNorms, frames: int = 1, relu: bool = False) -> Normed:
        """Return a convolution over channels (F, kC, H', W') of all edges as its BN, ``norms``, sees it."""
        k = self.group.edges
        if not norms.of_batch:
            return norms.of(self.kernels, self.kernels.channel_conv(x, kernel, k, frames, relu))
        z, statistics = self.kernels.channel_conv_statistics(x, kernel, k, frames, relu, norms.eps)
        return norms.with_statistics(z, statistics)

    def kernel_grad(self, grad: Any, x: Any, kernel: Tensor, frames: int = 1, relu: bool = False) -> Tensor | None:
        """Return the gradient for the kernel of ``convolved``; None where it is not asked for."""
        if not self.group.kernel_grads:
            return None
        return self.kernels.channel_conv_kernel_grad(grad, x, kernel, self.group.edges, frames, relu)


class Made(NamedTuple):
    """What the forward pass of an operation returns."""

    normed: Normed
    """What the last BN sees."""
    saved: Any = None
    """What the backward pass reads."""
    for_kernels: Tensor | None = None
    """What it reads for the gradients of kernels alone."""

    def needed(self, group: EdgeGroup) -> Made:
        """Return it without what the backward pass of a group does not read."""
        saved = self.saved if group.input_grad else None
        return Made(self.normed, saved, self.for_kernels if group.kernel_grads else None)


Into = Tensor | None
KernelGrads = Sequence[Tensor | None]


class EdgeGrads(NamedTuple):
    """What the backward pass of an operation returns."""

    relu: Tensor
    """The gradient for ReLU(x)."""
    kernels: KernelGrads
    inner_norms: Sequence[Tensor] = ()
    """For bias and weight of all BN but the last, (2, 1, kC) each, see ``edge_norms.batch_norm_grad``."""


class EdgeOperation(ABC):
    """One kind of operation up to its last BN, whose scale, the mixing weight, and sum are made for all at once."""

    def prepare(self, kernels: ConvKernels, edges: int) -> ConvKernels:
        """Return the edges' kernels in the form in which a pass reads them, with what is made of them alone."""
        return kernels

    @abstractmethod
    def forward(self, inputs: NodeInput, kernels: ConvKernels, norms: Norms) -> Made:
        """Return what the last BN sees, and what a backward pass may need. ``norms``: all BN, in their order."""

    @abstractmethod
    def backward(self, grad: Any, inputs: NodeInput, kernels: ConvKernels, made: Made, into: Into) -> EdgeGrads:
        """Return the gradients for ReLU(x), added to ``into``, and for the kernels.

        ``grad``: that for the last BN's input, as ``Kernels.per_edge_grads`` gives it.
        """


class Separable(EdgeOperation):
    """(ReLU, depthwise 3x3, pointwise, BN) once or twice. The first is strided; its depthwise output is made again."""

    def __init__(self, dilation: int = 1) -> None:
        self.dilation = dilation

    def prepare(self, kernels: ConvKernels, edges: int) -> ConvKernels:
        return [tap_by_tap(kernel) if kernel.shape[2:] == (3, 3) else kernel for kernel in kernels]

    def forward(self, inputs: NodeInput, kernels: ConvKernels, norms: Norms) -> Made:
        depthwise, pointwise, *second = kernels
        y = inputs.kernels.depthwise(inputs.x_FCHW, depthwise, inputs.group.stride, self.dilation)
        first = inputs.convolved(y, pointwise, norms[0])
        if not second:
            return Made(first)
        y = inputs.kernels.depthwise(first.z, second[0], norm=first)
        return Made(inputs.convolved(y, second[1], norms[1]), first, y)

    def backward(self, grad: Any, inputs: NodeInput, kernels: ConvKernels, made: Made, into: Into) -> EdgeGrads:
        group, fast, geometry = inputs.group, inputs.kernels, (inputs.group.stride, self.dilation)
        depthwise, pointwise, *second = kernels
        kernel_grads: list[Tensor | None] = [None] * len(kernels)
        inner_norms = []
        if second:
            first, kernel_grads[3] = made.saved, inputs.kernel_grad(grad, made.for_kernels, second[1])
            grad = fast.channel_conv_input_grad(grad, second[1], group.edges)
            if group.kernel_grads:
                kernel_grads[2] = fast.depthwise_kernel_grad(grad, first.z, norm=first)
            grad, sums = fast.depthwise_norm_grad(grad, second[0], first)
            grad, _ = batch_norm_grad(fast, grad, first, of_batch=group.of_batch, sums=sums)
            inner_norms = [sums]
        if group.kernel_grads:
            y = fast.depthwise(inputs.x_FCHW, depthwise, *geometry)
            kernel_grads[1] = inputs.kernel_grad(grad, y, pointwise)
            del y
        grad = fast.channel_conv_input_grad(grad, pointwise, group.edges)
        if group.kernel_grads:
            kernel_grads[0] = fast.depthwise_kernel_grad(grad, inputs.x_FCHW, *geometry)
        relu_grad = fast.depthwise_input_grad(grad, depthwise, inputs.x_FCHW, *geometry, into=into)
        return EdgeGrads(relu_grad, kernel_grads, inner_norms)


class Temporal3x3(EdgeOperation):
    """ReLU, dense 1x3x3, 3x1x1, BN."""

    def forward(self, inputs: NodeInput, kernels: ConvKernels, norms: Norms) -> Made:
        spatial, temporal = kernels
        y = inputs.kernels.spatial_conv(inputs.x_FCHW, spatial, inputs.group.stride)
        return Made(inputs.convolved(y, temporal, norms[0], inputs.group.frames), for_kernels=y)

    def backward(self, grad: Any, inputs: NodeInput, kernels: ConvKernels, made: Made, into: Into) -> EdgeGrads:
        group, (spatial, temporal) = inputs.group, kernels
        temporal_grad = inputs.kernel_grad(grad, made.for_kernels, temporal, group.frames)
        grad = inputs.kernels.channel_conv_input_grad(grad, temporal, group.edges, group.frames)
        relu_grad, spatial_grad = inputs.kernels.spatial_conv_grads(
            grad, spatial, inputs.x_FCHW, group.stride, into, group.kernel_grads
        )
        return EdgeGrads(relu_grad, (spatial_grad, temporal_grad))


class Temporal1x1(EdgeOperation):
    """ReLU, 1x1x1, 3x1x1, BN: nothing lies between the two convolutions, so one with the product of both kernels does.

    The product is taken of the kernels, (C, C) by (C, C, 3), and not once per pixel.
    """

    def prepare(self, kernels: ConvKernels, edges: int) -> ConvKernels:
        """Return both kernels and their product."""
        spatial, temporal = kernels
        c = spatial.shape[1]
        product = joined_kernel(spatial.view(edges, c, c), temporal.view(edges, c, c, 3))
        return spatial, temporal, product.reshape(edges * c, c, 3, 1)

    def forward(self, inputs: NodeInput, kernels: ConvKernels, norms: Norms) -> Made:
        return Made(inputs.convolved(self._read(inputs), kernels[2], norms[0], inputs.group.frames, relu=True))

    def backward(self, grad: Any, inputs: NodeInput, kernels: ConvKernels, made: Made, into: Into) -> EdgeGrads:
        group, (spatial, temporal, product) = inputs.group, kernels
        kernel_grads: KernelGrads = (None, None)
        if group.kernel_grads:
            product_grad = inputs.kernels.channel_conv_kernel_grad(
                grad, self._read(inputs), product, group.edges, group.frames, relu=True
            )
            spatial, temporal = (kernel.to(product_grad.dtype) for kernel in (spatial, temporal))
            kernel_grads = _joined_kernel_grads(product_grad, spatial, temporal, group.edges)
        relu_grad = inputs.kernels.channel_conv_input_grad(grad, product, group.edges, group.frames, shared=True)
        if group.stride == 2:
            return EdgeGrads(inputs.kernels.spread_pixels(relu_grad, None, inputs.x_FCHW, into), kernel_grads)
        return EdgeGrads(_added(relu_grad, into), kernel_grads)

    @staticmethod
    def _read(inputs: NodeInput) -> Tensor:
        return inputs.even if inputs.group.stride == 2 else inputs.x_FCHW


class Pointwise(EdgeOperation):
    """ReLU, pointwise convolution, BN: what brings a cell's input to the cell's width, and alone reads it.

    So the backward pass gives the gradient for x itself.
    """

    def forward(self, inputs: NodeInput, kernels: ConvKernels, norms: Norms) -> Made:
        return Made(inputs.convolved(inputs.x_FCHW, kernels[0], norms[0], relu=True))

    def backward(self, grad: Any, inputs: NodeInput, kernels: ConvKernels, made: Made, into: Into) -> EdgeGrads:
        kernel_grad = inputs.kernel_grad(grad, inputs.x_FCHW, kernels[0], 1, True)
        x_grad = inputs.kernels.channel_conv_input_grad(grad, kernels[0], 1, behind_relu=inputs.x_FCHW)
        return EdgeGrads(_added(x_grad, into), (kernel_grad,))


class Reduction(EdgeOperation):
    """Identity at stride 2: ReLU, two pointwise convolutions, one of the even and one of the odd pixels, joined, BN."""

    def forward(self, inputs: NodeInput, kernels: ConvKernels, norms: Norms) -> Made:
        k, even = inputs.group.edges, inputs.even
        halves = [len(kernel) // k for kernel in kernels]
        f, _, h, w = even.shape
        z = empty_pictures(even, f, k * sum(halves), h, w)
        for x, kernel, first in zip((even, inputs.odd), kernels, (0, halves[0]), strict=True):
            inputs.kernels.channel_conv(x, kernel, k, into=z[:, first:], step=sum(halves))
        return Made(norms[0].of(inputs.kernels, z))

    def backward(self, grad: Any, inputs: NodeInput, kernels: ConvKernels, made: Made, into: Into) -> EdgeGrads:
        k, fast, step = inputs.group.edges, inputs.kernels, grad.shape[1] // inputs.group.edges
        parts = [(kernels[0], {"first": 0, "step": step}), (kernels[1], {"first": len(kernels[0]) // k, "step": step})]
        even, odd = (fast.channel_conv_input_grad(grad, kernel, k, shared=True, **part) for kernel, part in parts)
        kernel_grads: KernelGrads = (None, None)
        if inputs.group.kernel_grads:
            both = zip((inputs.even, inputs.odd), parts, strict=True)
            kernel_grads = [fast.channel_conv_kernel_grad(grad, x, kernel, k, **part) for x, (kernel, part) in both]
        return EdgeGrads(fast.spread_pixels(even, odd, inputs.x_FCHW, into), kernel_grads)


# By the name that the search space gives them. Identity has parameters at stride 2 alone.
EDGE_OPERATIONS: dict[str, EdgeOperation] = {
    "identity": Reduction(),
    "sep_conv_1x3x3": Separable(),
    "dil_sep_conv_1x3x3": Separable(dilation=2),
    "temporal_conv_3+3x3": Temporal3x3(),
    "temporal_conv_3+1x1": Temporal1x1(),
}


def _joined_kernel_grads(grad: Tensor, spatial: Tensor, temporal: Tensor, edges: int) -> tuple[Tensor, Tensor]:
    """Return the gradients for both kernels whose product ``Temporal1x1.prepare`` makes."""
    c = spatial.shape[1]
    first_kCC, later_kCCt, g_kCCt = (x.view(edges, c, c, -1) for x in (spatial, temporal, grad))
    first_grad = torch.einsum("kamt,kabt->kmb", later_kCCt, g_kCCt)
    later_grad = torch.einsum("kabt,kmb->kamt", g_kCCt, first_kCC.squeeze(3))
    return first_grad.reshape(spatial.shape), later_grad.reshape(temporal.shape)


def _added(grad: Tensor, into: Tensor | None) -> Tensor:
    return grad if into is None else into.add_(grad)
