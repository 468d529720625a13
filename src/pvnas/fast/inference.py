"""A trained network made ready for predictions: the same scores from fewer and larger kernels.

Batch norms become part of the convolutions before them (Jacob et al., 2018, section 3.2), and a pointwise convolution
that is followed by a temporal one, with nothing between them, becomes one with it. On a CPU the cells then run by
kernels in C++, see ``prediction_cell``.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pvnas.fast.kernels.cpp_library import compiler
from pvnas.fast.prediction_cell import PredictionCell, PredictionPool
from pvnas.runtime.spinning import adapt_spinning
from pvnas.space.layers import BatchNorm, FactorizedReduction, FoldedConv, FoldedMaxPool, joined_kernel
from pvnas.space.network import DerivedCell, PVNASNetwork


def for_inference(network: PVNASNetwork) -> PVNASNetwork:
    """Return a copy of a network of folded layers that gives its evaluation mode's scores and cannot be trained.

    On a CPU it computes by kernels in C++ where they work, for which the first clips may wait ten seconds; from then on
    this process's threads wait as ``runtime.spinning`` says.
    """
    adapt_spinning()
    fast = folded(network)
    on_cpu = next(network.parameters()).device.type == "cpu"
    return by_kernels(fast) if on_cpu and compiler() else fast


@torch.no_grad()
def folded(network: PVNASNetwork) -> PVNASNetwork:
    """Return what ``for_inference`` does, by PyTorch's operations alone."""
    fused = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(fused.modules()):
        if isinstance(module, FactorizedReduction):
            _fuse_reduction(module)
        elif isinstance(module, nn.Sequential):
            _fuse_sequence(module)
    for module in fused.modules():
        if isinstance(module, FoldedConv) and module.kernel_size[1] > 1:
            # As PyTorch reads it beside clips in such memory; else it copies it each time.
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return fused


def _fuse_sequence(layers: nn.Sequential) -> None:
    """Fold the norms, join 1x1x1 with 3x1x1, and let ReLUs inside work in place."""
    position = 1
    while position < len(layers):
        before, layer = layers[position - 1], layers[position]
        if isinstance(before, FoldedConv) and isinstance(layer, BatchNorm):
            layers[position - 1] = _with_norm(before, layer)
            del layers[position]
        elif isinstance(before, FoldedConv) and isinstance(layer, FoldedConv) and _joins(before, layer):
            layers[position - 1] = _joined(before, layer)
            del layers[position]
        else:
            if isinstance(layer, nn.ReLU) and isinstance(before, FoldedConv):  # whose output nothing else reads
                layer.inplace = True
            position += 1


def _fuse_reduction(reduction: FactorizedReduction) -> None:
    """The norm is that of both halves, one behind the other."""
    scale, shift = _scale_and_shift(reduction.norm)
    channels = [reduction.even.out_channels, reduction.odd.out_channels]
    for name, s, b in zip(("even", "odd"), scale.split(channels), shift.split(channels), strict=True):
        setattr(reduction, name, _scaled(getattr(reduction, name), s, b))
    reduction.norm = nn.Identity()


def _with_norm(conv: FoldedConv, norm: BatchNorm) -> FoldedConv:
    return _scaled(conv, *_scale_and_shift(norm))


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a norm in evaluation mode multiplies by and adds, (C,) each."""
    assert isinstance(norm, BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _scaled(conv: FoldedConv, scale: Tensor, shift: Tensor) -> FoldedConv:
    """Return the convolution followed by ``* scale + shift``."""
    bias = shift if conv.bias is None else conv.bias * scale + shift
    return _convolution(conv, conv.weight * scale.view(-1, 1, 1, 1, 1), bias, conv.kernel_size, conv.padding)


def _joins(first: FoldedConv, second: FoldedConv) -> bool:
    return first.kernel_size == (1, 1, 1) and first.groups == 1 and first.bias is None and _is_temporal(second)


def _is_temporal(conv: FoldedConv) -> bool:
    return conv.kernel_size == (3, 1, 1) and conv.groups == 1 and conv.stride == (1, 1, 1) and conv.bias is None


def _joined(first: FoldedConv, second: FoldedConv) -> FoldedConv:
    """Return the one convolution that both make; neither has a bias, so that padding in time stays zero."""
    weight = joined_kernel(first.weight.flatten(1)[None], second.weight.flatten(2)[None])[0]
    return _convolution(first, weight[..., None, None], None, second.kernel_size, second.padding)


def _convolution(like: FoldedConv, weight: Tensor, bias: Tensor | None, kernel: object, padding: object) -> FoldedConv:
    """Return a convolution with these weights and the stride, dilation and groups of another."""
    conv = FoldedConv(
        like.in_channels,
        like.out_channels,
        kernel,  # type: ignore[arg-type]
        stride=like.stride,  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=like.dilation,  # type: ignore[arg-type]
        groups=like.groups,
        bias=bias is not None,
        device="meta",
    )
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv


def by_kernels(network: PVNASNetwork) -> PVNASNetwork:
    """Let a ``folded`` network compute by the kernels in C++."""
    stem = [PredictionPool(layer) if isinstance(layer, FoldedMaxPool) else layer for layer in network.stem]
    network.stem = nn.Sequential(*stem)
    network.cells = nn.ModuleList([PredictionCell(cell) for cell in network.cells if isinstance(cell, DerivedCell)])
    network.shares_relu = False  # they read through it
    return network
