"""The candidate operations of the paper (section 3.1, figure 3) and the layers around them.

Every operation maps (N, C, T, H, W) to (N, C, T, ceil(H/stride), ceil(W/stride)); time is never strided. What the paper
leaves open follows DARTS (Liu, Simonyan, Yang, 2019): ReLU - convolution - BN, separable convolutions applied twice,
identity at stride 2 as a factorised reduction.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.space.dense import even_and_odd_pixels, side_by_side
from pvnas.space.layers import FoldedConv, Layers, fold_time, unfold_time

SPATIAL_KERNEL, SPATIAL_PADDING = (1, 3, 3), (0, 1, 1)


def build_operation(
    name: str, channels: int, stride: int, layers: Layers, *, affine: bool, pool_norm: bool
) -> nn.Module:
    """Return one operation of ``channels`` channels in and out. ``zero`` has none: it is never computed.

    ``affine``: BN with parameters (derived networks). ``pool_norm``: BN after pooling (the supernet).
    """
    match name:
        case "identity":
            return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, layers, affine=affine)
        case "avg_pool_1x3x3":
            pool = layers.avg_pool(SPATIAL_KERNEL, (1, stride, stride), SPATIAL_PADDING, count_include_pad=False)
            return nn.Sequential(pool, layers.norm(channels, affine=affine)) if pool_norm else pool
        case "max_pool_1x3x3":
            pool = layers.max_pool(SPATIAL_KERNEL, (1, stride, stride), SPATIAL_PADDING)
            return nn.Sequential(pool, layers.norm(channels, affine=affine)) if pool_norm else pool
        case "sep_conv_1x3x3":
            first, second = (_separable(channels, s, 1, layers, affine) for s in (stride, 1))
            return Rectified(*first, *second)
        case "dil_sep_conv_1x3x3":
            return Rectified(*_separable(channels, stride, 2, layers, affine))
        case "temporal_conv_3+3x3":
            return _temporal(channels, stride, 3, layers, affine)
        case "temporal_conv_3+1x1":
            return _temporal(channels, stride, 1, layers, affine)
    raise ValueError(f"no operation {name!r}")


def build_relaxed(names: Iterable[str], channels: int, stride: int, layers: Layers) -> nn.ModuleDict:
    """Return operations of the supernet by name: BN without parameters, and after every pooling."""
    return nn.ModuleDict(
        {name: build_operation(name, channels, stride, layers, affine=False, pool_norm=True) for name in names}
    )


def _separable(channels: int, stride: int, dilation: int, layers: Layers, affine: bool) -> list[nn.Module]:
    """ReLU, depthwise 1x3x3, pointwise 1x1x1, BN."""
    depthwise = layers.conv(
        channels,
        channels,
        SPATIAL_KERNEL,
        stride=(1, stride, stride),
        padding=(0, dilation, dilation),
        dilation=(1, dilation, dilation),
        groups=channels,
        bias=False,
    )
    pointwise = layers.conv(channels, channels, 1, bias=False)
    return [nn.ReLU(), depthwise, pointwise, layers.norm(channels, affine=affine)]


def _temporal(channels: int, stride: int, kernel: int, layers: Layers, affine: bool) -> Rectified:
    """ReLU, 1xkxk, 3x1x1, BN: the paper's `3+kxk` temporal convolution."""
    pad = kernel // 2
    spatial = layers.conv(
        channels, channels, (1, kernel, kernel), stride=(1, stride, stride), padding=(0, pad, pad), bias=False
    )
    temporal = layers.conv(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
    return Rectified(nn.ReLU(), spatial, temporal, layers.norm(channels, affine=affine))


class Rectified(nn.Sequential):
    """Layers behind a ReLU, the first of them."""

    def forward(self, x: Tensor, rectified: bool = False) -> Tensor:
        """``rectified``: x is through the ReLU already, which several operations may share."""
        for layer in islice(self, int(rectified), None):
            x = layer(x)
        return x


class FactorizedReduction(nn.Module):
    """ReLU, then two pointwise convolutions at stride 2, the second offset by one pixel, concatenated, BN.

    (N, C, T, H, W) to (N, out_channels, T, ceil(H/2), ceil(W/2)). At odd sizes the offset half is padded with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, layers: Layers, *, affine: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.even = layers.conv(in_channels, half, 1, stride=(1, 2, 2), bias=False)
        self.odd = layers.conv(in_channels, out_channels - half, 1, stride=(1, 2, 2), bias=False)
        self.norm = layers.norm(out_channels, affine=affine)

    def forward(self, x: Tensor, rectified: bool = False) -> Tensor:
        """``rectified``: x is through the ReLU already."""
        x = x if rectified else F.relu(x)
        if isinstance(self.even, FoldedConv) and isinstance(self.odd, FoldedConv):
            even, odd = (unfold_time(pixels, x.shape[2]) for pixels in even_and_odd_pixels(fold_time(x)))
            return self.norm(side_by_side([self.even(even, picked=True), self.odd(odd, picked=True)]))
        h, w = x.shape[3:]
        offset = F.pad(x[:, :, :, 1:, 1:], (0, w % 2, 0, h % 2)) if h % 2 or w % 2 else x[:, :, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(offset)], 1))


def pointwise_input(in_channels: int, channels: int, layers: Layers, *, affine: bool) -> Rectified:
    """ReLU, 1x1x1 convolution, BN: brings a cell's input to the cell's width."""
    return Rectified(nn.ReLU(), layers.conv(in_channels, channels, 1, bias=False), layers.norm(channels, affine=affine))


def cell_inputs(
    channels_before: tuple[int, int], channels: int, reduced_before: bool, layers: Layers, *, affine: bool
) -> tuple[nn.Module, nn.Module]:
    """Return what brings a cell's inputs x0 and x1 to its width; x0 is halved where the cell before was a reduction."""
    older, newer = channels_before
    first: nn.Module
    if reduced_before:
        first = FactorizedReduction(older, channels, layers, affine=affine)
    else:
        first = pointwise_input(older, channels, layers, affine=affine)
    return first, pointwise_input(newer, channels, layers, affine=affine)


def build_stem(kind: str, channels: int, layers: Layers) -> nn.Sequential:
    """Return the first layers: (N, 3, T, H, W) to (N, channels, T, H/4, W/4) or, for ``stride2``, H/2 and W/2."""
    kernel = 7 if kind == "stride4" else 3
    conv = layers.conv(
        3, channels, (1, kernel, kernel), stride=(1, 2, 2), padding=(0, kernel // 2, kernel // 2), bias=False
    )
    stem = [conv, layers.norm(channels), nn.ReLU()]
    if kind == "stride4":
        stem.append(layers.max_pool(SPATIAL_KERNEL, (1, 2, 2), SPATIAL_PADDING))
    return nn.Sequential(*stem)
