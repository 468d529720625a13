"""Three published video networks, written here to be measured beside ours: R(2+1)D-18, SlowOnly-R50 and X3D-M.

Randomly initialised; every size follows the paper it comes from, and ``PEERS`` names the parameters and
multiply-accumulates that the papers or their authors' code state (``tests/benchmarks/test_peer_networks.py`` checks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derived_network import measure_network
from pvnas.bench.roofline import answer


@dataclass(frozen=True)
class Peer:
    """A network, the clip that it was published for, and what was published of it."""

    build: Callable[[], nn.Module]
    clip: tuple[int, int, int]
    params: float
    """In millions."""
    gmacs: float
    """Of one view."""
    accuracy: str
    source: str


def conv_norm(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution with spatial stride, padded to keep sizes, and its BN."""
    padding = tuple(k // 2 for k in kernel)
    conv = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm3d(outputs)]


class Residual(nn.Module):
    """ReLU(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Pooled(nn.Module):
    """Average over time and space, then a classifier."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(x.mean((2, 3, 4)))
        return scores


# ---- R(2+1)D-18 (Tran et al., "A closer look at spatiotemporal convolutions for action recognition", 2018)


def factored(inputs: int, outputs: int, between: int, stride: int) -> list[nn.Module]:
    """A 3x3x3 convolution as 1x3x3, BN, ReLU, 3x1x1; the stride is in space and in time."""
    spatial = nn.Conv3d(inputs, between, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    temporal = nn.Conv3d(between, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
    return [spatial, nn.BatchNorm3d(between), nn.ReLU(), temporal]


def r2plus1d_18(classes: int = 400) -> nn.Module:
    """Return R(2+1)D with 18 layers."""
    layers = [*conv_norm(3, 45, (1, 7, 7), 2), nn.ReLU(), *conv_norm(45, 64, (3, 1, 1)), nn.ReLU()]
    width = 64
    for outputs, first_stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first_stride, 1):
            between = (width * outputs * 27) // (width * 9 + 3 * outputs)  # as many parameters as 3x3x3 would have
            body = nn.Sequential(
                *factored(width, outputs, between, stride),
                nn.BatchNorm3d(outputs),
                nn.ReLU(),
                *factored(outputs, outputs, between, 1),
                nn.BatchNorm3d(outputs),
            )
            shortcut: nn.Module = nn.Identity()
            if stride != 1 or width != outputs:
                conv = nn.Conv3d(width, outputs, 1, stride, bias=False)
                shortcut = nn.Sequential(conv, nn.BatchNorm3d(outputs))
            layers.append(Residual(body, shortcut))
            width = outputs
    return nn.Sequential(*layers, Pooled(width, classes))


# ---- SlowOnly-R50: the slow pathway of SlowFast alone (Feichtenhofer et al., 2019, table 1)


def slowonly_r50(classes: int = 400) -> nn.Module:
    """Return the slow pathway with 50 layers."""
    layers = [*conv_norm(3, 64, (1, 7, 7), 2), nn.ReLU(), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))]
    width = 64
    for inner, blocks, first_kernel, first_stride in ((64, 3, 1, 1), (128, 4, 1, 2), (256, 6, 3, 2), (512, 3, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            body = nn.Sequential(
                *conv_norm(width, inner, (first_kernel, 1, 1)),
                nn.ReLU(),
                *conv_norm(inner, inner, (1, 3, 3), stride),
                nn.ReLU(),
                *conv_norm(inner, 4 * inner, (1, 1, 1)),
            )
            shortcut = nn.Sequential(*conv_norm(width, 4 * inner, (1, 1, 1), stride)) if block == 0 else nn.Identity()
            layers.append(Residual(body, shortcut))
            width = 4 * inner
    return nn.Sequential(*layers, Pooled(width, classes))


# ---- X3D-M (Feichtenhofer, "X3D: Expanding architectures for efficient video recognition", 2020)


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


def x3d_m(classes: int = 400) -> nn.Module:
    """Return X3D-M."""
    layers: list[nn.Module] = [nn.Conv3d(3, 24, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)]
    layers += [*conv_norm(24, 24, (5, 1, 1), groups=24), nn.ReLU()]
    width = 24
    for outputs, blocks in ((24, 3), (48, 5), (96, 11), (192, 7)):
        inner = int(2.25 * outputs)
        for block in range(blocks):
            stride = 2 if block == 0 else 1
            body = nn.Sequential(
                *conv_norm(width, inner, (1, 1, 1)),
                nn.ReLU(),
                *conv_norm(inner, inner, (3, 3, 3), stride, groups=inner),
                SqueezeExcitation(inner) if block % 2 == 0 else nn.Identity(),
                nn.SiLU(),
                *conv_norm(inner, outputs, (1, 1, 1)),
            )
            shortcut = nn.Sequential(*conv_norm(width, outputs, (1, 1, 1), stride)) if block == 0 else nn.Identity()
            layers.append(Residual(body, shortcut))
            width = outputs
    features = int(2.25 * width)
    layers += [*conv_norm(width, features, (1, 1, 1)), nn.ReLU(), nn.AdaptiveAvgPool3d(1)]
    layers += [nn.Conv3d(features, 2048, 1, bias=False), nn.ReLU(), Pooled(2048, classes)]
    return nn.Sequential(*layers)


PEERS = {
    "R(2+1)D-18": Peer(
        r2plus1d_18, (16, 112, 112), 31.51, 40.52, "57.5 / 78.8, one clip", "torchvision 0.13, documentation"
    ),
    "SlowOnly-R50": Peer(slowonly_r50, (8, 224, 224), 32.45, 41.74, "74.8 / 91.6, 30 views", "PySlowFast's model zoo"),
    "X3D-M": Peer(x3d_m, (16, 224, 224), 3.79, 4.73, "76.2 / -, 30 views", "PySlowFast's model zoo"),
}
"""By name. Accuracy is top-1 / top-5 on Kinetics-400, percent, as its source states it. SlowOnly's multiply-accumulates
are its published 54.52 G at 256 pixels, at 224."""


def measure(
    variant: str,
    batch: int,
    device: str,
    precision: str,
    threads: int,
    training: bool,
    repeats: int,
    count: bool,
    clip: Sequence[int] = (),
) -> dict[str, Any]:
    """Measure one network at its published clip, or another, as ``derived_network.py`` measures ours."""
    torch.set_num_threads(threads)
    peer = PEERS[variant]
    torch.manual_seed(0)
    network = peer.build().to(device)
    network.train(training)
    size = (batch, 3, *(clip or peer.clip))
    return measure_network(network, size, device, precision, training=training, repeats=repeats, count=count)


if __name__ == "__main__":
    answer(measure)
