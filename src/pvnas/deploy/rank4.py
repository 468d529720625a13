"""A trained network without tensors of more than four dimensions, as other programs and devices take it.

No operation mixes time and space, so each is a 2-D one, on pictures or on the lines that a pixel draws over time.
Nothing hangs on how many clips there are. Legend: N clips, T frames, P = N * T pictures, C channels, H and W pixels, K
classes.
"""

from collections import deque
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.config import ClipConfig
from pvnas.data.clips.network_input import MEAN, QUIET, SLOW, STD
from pvnas.data.clips.optical_flow import optical_flow
from pvnas.fast.inference import folded
from pvnas.space.layers import BatchNorm, FactorizedReduction, FoldedAvgPool, FoldedConv, FoldedMaxPool
from pvnas.space.network import DerivedCell, PVNASNetwork


class Rank4Network(nn.Module):
    """What a network's clips look like, (N, T, C, H, W) with C as it takes them, to its scores (N, K).

    In evaluation mode, with its norms in its convolutions. ``network`` is not changed; ``frames``: T.
    """

    def __init__(self, network: PVNASNetwork, frames: int) -> None:
        super().__init__()
        self.network = folded(network)
        stem = self.network.stem
        for name, layer in stem.named_children():
            setattr(stem, name, _rank4(layer, frames))
            if isinstance(layer, FoldedConv):
                frames = -(-frames // layer.stride[0])
        _rank4(self.network.cells, frames)
        self.frames_left = frames

    def forward(self, x_NTCHW: Tensor) -> Tensor:
        return self.of_pictures(x_NTCHW.flatten(0, 1))

    def of_pictures(self, x_PCHW: Tensor) -> Tensor:
        """Return the scores (N, K) of clips whose frames lie one behind the other."""
        *_, y_PCHW = deque(self.network.outputs(x_PCHW), maxlen=1)
        y_PC = y_PCHW.mean((2, 3))
        return self.network.classify(y_PC.reshape(-1, self.frames_left, y_PC.shape[1]).mean(1))


class FromPixels(nn.Module):
    """Frames as a decoder or a camera gives them to probabilities: uint8 RGB (N, F, H, W, 3) to (N, K).

    F: as many frames as a clip is read as, see ``network_input.frames_read``.
    """

    def __init__(self, network: Rank4Network, clip: ClipConfig) -> None:
        super().__init__()
        self.network, self.clip = network, clip
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames_NFHWC: Tensor) -> Tensor:
        pictures = frames_NFHWC.flatten(0, 1).permute(0, 3, 1, 2).float()
        if self.clip.colours == 1:
            pictures = ((pictures.sum(1, keepdim=True) + 1) / 3).floor()  # their means, rounded
        return self.network.of_pictures(self._seen(pictures)).softmax(1)

    def _seen(self, pictures: Tensor) -> Tensor:
        """Return what ``network_input`` does of grey levels (N * F, C, H, W), as pictures (P, C', H, W)."""
        clip = self.clip
        if clip.input == "rgb":
            return self._normalised(pictures)
        c, h, w = pictures.shape[1:]
        halves = pictures.reshape(-1, 2 * clip.frames * c, h, w).chunk(2, dim=1)
        now, later = (half.reshape(-1, c, h, w) for half in halves)
        if clip.input.startswith("flow"):
            flow_P2HW = optical_flow(now.mean(1) / 255, later.mean(1) / 255)
            moved = self._by_strength(flow_P2HW - _lower_median(flow_P2HW), SLOW)
        else:
            moved = self._by_strength((later - now) / 255, QUIET)
        return moved if clip.input in ("flow", "motion") else torch.cat([moved, self._normalised(now)], 1)

    def _normalised(self, pictures: Tensor) -> Tensor:
        return (pictures / 255 - self.mean) / self.std

    def _by_strength(self, moved_PCHW: Tensor, quiet: float) -> Tensor:
        """Return motion in parts of its root mean square over each clip."""
        channels, height, width = moved_PCHW.shape[1:]
        moved = moved_PCHW.reshape(-1, self.clip.frames * channels, height, width)
        strength = moved.square().mean((1, 2, 3), keepdim=True).sqrt()
        return (moved / (strength + quiet)).reshape(-1, channels, height, width)


def _lower_median(x_PCHW: Tensor) -> Tensor:
    """Return the median of each picture, the lower of two middle numbers, as exporters know it: (P, C, 1, 1)."""
    numbers = x_PCHW.flatten(2)
    return numbers.topk(numbers.shape[2] // 2 + 1).values[:, :, -1:, None]


class TemporalConv(nn.Module):
    """A convolution over time, of pictures (P, C, H, W): as a 2-D one over time and pixels, (N, C, T, H * W)."""

    def __init__(self, conv: FoldedConv, frames: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", conv.weight.detach().squeeze(-1).contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.frames, self.groups = frames, conv.groups
        self.stride, self.padding = conv.stride, int(conv.padding[0])

    def forward(self, x_PCHW: Tensor) -> Tensor:
        if self.stride[1] == 2:
            x_PCHW = x_PCHW[:, :, ::2, ::2]
        channels, height, width = x_PCHW.shape[1:]
        lines = x_PCHW.reshape(-1, self.frames, channels, height * width).transpose(1, 2)
        y = F.conv2d(lines, self.weight, self.bias, (self.stride[0], 1), (self.padding, 0), 1, self.groups)
        return y.transpose(1, 2).reshape(-1, y.shape[1], height, width)


class OnClips(nn.Module):
    """A layer of which nothing is known but that it takes clips."""

    def __init__(self, layer: nn.Module, frames: int) -> None:
        super().__init__()
        self.layer, self.frames = layer, frames

    def forward(self, x_PCHW: Tensor) -> Tensor:
        y: Tensor = self.layer(x_PCHW.unflatten(0, (-1, self.frames)).transpose(1, 2))
        return y.transpose(1, 2).flatten(0, 1)


def _rank4(layer: nn.Module, frames: int) -> nn.Module:
    """Return a layer as it takes pictures; what is made of layers, and hands on what it takes, is changed in place."""
    match layer:
        case FoldedConv() if layer.kernel_size[0] > 1:
            return TemporalConv(layer, frames)
        case FoldedConv():
            return _conv2d(layer)
        case BatchNorm():
            return _norm2d(layer)
        case FoldedAvgPool():
            size, stride, padding = _window(layer)
            return nn.AvgPool2d(size, stride, padding, count_include_pad=layer.count_include_pad)
        case FoldedMaxPool():
            return nn.MaxPool2d(*_window(layer))
        case nn.Sequential() | nn.ModuleList() | FactorizedReduction() | DerivedCell():
            for name, inner in layer.named_children():
                setattr(layer, name, _rank4(inner, frames))
            return layer
        case nn.ReLU():
            return nn.ReLU()
        case nn.Identity():
            return layer
    return OnClips(layer, frames)


@torch.no_grad()
def _conv2d(conv: FoldedConv) -> nn.Conv2d:
    sizes: dict[str, Any] = {name: getattr(conv, name)[1:] for name in ("kernel_size", "stride", "padding", "dilation")}
    has_bias = conv.bias is not None
    made = nn.Conv2d(
        conv.in_channels, conv.out_channels, **sizes, groups=conv.groups, bias=has_bias, dtype=conv.weight.dtype
    )
    made.weight.copy_(conv.weight.squeeze(2))
    if made.bias is not None and conv.bias is not None:
        made.bias.copy_(conv.bias)
    return made.requires_grad_(False)


@torch.no_grad()
def _norm2d(norm: BatchNorm) -> nn.BatchNorm2d:
    assert norm.running_mean is not None
    made = nn.BatchNorm2d(norm.num_features, norm.eps, affine=norm.affine, dtype=norm.running_mean.dtype).eval()
    made.load_state_dict(norm.state_dict())
    return made.requires_grad_(False)


def _window(pool: FoldedAvgPool | FoldedMaxPool) -> list[Any]:
    return [size if isinstance(size, int) else size[1:] for size in (pool.kernel_size, pool.stride, pool.padding)]
