"""A plain hand-made video network: residual blocks of 1x3x3 and 3x1x1 convolutions.

The factorisation is that of Tran et al., "A closer look at spatiotemporal convolutions for action recognition" (2018).
It has no part of the search space but the kinds of layers. Legend: N clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.space.layers import FOLDED, to_channels_last
from pvnas.space.network import drop_path

STAGES = (1, 2, 4, 8)  # channels of each, in widths


def conv_norm(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, time_stride: int = 1
) -> nn.Sequential:
    """Return a convolution with strides in space and time, padded to keep sizes, and its BN."""
    padding, strides = tuple(k // 2 for k in kernel), (time_stride, stride, stride)
    conv = FOLDED.conv(inputs, outputs, kernel, stride=strides, padding=padding, bias=False)
    return nn.Sequential(conv, FOLDED.norm(outputs))


def factored(inputs: int, outputs: int, kernel: int, stride: int = 1, time_stride: int = 1) -> nn.Sequential:
    """Return a convolution in space, BN, ReLU, a convolution in time, BN, each with its stride."""
    space = conv_norm(inputs, outputs, (1, kernel, kernel), stride)
    return nn.Sequential(space, nn.ReLU(), conv_norm(outputs, outputs, (3, 1, 1), time_stride=time_stride))


class Block(nn.Module):
    """ReLU(factored convolution + shortcut): (N, C, T, H, W) to (N, C', T, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, drop_path_rate: float) -> None:
        super().__init__()
        self.body = factored(inputs, outputs, 3, stride)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, (1, 1, 1), stride)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + drop_path(self.body(x), self.drop_path_rate, self.training))


class ResidualNetwork(nn.Module):
    """A stem and four stages that each halve height and width, global mean, dropout, classifier.

    (N, in_channels, T, H, W) clips to (N, num_classes) scores; behind the stem time keeps its length.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        num_classes: int,
        in_channels: int = 3,
        time_stride: int = 1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        """``width``: channels of the first stage; ``depth``: blocks of each stage; ``time_stride``: of the stem."""
        super().__init__()
        self.width, self.in_channels, self.num_classes = width, in_channels, num_classes
        self.drop_rate = drop_rate
        self.stem = nn.Sequential(factored(in_channels, width, 5, 2, time_stride), nn.ReLU())
        blocks, inputs = [], width
        for outputs in (width * factor for factor in STAGES):
            for stride in (2, *[1] * (depth - 1)):
                blocks.append(Block(inputs, outputs, stride, drop_path_rate))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        x_NC = self.blocks(self.stem(to_channels_last(x_NCTHW))).mean((2, 3, 4))
        scores_NK: Tensor = self.classifier(F.dropout(x_NC, self.drop_rate, self.training))
        return scores_NK
