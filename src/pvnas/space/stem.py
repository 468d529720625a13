"""The layers before the first cell, and those that bring each cell's two inputs to its width."""

from torch import nn

from pvnas.space.layers import FactorizedReduction, Layers, Rectified
from pvnas.space.layout import CellSpec
from pvnas.space.operations import SPATIAL_KERNEL, SPATIAL_PADDING


def pointwise_input(in_channels: int, channels: int, layers: Layers, *, affine: bool) -> Rectified:
    """ReLU, 1x1x1 convolution, BN: brings a cell's input to the cell's width."""
    return Rectified(nn.ReLU(), layers.conv(in_channels, channels, 1, bias=False), layers.norm(channels, affine=affine))


def cell_inputs(spec: CellSpec, layers: Layers, *, affine: bool) -> tuple[nn.Module, nn.Module]:
    """Return what brings a cell's inputs x0 and x1 to its width; x0 is halved where the cell before was a reduction."""
    older, newer = spec.channels_before
    first: nn.Module
    if spec.reduced_before:
        first = FactorizedReduction(older, spec.channels, layers, affine=affine)
    else:
        first = pointwise_input(older, spec.channels, layers, affine=affine)
    return first, pointwise_input(newer, spec.channels, layers, affine=affine)


def side_after_stem(kind: str, side: int) -> int:
    """Return the height or width that the stem leaves of one."""
    return -(-side // stem_stride(kind))


def stem_stride(kind: str) -> int:
    """Return by what the stem divides height and width."""
    return 4 if kind.startswith("stride4") else 2


def frames_after_stem(kind: str, frames: int) -> int:
    """Return the frames that the stem leaves of so many."""
    return -(-frames // time_stride(kind))


def time_stride(kind: str) -> int:
    """Return by what the stem divides the number of frames."""
    return 2 if kind.endswith("-time2") else 1


def build_stem(kind: str, in_channels: int, channels: int, layers: Layers) -> nn.Sequential:
    """Return the first layers: (N, in_channels, T, H, W) to (N, channels, T, H/4, W/4); H/2 and W/2 for ``stride2``.

    T/2, rounded up, for ``-time2``.
    """
    pooled = stem_stride(kind) == 4
    kernel = 7 if pooled else 3
    conv = layers.conv(
        in_channels, channels, (1, kernel, kernel), stride=(1, 2, 2), padding=(0, kernel // 2, kernel // 2), bias=False
    )
    stem = [conv, layers.norm(channels), nn.ReLU()]
    if "-time" in kind:
        strides = (time_stride(kind), 1, 1)
        mixing = layers.conv(channels, channels, (3, 1, 1), stride=strides, padding=(1, 0, 0), bias=False)
        stem += [mixing, layers.norm(channels), nn.ReLU()]
    if pooled:
        stem.append(layers.max_pool(SPATIAL_KERNEL, (1, 2, 2), SPATIAL_PADDING))
    return nn.Sequential(*stem)
