"""The candidate operations of the paper (section 3.1, figure 3), each declared once.

Every operation maps (N, C, T, H, W) to (N, C, T, ceil(H/stride), ceil(W/stride)); time is never strided. What the paper
leaves open follows DARTS (Liu, Simonyan, Yang, 2019): ReLU - convolution - BN, separable convolutions applied twice,
identity at stride 2 as a factorised reduction.

To add one, write a function that builds it and put ``register_operation`` above it; nothing else has to know. It then
has a column in alpha, is searched, derived, trained, counted (its Conv3d and Linear layers), drawn and reported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from pvnas.space.layers import FactorizedReduction, Layers, Rectified

SETS = ("spatial", "temporal")
ZERO = "zero"
SPATIAL_KERNEL, SPATIAL_PADDING = (1, 3, 3), (0, 1, 1)


class Builder(Protocol):
    """Builds an operation of ``channels`` channels in and out; ``affine``: BN with parameters (derived networks)."""

    def __call__(self, channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module: ...


@dataclass(frozen=True)
class Operation:
    """A candidate operation."""

    name: str
    """What genotypes call it."""
    sets: tuple[str, ...]
    """The operation sets that it belongs to: spatial cells choose from ``spatial``, temporal ones from ``temporal``."""
    has_parameters: bool
    """At stride 1. The search watches how many operations without parameters it keeps."""
    norm_in_search: bool
    """Whether the supernet puts a BN without parameters behind it, as DARTS does behind pooling."""
    label: str
    """What figures call it."""
    colour: str
    """That figures draw it in, as matplotlib names it; empty: one that they choose."""
    build: Builder


_OPERATIONS: dict[str, Operation] = {}


def register_operation(
    name: str,
    *,
    sets: tuple[str, ...] = SETS,
    has_parameters: bool = True,
    norm_in_search: bool | None = None,
    label: str = "",
    colour: str = "",
) -> Callable[[Builder], Builder]:
    """Add the operation that the decorated function builds to the end of operation sets, see ``Operation``.

    ``norm_in_search`` defaults to operations without parameters. Raises ValueError where the name is taken or a set is
    unknown.
    """
    if name in _OPERATIONS or not set(sets) <= set(SETS):
        raise ValueError(f"operation {name!r} in {sets}: the name is taken, or a set is not one of {SETS}")

    def registered(build: Builder) -> Builder:
        norm = not has_parameters if norm_in_search is None else norm_in_search
        _OPERATIONS[name] = Operation(name, sets, has_parameters, norm, label or name, colour, build)
        return build

    return registered


def unregister_operation(name: str) -> None:
    """Take an operation out of all sets. Genotypes and alphas that have it can no longer be read."""
    del _OPERATIONS[name]


def registered_operations() -> dict[str, Operation]:
    """Return all operations by name, in the order in which they were registered."""
    return dict(_OPERATIONS)


def operations_of(category: str) -> tuple[str, ...]:
    """Return the candidate operations of a cell category, in the order of the columns of alpha."""
    chosen_set = "temporal" if category.startswith("T-") else "spatial"
    return tuple(name for name, operation in _OPERATIONS.items() if chosen_set in operation.sets)


def is_parameter_free(name: str) -> bool:
    """Return whether an operation that a cell may keep has no parameters (at stride 1)."""
    return name != ZERO and not _OPERATIONS[name].has_parameters


def build_operation(name: str, channels: int, stride: int, layers: Layers, *, affine: bool = True) -> nn.Module:
    """Return an operation as a derived network has it."""
    return _OPERATIONS[name].build(channels, stride, layers, affine=affine)


def build_relaxed(name: str, channels: int, stride: int, layers: Layers) -> nn.Module:
    """Return an operation as the supernet has it: BN without parameters, one more behind poolings."""
    built = build_operation(name, channels, stride, layers, affine=False)
    norm = _OPERATIONS[name].norm_in_search
    return nn.Sequential(built, layers.norm(channels, affine=False)) if norm else built


# ---- the paper's operations


@register_operation("identity", has_parameters=False, norm_in_search=False, label="identity", colour="#5f6b7a")
def identity(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """The node itself; at stride 2 a factorised reduction."""
    return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, layers, affine=affine)


@register_operation(ZERO, has_parameters=False, norm_in_search=False, label="zero", colour="#5f6b7a")
def zero(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """Nothing: it takes its share of the softmax, adds nothing to a sum, so is never built, and is never kept."""
    raise ValueError("zero is never built")


@register_operation("avg_pool_1x3x3", has_parameters=False, label="avg pool 3×3", colour="#9a6700")
def average_pool(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """1x3x3 average pooling, which leaves padding out of its count."""
    return layers.avg_pool(SPATIAL_KERNEL, (1, stride, stride), SPATIAL_PADDING, count_include_pad=False)


@register_operation("max_pool_1x3x3", has_parameters=False, label="max pool 3×3", colour="#b4500f")
def max_pool(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """1x3x3 max pooling."""
    return layers.max_pool(SPATIAL_KERNEL, (1, stride, stride), SPATIAL_PADDING)


@register_operation("sep_conv_1x3x3", label="separable 3×3", colour="#1a6fc4")
def separable(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """(ReLU, depthwise 1x3x3, pointwise, BN) twice, the stride in the first."""
    first, second = (_separable(channels, s, 1, layers, affine) for s in (stride, 1))
    return Rectified(*first, *second)


@register_operation("dil_sep_conv_1x3x3", label="dilated sep. 3×3", colour="#0f7b83")
def dilated_separable(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """ReLU, depthwise 1x3x3 of dilation 2, pointwise, BN."""
    return Rectified(*_separable(channels, stride, 2, layers, affine))


@register_operation("temporal_conv_3+3x3", sets=("temporal",), label="temporal 3+3×3", colour="#bf3278")
def temporal_3x3(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """ReLU, 1x3x3, 3x1x1, BN."""
    return _temporal(channels, stride, 3, layers, affine)


@register_operation("temporal_conv_3+1x1", sets=("temporal",), label="temporal 3+1×1", colour="#8250df")
def temporal_1x1(channels: int, stride: int, layers: Layers, *, affine: bool) -> nn.Module:
    """ReLU, 1x1x1, 3x1x1, BN."""
    return _temporal(channels, stride, 1, layers, affine)


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


BUILT_IN = frozenset(_OPERATIONS)
"""Those above; others are registered by whoever wants more."""
