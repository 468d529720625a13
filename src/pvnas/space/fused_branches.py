"""The operations with parameters of all edges that leave one node, by our own kernels, as ``branches``.

Legend: F folded frames, C channels of an edge, k edges; their channels lie side by side (kC).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.space.branches import Fan, Input, Kept, Kernels, conv_backward, product_backward
from pvnas.space.kernels.operands import KernelSet, Normed, empty_pictures
from pvnas.space.norms import Norms, NormState


class FusedInput(Input):
    """A node (F, C, H, W), our kernels, and its ReLU and the forms of it where something needs them in memory."""

    def __init__(self, kernels: KernelSet, x_FCHW: Tensor, fan: Fan) -> None:
        self.own, self.x_FCHW, self.fan = kernels, x_FCHW, fan

    @cached_property
    def r_FCHW(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        """ReLU(x), dense in channels-last memory."""
        return torch.clamp_min(self.x_FCHW, 0, out=empty_pictures(self.x_FCHW, *self.x_FCHW.shape))

    @cached_property
    def even(self) -> Tensor:
        """ReLU(x) at the even rows and columns."""
        return self.own.every_other(self.x_FCHW, 0)

    @cached_property
    def odd(self) -> Tensor:
        """ReLU(x) at the odd rows and columns; of odd sizes padded with zeros to as many as there are even ones."""
        return self.own.every_other(self.x_FCHW, 1)

    def product(
        self, x: Any, kernel: Tensor, norms: Norms, frames: int = 1, rectified: bool = False
    ) -> tuple[Tensor, NormState]:
        """Return a product over channels (F, kC, H', W') of all edges, as ``mix_channels``, and what its BN finds."""
        k = self.fan.edges
        if not norms.of_batch:
            z_FCHW = self.own.mix_channels(x, kernel, k, frames, rectified)
            return z_FCHW, norms.state(z_FCHW)
        eps = norms.layers[0].eps
        z_FCHW, found = self.own.mix_channels_with_statistics(x, kernel, k, frames, rectified, eps)
        return z_FCHW, norms.found(found, z_FCHW.numel() // z_FCHW.shape[1])


class Found(NamedTuple):
    """What the forward pass of a branch returns."""

    z_FCHW: Tensor
    """(F, kC, H', W') that the last BN sees."""
    state: NormState
    """What the last BN has found."""
    rest: Kept = ()
    """What else a backward pass may need."""


class FusedGradient(NamedTuple):
    """What the backward pass of a branch returns."""

    r_FCHW: Tensor
    """For ReLU(x), added to what earlier branches have found."""
    kernels: Sequence[Tensor | None]


class FusedBranch(ABC):
    """One kind of operation up to, and without, its last BN. The kernels are those that its ``Branch`` prepares."""

    @abstractmethod
    def forward(self, inputs: FusedInput, kernels: Kernels, norms: Sequence[Norms]) -> Found:
        """Return what the last BN sees and finds. ``norms``: all BN layers, in their order, one per edge each."""

    def keep(self, z_FCHW: Tensor, rest: Kept, fan: Fan) -> Kept:
        """Return what the backward pass of this fan needs of what ``forward`` has returned; z always."""
        return (z_FCHW, *rest) if fan.input_gradient else (z_FCHW,)

    @abstractmethod
    def backward(
        self, gradient: Any, inputs: FusedInput, kernels: Kernels, kept: Kept, into: Tensor | None
    ) -> FusedGradient:
        """Return the gradients for ReLU(x), added to ``into``, and for the kernels. ``kept``: without z.

        ``gradient``: for z, as ``own_gradients`` of the kernels gives it, which their products over channels read.
        """


class FusedSeparable(FusedBranch):
    """(ReLU, depthwise 3x3, pointwise, BN) twice; the stride in the first, whose depthwise output is made again."""

    def forward(self, inputs: FusedInput, kernels: Kernels, norms: Sequence[Norms]) -> Found:
        depthwise1, pointwise1, depthwise2, pointwise2 = kernels
        u = inputs.own.depthwise(inputs.x_FCHW, depthwise1, inputs.fan.stride)
        a, state = inputs.product(u, pointwise1, norms[0])
        u = inputs.own.depthwise(a, depthwise2, norm=state)
        return Found(*inputs.product(u, pointwise2, norms[1]), (a, state, u))

    def keep(self, z_FCHW: Tensor, rest: Kept, fan: Fan) -> Kept:
        """Keep the second depthwise output for the gradient of the kernel after it alone."""
        kept = super().keep(z_FCHW, rest, fan)
        return kept if fan.kernel_gradients or len(kept) == 1 else (*kept[:-1], None)

    def backward(
        self, gradient: Any, inputs: FusedInput, kernels: Kernels, kept: Kept, into: Tensor | None
    ) -> FusedGradient:
        """Go backwards through both halves."""
        fan, x_FCHW = inputs.fan, inputs.x_FCHW
        k, stride, asked = fan.edges, fan.stride, fan.kernel_gradients
        depthwise1, pointwise1, depthwise2, pointwise2 = kernels
        a, state, u = kept
        d_kernels: list[Tensor | None] = [None] * 4
        if asked:
            d_kernels[3] = inputs.own.mix_channels_kernel_gradient(gradient, u, pointwise2, k)
            del u
        g = inputs.own.mix_channels_input_gradient(gradient, pointwise2, k)
        if asked:
            d_kernels[2] = inputs.own.depthwise_kernel_gradient(g, a, norm=state)
        g, found = inputs.own.depthwise_norm_gradient(g, depthwise2, a, state)
        g = norm_backward(inputs.own, g, a, state, found)
        if asked:
            u = inputs.own.depthwise(x_FCHW, depthwise1, stride)
            d_kernels[1] = inputs.own.mix_channels_kernel_gradient(g, u, pointwise1, k)
            del u
        g = inputs.own.mix_channels_input_gradient(g, pointwise1, k)
        if asked:
            d_kernels[0] = inputs.own.depthwise_kernel_gradient(g, x_FCHW, stride)
        return FusedGradient(inputs.own.depthwise_input_gradient(g, depthwise1, x_FCHW, stride, into=into), d_kernels)


class FusedDilated(FusedBranch):
    """ReLU, depthwise 3x3 of dilation 2, pointwise, BN. The depthwise output is made again."""

    def forward(self, inputs: FusedInput, kernels: Kernels, norms: Sequence[Norms]) -> Found:
        u = inputs.own.depthwise(inputs.x_FCHW, kernels[0], inputs.fan.stride, 2)
        return Found(*inputs.product(u, kernels[1], norms[0]))

    def backward(
        self, gradient: Any, inputs: FusedInput, kernels: Kernels, kept: Kept, into: Tensor | None
    ) -> FusedGradient:
        """Go backwards through the pointwise, then the depthwise convolution."""
        fan, x_FCHW = inputs.fan, inputs.x_FCHW
        kernel, pointwise = kernels
        d_kernels: list[Tensor | None] = [None] * 2
        if fan.kernel_gradients:
            u = inputs.own.depthwise(x_FCHW, kernel, fan.stride, 2)
            d_kernels[1] = inputs.own.mix_channels_kernel_gradient(gradient, u, pointwise, fan.edges)
        g = inputs.own.mix_channels_input_gradient(gradient, pointwise, fan.edges)
        if fan.kernel_gradients:
            d_kernels[0] = inputs.own.depthwise_kernel_gradient(g, x_FCHW, fan.stride, 2)
        return FusedGradient(
            inputs.own.depthwise_input_gradient(g, kernel, x_FCHW, fan.stride, 2, into=into), d_kernels
        )


class FusedTemporal3x3(FusedBranch):
    """ReLU, dense 1x3x3, 3x1x1, BN. The dense convolution, bound by arithmetic, is PyTorch's."""

    def forward(self, inputs: FusedInput, kernels: Kernels, norms: Sequence[Norms]) -> Found:
        s = F.conv2d(inputs.r_FCHW, kernels[0], None, inputs.fan.stride, 1)
        return Found(*inputs.product(s, kernels[1], norms[0], inputs.fan.frames), (s,))

    def keep(self, z_FCHW: Tensor, rest: Kept, fan: Fan) -> Kept:
        """Keep what the temporal convolution saw for the gradient of its kernel alone."""
        return (z_FCHW, *rest) if fan.kernel_gradients and fan.input_gradient else (z_FCHW, None)

    def backward(
        self, gradient: Any, inputs: FusedInput, kernels: Kernels, kept: Kept, into: Tensor | None
    ) -> FusedGradient:
        """Go backwards through both convolutions."""
        fan = inputs.fan
        spatial, temporal = kernels
        d_temporal = None
        if fan.kernel_gradients:
            d_temporal = inputs.own.mix_channels_kernel_gradient(gradient, kept[0], temporal, fan.edges, fan.frames)
        g = inputs.own.mix_channels_input_gradient(gradient, temporal, fan.edges, fan.frames)
        dr, d_spatial = conv_backward(g, inputs.r_FCHW, spatial, fan, (fan.stride, fan.stride), (1, 1))
        if d_spatial is not None:  # dense as its parameter: optimisers take many such tensors at once
            d_spatial = d_spatial.contiguous()
        return FusedGradient(_added(dr, into), (d_spatial, d_temporal))


class FusedTemporal1x1(FusedBranch):
    """ReLU, 1x1x1, 3x1x1, BN: a convolution with the product of both kernels."""

    def forward(self, inputs: FusedInput, kernels: Kernels, norms: Sequence[Norms]) -> Found:
        return Found(*inputs.product(self._read(inputs), kernels[2], norms[0], inputs.fan.frames, rectified=True))

    def backward(
        self, gradient: Any, inputs: FusedInput, kernels: Kernels, kept: Kept, into: Tensor | None
    ) -> FusedGradient:
        """Go backwards through the one convolution, then to both kernels through their product."""
        fan = inputs.fan
        spatial, temporal, product = kernels
        d_kernels: tuple[Tensor | None, ...] = (None, None)
        if fan.kernel_gradients:
            d_product = inputs.own.mix_channels_kernel_gradient(
                gradient, self._read(inputs), product, fan.edges, fan.frames, rectified=True
            )
            spatial, temporal = (kernel.to(d_product.dtype) for kernel in (spatial, temporal))
            d_kernels = product_backward(d_product, spatial, temporal, fan.edges)
        dr = inputs.own.mix_channels_input_gradient(gradient, product, fan.edges, fan.frames, shared=True)
        dr = inputs.own.spread(dr, None, inputs.x_FCHW, into) if fan.stride == 2 else _added(dr, into)
        return FusedGradient(dr, d_kernels)

    @staticmethod
    def _read(inputs: FusedInput) -> Tensor:
        return inputs.even if inputs.fan.stride == 2 else inputs.x_FCHW


class FusedPointwise(FusedBranch):
    """ReLU, pointwise convolution: what brings a cell's input to the cell's width, and alone reads it.

    So the backward pass gives the gradient for x itself.
    """

    def forward(self, inputs: FusedInput, kernels: Kernels, norms: Sequence[Norms]) -> Found:
        return Found(*inputs.product(inputs.x_FCHW, kernels[0], norms[0], rectified=True))

    def backward(
        self, gradient: Any, inputs: FusedInput, kernels: Kernels, kept: Kept, into: Tensor | None
    ) -> FusedGradient:
        """Go backwards through the convolution."""
        (kernel,) = kernels
        d_kernel = None
        if inputs.fan.kernel_gradients:
            d_kernel = inputs.own.mix_channels_kernel_gradient(gradient, inputs.x_FCHW, kernel, 1, rectified=True)
        dx = inputs.own.mix_channels_input_gradient(gradient, kernel, 1, where=inputs.x_FCHW)
        return FusedGradient(_added(dx, into), (d_kernel,))


class FusedReduction(FusedBranch):
    """Identity at stride 2: ReLU, two pointwise convolutions, one of the even and one of the odd pixels, joined, BN."""

    def forward(self, inputs: FusedInput, kernels: Kernels, norms: Sequence[Norms]) -> Found:
        k, even = inputs.fan.edges, inputs.even
        sizes = [len(kernel) // k for kernel in kernels]
        f, _, h, w = even.shape
        z = empty_pictures(even, f, k * sum(sizes), h, w)
        for x, kernel, first in zip((even, inputs.odd), kernels, (0, sizes[0]), strict=True):
            inputs.own.mix_channels(x, kernel, k, into=z[:, first:], apart=sum(sizes))
        return Found(z, norms[0].state(z))

    def backward(
        self, gradient: Any, inputs: FusedInput, kernels: Kernels, kept: Kept, into: Tensor | None
    ) -> FusedGradient:
        """Go backwards through both convolutions and put their pixels together."""
        k, apart = inputs.fan.edges, gradient.shape[1] // inputs.fan.edges
        halves: list[Tensor] = []
        d_kernels: list[Tensor | None] = []
        for offset, (kernel, first) in enumerate(zip(kernels, (0, len(kernels[0]) // k), strict=True)):
            halves.append(
                inputs.own.mix_channels_input_gradient(gradient, kernel, k, shared=True, first=first, apart=apart)
            )
            if inputs.fan.kernel_gradients:
                x = inputs.odd if offset else inputs.even
                d_kernels.append(
                    inputs.own.mix_channels_kernel_gradient(gradient, x, kernel, k, first=first, apart=apart)
                )
        even, odd = halves
        return FusedGradient(inputs.own.spread(even, odd, inputs.x_FCHW, into), d_kernels or (None, None))


FUSED: dict[str, FusedBranch] = {
    "identity": FusedReduction(),
    "sep_conv_1x3x3": FusedSeparable(),
    "dil_sep_conv_1x3x3": FusedDilated(),
    "temporal_conv_3+3x3": FusedTemporal3x3(),
    "temporal_conv_3+1x1": FusedTemporal1x1(),
}


def as_normed(z_FCHW: Tensor, state: NormState) -> Normed:
    """Return what a BN has seen and found, as the kernels take it."""
    return Normed(z_FCHW, state.mean, state.inverse_std)


def norm_backward(
    kernels: KernelSet, gradient: Tensor, z_FCHW: Tensor, state: NormState, found: Tensor | None = None
) -> Any:
    """Return the gradient for what a BN without scale has seen, as ``FusedBranch.backward`` takes it.

    ``found``: what ``products`` would find.
    """
    normed = [as_normed(z_FCHW, state)]
    if found is None:
        found = kernels.products(gradient, normed, [], 1)
    (made,) = kernels.own_gradients(gradient, normed, found.new_ones(1, 1), found, of_batch=state.running is None)
    return made


def _added(found: Tensor, into: Tensor | None) -> Tensor:
    return found if into is None else into.add_(found)
