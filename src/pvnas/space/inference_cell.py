"""A derived cell for predictions by our own kernels in C++.

Each convolution reads through the ReLU before it, a pointwise or temporal one through the depthwise one before it too,
and the last of an operation adds to its node's sum where that lies in the cell's output: between them nothing is
written that is only read once.

Legend: F folded frames, C channels of the cell, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.space.genotype import INPUTS, NODES
from pvnas.space.kernels import kernels_for
from pvnas.space.kernels.cpu import depthwise, every_other, mix_channels
from pvnas.space.kernels.cpu.poolings import pool_one
from pvnas.space.kernels.operands import empty_pictures
from pvnas.space.layers import FoldedAvgPool, FoldedConv, FoldedMaxPool, fold_time, unfold_time
from pvnas.space.network import DerivedCell
from pvnas.space.operations import FactorizedReduction, Rectified


class InferenceCell(nn.Module):
    """A derived cell whose norms are part of its convolutions; where there are no kernels, the cell as it is."""

    def __init__(self, cell: DerivedCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x0: Tensor, x1: Tensor, rectified: bool = False) -> Tensor:
        """Two (N, C', T, H, W) inputs, which may be through their ReLU, to (N, 4C, T, H', W')."""
        if not _works_on(x0):
            y: Tensor = self.cell(x0, x1, rectified)
            return y
        return _Pass(x0.shape[2]).through(self.cell, fold_time(x0), fold_time(x1))


class InferencePool(nn.Module):
    """A folded 3x3 pooling."""

    def __init__(self, pool: FoldedAvgPool | FoldedMaxPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled (N, C, T, H', W') clips."""
        if not _works_on(x):
            y: Tensor = self.pool(x)
            return y
        averages = isinstance(self.pool, FoldedAvgPool)
        return unfold_time(pool_one(fold_time(x), _stride(self.pool), averages=averages), x.shape[2])


def _works_on(x: Tensor) -> bool:
    """Neither autograd nor autocast sees our own kernels; those in Triton have no bias."""
    seen = (torch.is_grad_enabled() and x.requires_grad) or torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and not seen and kernels_for(x) is not None


class _Sum(NamedTuple):
    """Where an operation's last convolution writes."""

    pictures_FCHW: Tensor
    begun: bool

    def add(self, y_FCHW: Tensor) -> None:
        if self.begun:
            self.pictures_FCHW.add_(y_FCHW)
        else:
            self.pictures_FCHW.copy_(y_FCHW)

    def of(self, channels: slice) -> _Sum:
        return _Sum(self.pictures_FCHW[:, channels], self.begun)


class _Pass:
    """One pass through a cell."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.behind_relu: dict[int, Tensor] = {}

    def through(self, cell: DerivedCell, x0_FCHW: Tensor, x1_FCHW: Tensor) -> Tensor:
        """Return the sums of all nodes, side by side, (N, 4C, T, H', W')."""
        states = [self.entered(cell.input0, x0_FCHW), self.entered(cell.input1, x1_FCHW)]
        operations = iter(cell.operations)
        (f, c, h, w), stride = states[0].shape, _stride(cell.operations[0])
        y_FCHW = empty_pictures(x0_FCHW, f, NODES * c, -(-h // stride), -(-w // stride))
        for sources in cell.sources:
            node = len(states) - INPUTS
            sum_FCHW = y_FCHW[:, node * c : (node + 1) * c]
            for number, source in enumerate(sources):
                self.operate(next(operations), states[source], _Sum(sum_FCHW, begun=number > 0))
            states.append(sum_FCHW)
        return unfold_time(y_FCHW, self.frames)

    def entered(self, layers: nn.Module, x_FCHW: Tensor) -> Tensor:
        """Return an input at the cell's width, (F, C, H, W)."""
        f, _, h, w = x_FCHW.shape
        last = layers.odd if isinstance(layers, FactorizedReduction) else _convolutions(layers)[-1]
        c, stride = last.out_channels, 1
        if isinstance(layers, FactorizedReduction):
            c, stride = c + layers.even.out_channels, 2
        y_FCHW = empty_pictures(x_FCHW, f, c, -(-h // stride), -(-w // stride))
        self.operate(layers, x_FCHW, _Sum(y_FCHW, begun=False))
        return y_FCHW

    def operate(self, operation: nn.Module, x_FCHW: Tensor, to: _Sum) -> None:
        """Add what an operation makes of (F, C, H, W)."""
        if isinstance(operation, nn.Identity):
            to.add(x_FCHW)
        elif isinstance(operation, FactorizedReduction):
            self._reduce(operation, x_FCHW, to)
        elif isinstance(operation, Rectified):
            self._convolve(operation, x_FCHW, to)
        else:
            averages = isinstance(operation, FoldedAvgPool)
            pool_one(x_FCHW, _stride(operation), averages=averages, into=to.pictures_FCHW, added=to.begun)

    def _reduce(self, reduction: FactorizedReduction, x_FCHW: Tensor, to: _Sum) -> None:
        half = reduction.even.out_channels
        for offset, (conv, channels) in enumerate(
            ((reduction.even, slice(half)), (reduction.odd, slice(half, None)))
        ):
            self._product(conv, every_other(x_FCHW, offset), to.of(channels))

    def _convolve(self, layers: Rectified, x_FCHW: Tensor, to: _Sum) -> None:
        """Convolution after convolution; all but those that a ReLU is not before read what the one before has made."""
        read: Any = x_FCHW
        convs = _convolutions(layers)
        behind_relu = {id(after) for before, after in pairwise(layers) if isinstance(before, nn.ReLU)}
        for conv in convs:
            rectified, stride = id(conv) in behind_relu, conv.stride[1]
            if conv.groups > 1:
                read = depthwise(read, conv.weight.squeeze(2), stride, conv.dilation[1])
            elif conv.kernel_size[1] > 1:  # bound by arithmetic: PyTorch's
                read = F.conv2d(self._rectified(read), conv.weight.squeeze(2), conv.bias, stride, int(conv.padding[1]))
            else:
                if stride == 2:
                    read, rectified = every_other(read, 0), False
                read = self._product(conv, read, to if conv is convs[-1] else None, rectified)

    def _product(self, conv: nn.Module, x: Any, to: _Sum | None, rectified: bool = False) -> Tensor:
        """A pointwise convolution, or one over time."""
        into, begun = to or (None, False)
        y_FCHW: Tensor = mix_channels(
            x, conv.weight.squeeze(-1), 1, self.frames, rectified, into=into, bias=conv.bias, added=begun
        )
        return y_FCHW

    def _rectified(self, x_FCHW: Tensor) -> Tensor:
        """ReLU(x), once for all that read it."""
        if id(x_FCHW) not in self.behind_relu:
            self.behind_relu[id(x_FCHW)] = F.relu(x_FCHW)
        return self.behind_relu[id(x_FCHW)]


def _convolutions(layers: Iterable[nn.Module]) -> list[FoldedConv]:
    return [layer for layer in layers if isinstance(layer, FoldedConv)]


def _stride(operation: nn.Module) -> int:
    """Return the stride in space of an operation at a cell's input."""
    if isinstance(operation, nn.Identity):
        return 1
    if isinstance(operation, FactorizedReduction):
        return 2
    first = _convolutions(operation)[0] if isinstance(operation, Rectified) else operation
    return int(first.stride[1])  # type: ignore[index,union-attr]
