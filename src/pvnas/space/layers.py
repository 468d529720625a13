"""Layers on clips: PyTorch's own 3-D ones, and the same ones computed as 2-D with time folded into the batch.

Legend: N clips, C channels, T frames, H and W pixels.

No kernel of the search space mixes time and space, so each can run as a 2-D one. With clips in channels-last memory
(N,T,H,W,C) the fold to (N*T,C,H,W) for spatial kernels and the view (N,C,T,H*W) for temporal ones copy nothing, while
PyTorch's 2-D kernels are several times faster than its 3-D ones, most of all depthwise. Parameters keep the shapes of
the 3-D layers, so that both kinds load each other's weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.space.dense import average_3x3, even_and_odd_pixels, even_pixels, side_by_side


def fold_time(x_NCTHW: Tensor) -> Tensor:
    """Return (N*T, C, H, W); a view where x is contiguous in channels_last_3d."""
    n, c, t, h, w = x_NCTHW.shape
    return x_NCTHW.transpose(1, 2).reshape(n * t, c, h, w)


def unfold_time(x_FCHW: Tensor, frames: int) -> Tensor:
    """Return (N, C, T, H, W) from (N*T, C, H, W); always a view."""
    return x_FCHW.unflatten(0, (-1, frames)).transpose(1, 2)


def to_channels_last(x_NCTHW: Tensor) -> Tensor:
    """Return the clips in channels_last_3d memory, in which every fold is free."""
    return x_NCTHW.contiguous(memory_format=torch.channels_last_3d)


class FoldedConv(nn.Conv3d):
    """A Conv3d of kernel (1, k, k) or (k, 1, 1) computed as a 2-D convolution. Shapes as nn.Conv3d."""

    def forward(self, x: Tensor, picked: bool = False) -> Tensor:
        """Return the convolution of (N, C, T, H, W) clips, in channels_last_3d memory.

        That PyTorch leaves where it has few pictures, see ``pointwise``: then what it returns is copied.
        ``picked``: ``x`` is what a convolution of stride 2 reads, every other pixel alone.
        """
        if self.kernel_size[0] > 1:
            return self._temporal(x)
        folded, weight = fold_time(x), self.weight.squeeze(2)
        stride, dilation, padding, kernel = self.stride[1], self.dilation[1], int(self.padding[1]), self.kernel_size[1]
        if stride == 2 and (dilation == 2 or kernel == 1):
            # Every tap of the kernel falls on an even pixel: a plain convolution of those.
            folded = folded if picked else even_pixels(folded)
            stride, dilation, padding = 1, 1, padding // 2
        if kernel == 1 and self.groups == 1:
            y = pointwise(folded, weight, self.bias)
        elif dilation == 2 and torch.is_grad_enabled():
            y = _dilated_on_phases(folded, weight, self.groups)
        else:
            y = F.conv2d(folded, weight, self.bias, stride, padding, dilation, self.groups)
        return to_channels_last(unfold_time(y, x.shape[2]))

    def _temporal(self, x: Tensor) -> Tensor:
        if self.stride[1] == 2:
            x = unfold_time(even_pixels(fold_time(x)), x.shape[2])
        stride, padding = (self.stride[0], 1), (int(self.padding[0]), 0)
        y = F.conv2d(
            x.flatten(3), self.weight.squeeze(-1), self.bias, stride, padding, 1, self.groups
        )  # (N, C, T, H*W)
        return to_channels_last(y.unflatten(3, x.shape[3:]))


def pointwise(x_FCHW: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution, at any number of frames in channels-last memory.

    For fewer than 16 pictures on one thread PyTorch (2.13) leaves oneDNN and the memory format. So few of them are cut
    in halves, and where that cannot be, a product of matrices does it.
    """
    f, _, h, w = x_FCHW.shape
    if 8 <= f < 16 and h % 2 == 0:
        halves = x_FCHW.permute(0, 2, 3, 1).reshape(2 * f, h // 2, w, -1).permute(0, 3, 1, 2)
        y_FHWC = F.conv2d(halves, weight, bias).permute(0, 2, 3, 1).reshape(f, h, w, -1)
    elif f < 16:
        y_FHWC = F.linear(x_FCHW.permute(0, 2, 3, 1), weight.flatten(1), bias)
    else:
        return F.conv2d(x_FCHW, weight, bias)
    return y_FHWC.permute(0, 3, 1, 2)


def joined_kernel(first_kMC: Tensor, later_kOMt: Tensor) -> Tensor:
    """Return the kernels (k, O, C, t) of k 1x1x1 convolutions (k, M, C), each followed by a tx1x1 one (k, O, M, t)."""
    return torch.einsum("komt,kmc->koct", later_kOMt, first_kMC)


def _dilated_on_phases(x_FCHW: Tensor, weight: Tensor, groups: int) -> Tensor:
    """A 3x3 convolution of dilation 2, stride 1 and padding 2, as plain ones on the four phases of even and odd pixels.

    Backward, PyTorch's dilated depthwise convolution is several times slower on a CPU than this, copies included.
    """
    y = F.conv2d(split_phases(x_FCHW), weight, None, 1, 1, 1, groups)
    return join_phases(y, x_FCHW.shape[0], *x_FCHW.shape[2:])


def split_phases(x_FCHW: Tensor) -> Tensor:
    """Return the even and odd rows and columns as pictures of their own: (4 * F, C, ceil(H/2), ceil(W/2))."""
    f, c, h, w = x_FCHW.shape
    x = F.pad(x_FCHW, (0, w % 2, 0, h % 2)) if h % 2 or w % 2 else x_FCHW
    h2, w2 = x.shape[2] // 2, x.shape[3] // 2
    pixels_last = x.permute(0, 2, 3, 1).reshape(f, h2, 2, w2, 2, c)
    return pixels_last.permute(0, 2, 4, 1, 3, 5).reshape(f * 4, h2, w2, c).permute(0, 3, 1, 2)


def join_phases(phases: Tensor, f: int, h: int, w: int) -> Tensor:
    """Return the (F, C, H, W) pictures that ``split_phases`` has split."""
    h2, w2 = phases.shape[2:]
    y = phases.permute(0, 2, 3, 1).reshape(f, 2, 2, h2, w2, -1).permute(0, 3, 1, 4, 2, 5)
    return y.reshape(f, 2 * h2, 2 * w2, -1).permute(0, 3, 1, 2)[:, :, :h, :w]


class FoldedAvgPool(nn.AvgPool3d):
    """An AvgPool3d of kernel (1, k, k) computed as a 2-D pooling. Shapes as nn.AvgPool3d."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled (N, C, T, H', W') clips."""
        if x.is_cuda and self.kernel_size[1] == 3:  # type: ignore[index]
            return unfold_time(average_3x3(fold_time(x), self.stride[1]), x.shape[2])  # type: ignore[index]
        folded = fold_time(x).contiguous() if x.is_cuda else fold_time(x)  # as for ``average_3x3``
        window = self.kernel_size[1:], self.stride[1:], self.padding[1:]  # type: ignore[index]
        y = F.avg_pool2d(folded, *window, count_include_pad=self.count_include_pad)
        return unfold_time(y, x.shape[2])


class FoldedMaxPool(nn.MaxPool3d):
    """A MaxPool3d of kernel (1, k, k) computed as a 2-D pooling. Shapes as nn.MaxPool3d."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(fold_time(x), self.kernel_size[1:], self.stride[1:], self.padding[1:])  # type: ignore[index]
        return unfold_time(y, x.shape[2])


class BatchNorm(nn.BatchNorm3d):
    """BatchNorm3d computed on folded time. Shapes as nn.BatchNorm3d.

    Its running statistics are updated in training mode only while ``momentum`` is above zero, see
    ``frozen_statistics``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, T, H, W) clips normalised over all but C."""
        # Folded: the 3-D backward pass is wrong where H = W = 1, since such clips fit two memory formats at once.
        tensors = self.running_mean, self.running_var, self.weight, self.bias
        y = F.batch_norm(fold_time(x), *tensors, self.training, self.momentum or 0.0, self.eps)
        return unfold_time(y, x.shape[2])


@dataclass(frozen=True)
class Layers:
    """The four kinds of layers that the search space is made of."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    avg_pool: Callable[..., nn.Module]
    max_pool: Callable[..., nn.Module]


FOLDED = Layers(FoldedConv, BatchNorm, FoldedAvgPool, FoldedMaxPool)
PLAIN = Layers(nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d, nn.MaxPool3d)


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
        h, w = x.shape[-2:]
        offset = F.pad(x[..., 1:, 1:], (0, w % 2, 0, h % 2)) if h % 2 or w % 2 else x[..., 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(offset)], 1))
