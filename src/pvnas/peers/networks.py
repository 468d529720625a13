"""Four published video networks, of any width: R(2+1)D-18, SlowOnly-R50, X3D-S and X3D-M, TSM-R50.

Randomly initialised; every size follows the paper it comes from, and at the published width so do parameters and
multiply-accumulates (``pvnas.peers.PEERS`` states them, ``tests/peers/test_networks.py`` checks). No maintained package
holds them all. Each takes (N, in_channels, T, H, W) clips and gives (N, num_classes) scores.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.space.network import drop_path


def conv_norm(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution with spatial stride, padded to keep sizes, and its BN."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm3d(outputs)]


class Residual(nn.Module):
    """ReLU(body(x) + shortcut(x)); the body is dropped for a clip in training with ``drop_path_rate``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, drop_path_rate: float) -> None:
        super().__init__()
        self.body, self.shortcut, self.drop_path_rate = body, shortcut, drop_path_rate

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(drop_path(self.body(x), self.drop_path_rate, self.training) + self.shortcut(x))


class Pooled(nn.Module):
    """Average over time and space, dropout, a classifier."""

    def __init__(self, features: int, classes: int, drop_rate: float) -> None:
        super().__init__()
        self.classifier, self.drop_rate = nn.Linear(features, classes), drop_rate

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(F.dropout(x.mean((2, 3, 4)), self.drop_rate, self.training))
        return scores


class PeerNetwork(nn.Sequential):
    """Layers one after another, and what is asked of any network: what it sees, how wide it is."""

    def __init__(self, *layers: nn.Module, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__(*layers)
        self.in_channels, self.width, self.num_classes = in_channels, width, num_classes


# ---- R(2+1)D-18 (Tran et al., "A closer look at spatiotemporal convolutions for action recognition", 2018)


def factored(inputs: int, outputs: int, between: int, stride: int) -> list[nn.Module]:
    """A 3x3x3 convolution as 1x3x3, BN, ReLU, 3x1x1; the stride is in space and in time."""
    spatial = nn.Conv3d(inputs, between, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    temporal = nn.Conv3d(between, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
    return [spatial, nn.BatchNorm3d(between), nn.ReLU(), temporal]


def r2plus1d_18(
    width: int = 64, *, num_classes: int, in_channels: int = 3, drop_rate: float = 0.0, drop_path_rate: float = 0.0
) -> PeerNetwork:
    """Return R(2+1)D with 18 layers. ``width``: channels of the first stage."""
    first = max(1, round(45 / 64 * width))
    layers = [*conv_norm(in_channels, first, (1, 7, 7), 2), nn.ReLU(), *conv_norm(first, width, (3, 1, 1)), nn.ReLU()]
    inputs = width
    for outputs, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        for stride in (first_stride, 1):
            # As many parameters as 3x3x3 convolutions would have.
            between = (inputs * outputs * 27) // (inputs * 9 + 3 * outputs)
            body = nn.Sequential(
                *factored(inputs, outputs, between, stride),
                nn.BatchNorm3d(outputs),
                nn.ReLU(),
                *factored(outputs, outputs, between, 1),
                nn.BatchNorm3d(outputs),
            )
            shortcut: nn.Module = nn.Identity()
            if stride != 1 or inputs != outputs:
                conv = nn.Conv3d(inputs, outputs, 1, stride, bias=False)
                shortcut = nn.Sequential(conv, nn.BatchNorm3d(outputs))
            layers.append(Residual(body, shortcut, drop_path_rate))
            inputs = outputs
    head = Pooled(inputs, num_classes, drop_rate)
    return PeerNetwork(*layers, head, in_channels=in_channels, width=width, num_classes=num_classes)


# ---- Bottleneck blocks of ResNet-50: SlowOnly-R50, the slow pathway of SlowFast alone (Feichtenhofer et al., 2019,
# ---- table 1), and TSM-R50 (Lin, Gan and Han, "TSM: Temporal shift module for efficient video understanding", 2019)


class Shifted(nn.Module):
    """An eighth of the channels one frame earlier, an eighth one later, the rest as it is; zeros come in."""

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        n = x_NCTHW.shape[1] // 8
        later, earlier, rest = x_NCTHW.split([n, n, x_NCTHW.shape[1] - 2 * n], 1)
        from_next = F.pad(later[:, :, 1:], (0, 0, 0, 0, 0, 1))
        from_before = F.pad(earlier[:, :, :-1], (0, 0, 0, 0, 1, 0))
        return torch.cat([from_next, from_before, rest], 1)


def slowonly_r50(
    width: int = 64, *, num_classes: int, in_channels: int = 3, drop_rate: float = 0.0, drop_path_rate: float = 0.0
) -> PeerNetwork:
    """Return the slow pathway with 50 layers. ``width``: channels inside the first stage's blocks."""
    kernels = (1, 1, 3, 3)  # frames that a stage's first convolutions see
    return _bottlenecks(width, kernels, False, num_classes, in_channels, drop_rate, drop_path_rate)


def tsm_r50(
    width: int = 64, *, num_classes: int, in_channels: int = 3, drop_rate: float = 0.0, drop_path_rate: float = 0.0
) -> PeerNetwork:
    """Return ResNet-50 on single frames whose blocks shift channels to their neighbours.

    Scores are averaged over the frames: the classifier is linear, so here the features are.
    """
    return _bottlenecks(width, (1, 1, 1, 1), True, num_classes, in_channels, drop_rate, drop_path_rate)


def _bottlenecks(
    width: int,
    kernels: tuple[int, ...],
    shifts: bool,
    num_classes: int,
    in_channels: int,
    drop_rate: float,
    drop_path_rate: float,
) -> PeerNetwork:
    layers = [*conv_norm(in_channels, width, (1, 7, 7), 2), nn.ReLU(), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))]
    inputs = width
    stages = zip((width, 2 * width, 4 * width, 8 * width), (3, 4, 6, 3), kernels, (1, 2, 2, 2), strict=True)
    for inner, blocks, kernel, first_stride in stages:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            body = nn.Sequential(
                *([Shifted()] if shifts else []),
                *conv_norm(inputs, inner, (kernel, 1, 1)),
                nn.ReLU(),
                *conv_norm(inner, inner, (1, 3, 3), stride),
                nn.ReLU(),
                *conv_norm(inner, 4 * inner, (1, 1, 1)),
            )
            first = nn.Sequential(*conv_norm(inputs, 4 * inner, (1, 1, 1), stride)) if block == 0 else nn.Identity()
            layers.append(Residual(body, first, drop_path_rate))
            inputs = 4 * inner
    head = Pooled(inputs, num_classes, drop_rate)
    return PeerNetwork(*layers, head, in_channels=in_channels, width=width, num_classes=num_classes)


# ---- X3D-S and X3D-M (Feichtenhofer, "X3D: Expanding architectures for efficient video recognition", 2020): one
# ---- network, on clips of 13 frames of 160 pixels and of 16 of 224


class SqueezeExcitation(nn.Module):
    """Channels scaled by what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = round_to_8(channels / 16)
        self.squeeze, self.excite = nn.Conv3d(channels, between, 1), nn.Conv3d(between, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(F.relu(self.squeeze(x.mean((2, 3, 4), keepdim=True)))).sigmoid()


def round_to_8(width: float) -> int:
    """Return the multiple of 8 nearest to a width, at least 8 and no less than nine tenths of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def x3d(
    width: int = 24, *, num_classes: int, in_channels: int = 3, drop_rate: float = 0.0, drop_path_rate: float = 0.0
) -> PeerNetwork:
    """Return X3D-S and X3D-M. ``width``: channels of the stem."""
    layers: list[nn.Module] = [nn.Conv3d(in_channels, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)]
    layers += [*conv_norm(width, width, (5, 1, 1), groups=width), nn.ReLU()]
    inputs = width
    for outputs, blocks in ((width, 3), (2 * width, 5), (4 * width, 11), (8 * width, 7)):
        inner = int(2.25 * outputs)
        for block in range(blocks):
            stride = 2 if block == 0 else 1
            body = nn.Sequential(
                *conv_norm(inputs, inner, (1, 1, 1)),
                nn.ReLU(),
                *conv_norm(inner, inner, (3, 3, 3), stride, groups=inner),
                SqueezeExcitation(inner) if block % 2 == 0 else nn.Identity(),
                nn.SiLU(),
                *conv_norm(inner, outputs, (1, 1, 1)),
            )
            first = nn.Sequential(*conv_norm(inputs, outputs, (1, 1, 1), stride)) if block == 0 else nn.Identity()
            layers.append(Residual(body, first, drop_path_rate))
            inputs = outputs
    features, hidden = int(2.25 * inputs), round(2048 / 24 * width)
    layers += [*conv_norm(inputs, features, (1, 1, 1)), nn.ReLU(), nn.AdaptiveAvgPool3d(1)]
    layers += [nn.Conv3d(features, hidden, 1, bias=False), nn.ReLU(), Pooled(hidden, num_classes, drop_rate)]
    return PeerNetwork(*layers, in_channels=in_channels, width=width, num_classes=num_classes)
