"""The convolutions of all edges that leave one node, computed together: few large kernels in place of many small ones.

Legend: N clips, T frames, F = N*T folded frames, C channels of an edge, k edges; their channels lie side by side (kC).

All edges that leave a node see the same ReLU(x). So a convolution of each is one convolution to k times the channels,
and whatever follows goes on in k groups: a depthwise convolution has groups anyway, a BN never mixes channels, and the
mixing weight of an edge is the scale of its part of the last BN. The parameters stay where the plain cell has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.space.layers import BatchNorm, fold_time, join_phases, split_phases, unfold_time

EdgeOperations = Sequence[Mapping[str, Any]]
"""Of each edge, its operations by name."""


def mixed_convolutions(
    edges: EdgeOperations, relu_x: Tensor, weights: Mapping[str, Tensor], stride: int
) -> tuple[Tensor, ...]:
    """Return for each of k edges the weighted sum (N, C, T, H', W') of its operations that have parameters.

    ``relu_x``: ReLU of the node's (N, C, T, H, W); ``weights``: softmax(alpha) of each operation, (k,) by name.
    """
    frames = relu_x.shape[2]
    r_FCHW = fold_time(relu_x)
    total: Tensor | None = None
    for name, operations in _by_name(edges).items():
        y_FCHW = COMPUTE[name](operations, r_FCHW, weights[name], stride, frames)
        total = y_FCHW if total is None else total.add_(y_FCHW)  # no backward pass reads a BN's output
    assert total is not None
    return tuple(unfold_time(part, frames) for part in total.chunk(len(edges), 1))


def _by_name(edges: EdgeOperations) -> dict[str, list[Any]]:
    return {name: [operations[name] for operations in edges] for name in edges[0]}


def batch_norm(x_FCHW: Tensor, norms: Sequence[BatchNorm], scale_k: Tensor | None = None) -> Tensor:
    """Return BN of (F, kC, H, W), the channels of one norm after another, each times its scale where one is given.

    Running statistics move as those of the single norms would.
    """
    first = norms[0]
    # Copied: PyTorch's channels-last backward reads an expanded weight as if it lay dense in memory.
    weight = None if scale_k is None else scale_k.repeat_interleave(first.num_features)
    momentum = first.momentum or 0.0
    if first.training and momentum == 0.0:  # the alpha step: nothing is remembered
        return F.batch_norm(x_FCHW, None, None, weight, None, True, 0.0, first.eps)
    statistics = [[norm.running_mean for norm in norms], [norm.running_var for norm in norms]]
    mean, var = (torch.cat(parts) for parts in statistics)  # type: ignore[arg-type]
    y_FCHW = F.batch_norm(x_FCHW, mean, var, weight, None, first.training, momentum, first.eps)
    if first.training:
        for parts, value in zip(statistics, (mean, var), strict=True):
            torch._foreach_copy_(parts, list(value.chunk(len(norms))))  # type: ignore[arg-type]
    return y_FCHW


def _weights(layers: Sequence[Any]) -> Tensor:
    """Return the 3-D kernels of k layers, one after another along the output channels."""
    return torch.cat([layer.weight for layer in layers])


def _spatial(layers: Sequence[Any]) -> Tensor:
    return _weights(layers).squeeze(2)


def _repeated(x_FCHW: Tensor, k: int) -> Tensor:
    """Return the channels k times over. Joined, since that is a few times faster than repeated."""
    return torch.cat([x_FCHW] * k, 1) if k > 1 else x_FCHW


def _depthwise(x_FCHW: Tensor, layers: Sequence[Any], stride: int = 1) -> Tensor:
    """A 3x3 depthwise convolution of (F, kC, H, W)."""
    return F.conv2d(x_FCHW, _spatial(layers), None, stride, 1, 1, x_FCHW.shape[1])


def _pointwise(x_FCHW: Tensor, layers: Sequence[Any]) -> Tensor:
    """A 1x1 convolution of each edge's own channels."""
    return F.conv2d(x_FCHW, _spatial(layers), groups=len(layers))


def _separable(operations: Sequence[Any], r_FCHW: Tensor, scale_k: Tensor, stride: int, frames: int) -> Tensor:
    _, depthwise1, pointwise1, norm1, _, depthwise2, pointwise2, norm2 = zip(*operations, strict=True)
    y = _depthwise(_repeated(r_FCHW, len(operations)), depthwise1, stride)
    y = batch_norm(_pointwise(y, pointwise1), norm1).relu_()  # BN's backward pass does not read its output
    return batch_norm(_pointwise(_depthwise(y, depthwise2), pointwise2), norm2, scale_k)


def _dilated_separable(operations: Sequence[Any], r_FCHW: Tensor, scale_k: Tensor, stride: int, frames: int) -> Tensor:
    """At stride 2 every tap falls on an even pixel; at stride 1 the four phases of the pixels keep to themselves."""
    _, depthwise, pointwise, norm = zip(*operations, strict=True)
    k = len(operations)
    if stride == 2:
        y = _depthwise(_repeated(r_FCHW[:, :, ::2, ::2], k), depthwise)
    else:
        y = _depthwise(_repeated(split_phases(r_FCHW), k), depthwise)
        y = join_phases(y, r_FCHW.shape[0], *r_FCHW.shape[2:])
    return batch_norm(_pointwise(y, pointwise), norm, scale_k)


def _temporal(operations: Sequence[Any], r_FCHW: Tensor, scale_k: Tensor, stride: int, frames: int) -> Tensor:
    """ReLU, 1xkxk, 3x1x1, BN: the first convolution is dense and has the same input for all edges."""
    _, spatial, temporal, norm = zip(*operations, strict=True)
    padding = int(spatial[0].padding[1])
    if padding == 0 and stride == 2:
        r_FCHW, stride = r_FCHW[:, :, ::2, ::2], 1
    y_NCTHW = unfold_time(F.conv2d(r_FCHW, _spatial(spatial), None, stride, padding), frames)
    weight = _weights(temporal).squeeze(-1)
    y_NCTP = F.conv2d(y_NCTHW.flatten(3), weight, None, 1, (1, 0), 1, len(operations))
    return batch_norm(fold_time(y_NCTP.unflatten(3, y_NCTHW.shape[3:])), norm, scale_k)


def _factorized_reduction(
    operations: Sequence[Any], r_FCHW: Tensor, scale_k: Tensor, stride: int, frames: int
) -> Tensor:
    """The halves of all edges at once; then each edge's two halves are put side by side."""
    h, w = r_FCHW.shape[2:]
    odd_FCHW = F.pad(r_FCHW[:, :, 1:, 1:], (0, w % 2, 0, h % 2)) if h % 2 or w % 2 else r_FCHW[:, :, 1:, 1:]
    halves = [
        F.conv2d(x[:, :, ::2, ::2], _spatial(layers)).permute(0, 2, 3, 1).unflatten(3, (len(operations), -1))
        for x, layers in ((r_FCHW, [o.even for o in operations]), (odd_FCHW, [o.odd for o in operations]))
    ]
    y_FHWC = torch.cat(halves, 4).flatten(3)
    return batch_norm(y_FHWC.permute(0, 3, 1, 2), [o.norm for o in operations], scale_k)


Compute = Callable[[Sequence[Any], Tensor, Tensor, int, int], Tensor]
COMPUTE: dict[str, Compute] = {
    "identity": _factorized_reduction,
    "sep_conv_1x3x3": _separable,
    "dil_sep_conv_1x3x3": _dilated_separable,
    "temporal_conv_3+3x3": _temporal,
    "temporal_conv_3+1x1": _temporal,
}
