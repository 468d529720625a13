"""A trained network made ready for predictions: the same scores from fewer and larger kernels.

Batch norms become part of the convolutions before them (Jacob et al., 2018, section 3.2), and a pointwise convolution
that is followed by a temporal one, with nothing between them, becomes one with it. On a CPU the cells then run by
kernels in C++, see ``prediction_cell``.
"""

import copy

import torch
from torch import Tensor, nn

from pvnas.fast.kernels.cpp_library import compiler
from pvnas.fast.prediction_cell import PredictionCell, PredictionPool
from pvnas.fast.training_cell import with_plain_cells
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
    fused = with_plain_cells(copy.deepcopy(network)).eval().requires_grad_(False)
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
            _scale(before, *_scale_and_shift(layer))
            del layers[position]
        elif isinstance(before, FoldedConv) and isinstance(layer, FoldedConv) and _joins(before, layer):
            _join(before, layer)
            del layers[position - 1]
        else:
            if isinstance(layer, nn.ReLU) and isinstance(before, FoldedConv):  # whose output nothing else reads
                layer.inplace = True
            position += 1


def _fuse_reduction(reduction: FactorizedReduction) -> None:
    """The norm is that of both halves, one behind the other."""
    scale, shift = _scale_and_shift(reduction.norm)
    halves = [conv for conv in (reduction.even, reduction.odd) if isinstance(conv, FoldedConv)]
    channels = [conv.out_channels for conv in halves]
    for conv, s, b in zip(halves, scale.split(channels), shift.split(channels), strict=True):
        _scale(conv, s, b)
    reduction.norm = nn.Identity()


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


def _scale(conv: FoldedConv, scale: Tensor, shift: Tensor) -> None:
    """Let a convolution do ``* scale + shift``, too."""
    conv.bias = nn.Parameter(shift if conv.bias is None else conv.bias * scale + shift, requires_grad=False)
    conv.weight = nn.Parameter(conv.weight * scale.view(-1, 1, 1, 1, 1), requires_grad=False)


def _joins(first: FoldedConv, second: FoldedConv) -> bool:
    """Whether they are a pointwise convolution and one over time, without biases."""
    dense = first.groups == second.groups == 1 and first.bias is None and second.bias is None
    return dense and (first.kernel_size, second.kernel_size, second.stride) == ((1, 1, 1), (3, 1, 1), (1, 1, 1))


def _join(first: FoldedConv, second: FoldedConv) -> None:
    """Let the second do what both do; neither has a bias, so that padding in time stays zero."""
    weight = joined_kernel(first.weight.flatten(1)[None], second.weight.flatten(2)[None])[0]
    second.weight = nn.Parameter(weight[..., None, None], requires_grad=False)
    second.in_channels, second.stride = first.in_channels, first.stride


def by_kernels(network: PVNASNetwork) -> PVNASNetwork:
    """Let a ``folded`` network compute by the kernels in C++."""
    stem = [PredictionPool(layer) if isinstance(layer, FoldedMaxPool) else layer for layer in network.stem]
    network.stem = nn.Sequential(*stem)
    network.cells = nn.ModuleList([PredictionCell(cell) for cell in network.cells if isinstance(cell, DerivedCell)])
    network.shares_relu = False  # they read through it
    return network
