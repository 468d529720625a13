"""The fast form of ``space.network.DerivedCell`` for predictions on a CPU, by the kernels in C++.

Each convolution reads through the ReLU before it, a pointwise one through the depthwise one before it too, and the last
of an operation adds to its node's sum where that lies in the cell's output: between them nothing is written that is
only read once.

Legend: F folded frames, C channels of the cell, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from pvnas.fast.kernels import cpp
from pvnas.fast.kernels.channel_conv.cpu import channel_conv_into, lay_out
from pvnas.fast.kernels.choice import kernels_for
from pvnas.fast.kernels.depthwise.cpu import DeferredDepthwise
from pvnas.fast.kernels.pool.cpu import pool_single
from pvnas.fast.kernels.tensors import empty_output
from pvnas.space.genotype import NODES
from pvnas.space.layers import (
    FactorizedReduction,
    FoldedAvgPool,
    FoldedConv,
    FoldedMaxPool,
    Rectified,
    fold_time,
    unfold_time,
)
from pvnas.space.network import DerivedCell

ConvInput = Tensor | DeferredDepthwise


class PredictionCell(nn.Module):
    """A derived cell whose norms are part of its convolutions; where there are no kernels, the cell as it is."""

    def __init__(self, cell: DerivedCell) -> None:
        super().__init__()
        self.cell = cell
        self.layouts = _Layouts()
        self.stride = _stride(cell.operations[0])  # which reads an input, as all do that have it

    def forward(self, x0: Tensor, x1: Tensor, rectified: bool = False) -> Tensor:
        """Two (N, C', T, H, W) inputs, which may be through their ReLU, to (N, 4C, T, H', W')."""
        if not _works_on(x0):
            y: Tensor = self.cell(x0, x1, rectified)
            return y
        run, cell = _Pass(x0.shape[2], self.layouts), self.cell
        nodes = [run.entered(cell.input0, fold_time(x0)), run.entered(cell.input1, fold_time(x1))]
        c, operations = nodes[0].shape[1], iter(cell.operations)
        y_FCHW = empty_output(nodes[0], NODES * c, self.stride)
        for node, predecessors in enumerate(cell.predecessors):
            sum_FCHW = y_FCHW[:, node * c : (node + 1) * c]
            for number, predecessor in enumerate(predecessors):
                run.operate(next(operations), nodes[predecessor], sum_FCHW, added=number > 0)
            nodes.append(sum_FCHW)
        return unfold_time(y_FCHW, x0.shape[2])


class PredictionPool(nn.Module):
    """A folded 3x3 pooling of the stem."""

    def __init__(self, pool: FoldedMaxPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled (N, C, T, H', W') clips."""
        if not _works_on(x):
            y: Tensor = self.pool(x)
            return y
        return unfold_time(pool_single(fold_time(x), _stride(self.pool), averages=False), x.shape[2])


def _works_on(x: Tensor) -> bool:
    """Neither autograd, autocast, torch.compile nor an export sees the kernels."""
    seen = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing()
    seen = seen or (torch.is_grad_enabled() and x.requires_grad)
    return x.device.type == "cpu" and not seen and kernels_for(x) is cpp


class _Layouts:
    """The kernels of a cell's channel convolutions, laid out for the processor once, not for each batch."""

    def __init__(self) -> None:
        self._laid_out: dict[int, tuple[object, Tensor]] = {}

    def __reduce__(self) -> tuple[type[_Layouts], tuple[()]]:
        return _Layouts, ()  # neither copied nor saved: another processor may read them in another order

    def of(self, conv: FoldedConv, frames: int) -> Tensor:
        weight = conv.weight
        state = (frames, weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version)
        before, laid_out = self._laid_out.get(id(conv), (None, weight))
        if before != state:
            laid_out = lay_out(weight.squeeze(-1), 1, frames)
            self._laid_out[id(conv)] = state, laid_out
        return laid_out


class _Pass:
    """One pass through a cell."""

    def __init__(self, frames: int, layouts: _Layouts) -> None:
        self.frames, self.layouts = frames, layouts

    def entered(self, layers: nn.Module, x_FCHW: Tensor) -> Tensor:
        """Return an input at the cell's width, (F, C, H, W)."""
        convolutions = [layer for layer in layers.children() if isinstance(layer, FoldedConv)]
        y_FCHW = empty_output(x_FCHW, sum(conv.out_channels for conv in convolutions), _stride(layers))
        self.operate(layers, x_FCHW, y_FCHW)
        return y_FCHW

    def operate(self, operation: nn.Module, x_FCHW: Tensor, into: Tensor, added: bool = False) -> None:
        """Write what an operation makes of (F, C, H, W); ``added``: add it to what is there."""
        if isinstance(operation, FactorizedReduction):
            even, odd = (conv for conv in operation.children() if isinstance(conv, FoldedConv))
            self._conv(even, cpp.pick_pixels(x_FCHW, 0), into[:, : even.out_channels], added)
            self._conv(odd, cpp.pick_pixels(x_FCHW, 1), into[:, even.out_channels :], added)
        elif isinstance(operation, Rectified) and _has_kernels(operation):
            self._convolve(operation, x_FCHW, into, added)
        elif isinstance(operation, FoldedAvgPool | FoldedMaxPool) and operation.kernel_size == (1, 3, 3):
            averages = isinstance(operation, FoldedAvgPool)
            pool_single(x_FCHW, _stride(operation), averages=averages, into=into, added=added)
        else:  # any other operation, as it is
            y_FCHW = fold_time(operation(unfold_time(x_FCHW, self.frames)))
            into.add_(y_FCHW) if added else into.copy_(y_FCHW)

    def _convolve(self, layers: Rectified, x_FCHW: Tensor, into: Tensor, added: bool) -> None:
        """Convolution after convolution, each of what the one before it has made."""
        read: ConvInput = x_FCHW
        *_, last = convolutions = [layer for layer in layers if isinstance(layer, FoldedConv)]
        behind_relu = {id(after) for before, after in pairwise(layers) if isinstance(before, nn.ReLU)}
        for conv in convolutions:
            rectified, stride = id(conv) in behind_relu, conv.stride[1]
            if isinstance(read, DeferredDepthwise) or conv.kernel_size[1] == 1:
                if stride == 2 and isinstance(read, Tensor):
                    read, rectified = cpp.pick_pixels(read, 0), False
                read = self._conv(conv, read, into if conv is last else None, added and conv is last, rectified)
            elif conv.groups > 1:
                read = cpp.depthwise(read, conv.weight.squeeze(2), stride, conv.dilation[1])
            else:
                read = cpp.spatial_conv(read, conv.weight.squeeze(2), stride)

    def _conv(
        self, conv: FoldedConv, x: ConvInput, into: Tensor | None, added: bool, rectified: bool = False
    ) -> Tensor:
        """A pointwise convolution, or one over time."""
        return channel_conv_into(
            x, conv.weight.squeeze(-1), 1, self.frames, rectified,
            into=into, bias=conv.bias, added=added, laid_out=self.layouts.of(conv, self.frames),
        )  # fmt: skip


def _has_kernels(layers: Rectified) -> bool:
    """Whether they are such as the search space's own operations have; others may be registered."""
    convolutions = [layer for layer in layers if isinstance(layer, FoldedConv)]
    known = all(isinstance(layer, nn.ReLU | FoldedConv) for layer in layers)
    return known and bool(convolutions) and not isinstance(layers[-1], nn.ReLU) and all(map(_has_kernel, convolutions))


def _has_kernel(conv: FoldedConv) -> bool:
    """Whether something here computes a convolution."""
    match conv.kernel_size:
        case (1, 1, 1) | (3, 1, 1):
            return conv.groups == 1 and conv.padding[0] == conv.kernel_size[0] // 2
        case (1, 3, 3) if conv.groups == 1:
            return conv.dilation[1] == 1 and conv.padding[1] == 1 and conv.bias is None
        case (1, 3, 3):
            depthwise = conv.groups == conv.in_channels == conv.out_channels
            return depthwise and conv.padding[1] == conv.dilation[1] and conv.bias is None
    return False


def _stride(layers: nn.Module) -> int:
    """Return the stride in space of layers, whose first convolution has it, or of a pooling; of no layers 1."""
    first = next((layer for layer in layers.children() if isinstance(layer, FoldedConv)), layers)
    stride = getattr(first, "stride", (1, 1, 1))
    return int(stride[1]) if isinstance(stride, tuple) else int(stride)
