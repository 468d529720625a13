"""A derived cell for predictions by our own kernels in C++.

Each convolution reads through the ReLU before it, a pointwise one through the depthwise one before it too, and the last
of an operation adds to its node's sum where that lies in the cell's output: between them nothing is written that is
only read once.

Legend: F folded frames, C channels of the cell, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.space.genotype import INPUTS, NODES
from pvnas.space.kernels import kernels_for
from pvnas.space.kernels.cpu import depthwise, every_other, mix_channels
from pvnas.space.kernels.cpu.channels import lay_out
from pvnas.space.kernels.cpu.poolings import pool_one
from pvnas.space.kernels.cpu.stencils import OwnDepthwise
from pvnas.space.kernels.operands import empty_pictures
from pvnas.space.layers import FoldedAvgPool, FoldedConv, FoldedMaxPool, fold_time, unfold_time
from pvnas.space.network import DerivedCell
from pvnas.space.operations import FactorizedReduction, Rectified


class InferenceCell(nn.Module):
    """A derived cell whose norms are part of its convolutions; where there are no kernels, the cell as it is."""

    def __init__(self, cell: DerivedCell) -> None:
        super().__init__()
        self.cell = cell
        self.kernels = _Kernels()

    def forward(self, x0: Tensor, x1: Tensor, rectified: bool = False) -> Tensor:
        """Two (N, C', T, H, W) inputs, which may be through their ReLU, to (N, 4C, T, H', W')."""
        if not _works_on(x0):
            y: Tensor = self.cell(x0, x1, rectified)
            return y
        return _Pass(x0.shape[2], self.kernels).through(self.cell, fold_time(x0), fold_time(x1))


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
    """Neither autograd, autocast, torch.compile nor an export sees our own kernels; those in Triton have no bias."""
    seen = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing()
    seen = seen or (torch.is_grad_enabled() and x.requires_grad)
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


class _Kernels:
    """The kernels of a cell's products, laid out once, not for each batch."""

    def __init__(self) -> None:
        self._laid_out: dict[int, tuple[object, Tensor]] = {}

    def __reduce__(self) -> tuple[type[_Kernels], tuple[()]]:
        return _Kernels, ()  # neither copied nor saved: another processor may read them in another order

    def of(self, conv: FoldedConv) -> Tensor:
        weight = conv.weight
        state = (weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version)
        before, laid_out = self._laid_out.get(id(conv), (None, weight))
        if before != state:
            laid_out = lay_out(weight.squeeze(-1), 1)
            self._laid_out[id(conv)] = state, laid_out
        return laid_out


class _Pass:
    """One pass through a cell."""

    def __init__(self, frames: int, kernels: _Kernels) -> None:
        self.frames, self.kernels = frames, kernels
        self.behind_relu: dict[int, Tensor] = {}

    def through(self, cell: DerivedCell, x0_FCHW: Tensor, x1_FCHW: Tensor) -> Tensor:
        """Return the sums of all nodes, side by side, (N, 4C, T, H', W')."""
        states = [self.entered(cell.input0, x0_FCHW), self.entered(cell.input1, x1_FCHW)]
        (f, c, h, w), operations = states[0].shape, list(cell.operations)
        stride = _stride(operations[0])  # which reads an input, as all that leave one
        y_FCHW = empty_pictures(x0_FCHW, f, NODES * c, -(-h // stride), -(-w // stride))
        for sources in cell.sources:
            node = len(states) - INPUTS
            sum_FCHW = y_FCHW[:, node * c : (node + 1) * c]
            for number, source in enumerate(sources):
                self.operate(operations.pop(0), states[source], _Sum(sum_FCHW, begun=number > 0))
            states.append(sum_FCHW)
        return unfold_time(y_FCHW, self.frames)

    def entered(self, layers: nn.Module, x_FCHW: Tensor) -> Tensor:
        """Return an input at the cell's width, (F, C, H, W)."""
        f, _, h, w = x_FCHW.shape
        c, stride = sum(conv.out_channels for conv in _convolutions(layers)), _stride(layers)
        y_FCHW = empty_pictures(x_FCHW, f, c, -(-h // stride), -(-w // stride))
        self.operate(layers, x_FCHW, _Sum(y_FCHW, begun=False))
        return y_FCHW

    def operate(self, operation: nn.Module, x_FCHW: Tensor, to: _Sum) -> None:
        """Add what an operation makes of (F, C, H, W)."""
        match operation:
            case nn.Identity():
                to.add(x_FCHW)
            case FactorizedReduction():
                self._reduce(operation, x_FCHW, to)
            case Rectified():
                self._convolve(operation, x_FCHW, to)
            case _:
                averages = isinstance(operation, FoldedAvgPool)
                pool_one(x_FCHW, _stride(operation), averages=averages, into=to.pictures_FCHW, added=to.begun)

    def _reduce(self, reduction: FactorizedReduction, x_FCHW: Tensor, to: _Sum) -> None:
        even, odd = _convolutions(reduction)
        self._product(even, every_other(x_FCHW, 0), to.of(slice(even.out_channels)))
        self._product(odd, every_other(x_FCHW, 1), to.of(slice(even.out_channels, None)))

    def _convolve(self, layers: Rectified, x_FCHW: Tensor, to: _Sum) -> None:
        """Convolution after convolution, each of what the one before it has made."""
        read: Tensor | OwnDepthwise = x_FCHW
        *_, last = convs = _convolutions(layers)
        behind_relu = {id(after) for before, after in pairwise(layers.children()) if type(before) is nn.ReLU}
        for conv in convs:
            rectified, stride = id(conv) in behind_relu, conv.stride[1]
            if isinstance(read, OwnDepthwise) or conv.kernel_size[1] == 1:
                if stride == 2 and isinstance(read, Tensor):
                    read, rectified = every_other(read, 0), False
                read = self._product(conv, read, to if conv is last else None, rectified)
            elif conv.groups > 1:
                read = depthwise(read, conv.weight.squeeze(2), stride, conv.dilation[1])
            else:  # bound by arithmetic: PyTorch's
                read = F.conv2d(self._rectified(read), conv.weight.squeeze(2), conv.bias, stride, int(conv.padding[1]))

    def _product(self, conv: FoldedConv, x: Tensor | OwnDepthwise, to: _Sum | None, rectified: bool = False) -> Tensor:
        """A pointwise convolution, or one over time."""
        into, begun = to or (None, False)
        kernel, laid_out = conv.weight.squeeze(-1), self.kernels.of(conv)
        return mix_channels(
            x, kernel, 1, self.frames, rectified, into=into, bias=conv.bias, added=begun, laid_out=laid_out
        )

    def _rectified(self, x_FCHW: Tensor) -> Tensor:
        """ReLU(x), once for all that read it."""
        if id(x_FCHW) not in self.behind_relu:
            self.behind_relu[id(x_FCHW)] = F.relu(x_FCHW)
        return self.behind_relu[id(x_FCHW)]


def _convolutions(layers: nn.Module) -> list[FoldedConv]:
    return [layer for layer in layers.children() if isinstance(layer, FoldedConv)]


def _stride(layers: nn.Module) -> int:
    """Return the stride in space of layers, whose first convolution has it, or of a pooling; of no layers 1."""
    first = next(iter(_convolutions(layers)), layers)
    return int(getattr(first, "stride", (1, 1, 1))[1])
