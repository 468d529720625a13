"""A relaxed cell whose edges share what they can, with its backward pass written out.

Legend: N clips, T frames, F = N*T folded frames, C channels of the cell, k edges that leave one node, n operations
without parameters, E = 14 edges, O operations.

The same sum as ``supernet.PlainCell``, gathered by the node that edges leave:
- they share the node's ReLU, its pooling and the pooling's BN, since none has parameters;
- operations with parameters run over several edges at once (``branches``);
- the mixing weight of an edge rides on the scale of its operation's last BN; zero costs nothing;
- operations without parameters are mixed by one product of matrices;
- every sum is made in place in the cell's output, of which the nodes are parts: nothing is joined in the end.

Autograd sees one function. What it would keep of a cell is several times what the backward pass needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pvnas.space.branches import BRANCHES, Fan, Input, Kept, Kernels
from pvnas.space.genotype import EDGES, INPUTS, NODES, PARAMETER_FREE, ZERO, is_reduction, operations_of
from pvnas.space.layers import FOLDED, BatchNorm, fold_time, unfold_time
from pvnas.space.layout import CellPlace
from pvnas.space.norms import NormState, norm_backward, norm_forward
from pvnas.space.operations import build_operation, cell_inputs

POOLINGS = ("avg_pool_1x3x3", "max_pool_1x3x3")
# Edges run together while one tensor of theirs stays below this, about what a core's caches hold: small edges are
# mostly the cost of calls, large ones run fastest alone. On a GPU a call costs more and caches do not matter.
ELEMENTS_TOGETHER = {"cpu": 2**19, "cuda": 2**62}


def edge_stride(category: str, source: int) -> int:
    """Return the spatial stride of an edge: 2 where a reduction cell's edge leaves one of its two inputs."""
    return 2 if is_reduction(category) and source < INPUTS else 1


class SharedCell(nn.Module):
    """Two inputs and mixing weights (E, O) to the cell's output, (N, 4C, T, H', W')."""

    def __init__(self, place: CellPlace) -> None:
        super().__init__()
        self.operations = operations_of(place.category)
        self.input0, self.input1 = cell_inputs(
            place.channels_before, place.channels, place.reduced_before, FOLDED, affine=False
        )
        strides = [edge_stride(place.category, source) for source in range(INPUTS + NODES - 1)]
        self.edges = nn.ModuleList(
            _build(self._branches(strides[source]), place.channels, strides[source]) for _, source in EDGES
        )
        self.pools = nn.ModuleList(_build(POOLINGS, place.channels, stride) for stride in strides)
        self.sources = [_Source(self, number, stride) for number, stride in enumerate(strides)]

    def _branches(self, stride: int) -> list[str]:
        """The operations of an edge that have parameters."""
        own = [name for name in self.operations if name not in PARAMETER_FREE | {ZERO}]
        return own if stride == 1 else ["identity", *own]

    def forward(self, x0: Tensor, x1: Tensor, weights_EO: Tensor) -> Tensor:
        """Return the (N, 4C, T, H', W') of the cell at these mixing weights."""
        kernels = [kernel for source in self.sources for kernel in source.kernels()]
        y: Tensor = _CellFunction.apply(self, self.input0(x0), self.input1(x1), weights_EO, *kernels)  # type: ignore[no-untyped-call]
        return y


def _build(names: Sequence[str], channels: int, stride: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {name: build_operation(name, channels, stride, FOLDED, affine=False, pool_norm=True) for name in names}
    )


class _Edges(NamedTuple):
    """Neighbouring edges that leave one node, with all that they compute by."""

    first: int
    """Among the node's edges."""
    kernels: dict[str, Kernels]
    fan: Fan

    @property
    def part(self) -> slice:
        return slice(self.first, self.first + self.fan.edges)

    def channels(self, width: int) -> slice:
        return slice(self.first * width, (self.first + self.fan.edges) * width)


class _KeptBranch(NamedTuple):
    kept: Kept
    x_FCHW: Tensor
    """Input of the last BN."""
    state: NormState


class _KeptFree(NamedTuple):
    rows_nM: Tensor
    """Outputs of the operations without parameters, M = F*H'*W'*C."""
    states: tuple[NormState, NormState]
    indices: Tensor
    """Of the maxima."""


class _KeptSource(NamedTuple):
    free: _KeptFree
    groups: list[tuple[_Edges, dict[str, _KeptBranch]]]


class _Source:
    """What leaves one node: forward adds to the sums of the later nodes, backward to the gradient of this one."""

    def __init__(self, cell: SharedCell, number: int, stride: int) -> None:
        self.number, self.stride = number, stride
        self.leaving = [edge for edge, (_, source) in enumerate(EDGES) if source == number]
        edges: list[Any] = [cell.edges[edge] for edge in self.leaving]
        pools: Any = cell.pools[number]
        self.names = list(edges[0])
        self.free = [*POOLINGS, *(["identity"] if "identity" not in self.names else [])]
        self.columns = {name: column for column, name in enumerate(cell.operations)}
        # By operation, then by place in it, then by edge. Gathered once: a walk over modules costs more than a kernel.
        self.convolutions = {name: _by_place([edge[name] for edge in edges], nn.Conv3d) for name in self.names}
        self.norms = {name: _by_place([edge[name] for edge in edges], BatchNorm) for name in self.names}
        self.pool_norms: list[BatchNorm] = [pools[name][1] for name in POOLINGS]

    def kernels(self) -> list[Tensor]:
        """Return the kernels by operation, by place in it, by edge."""
        return [layer.weight for places in self.convolutions.values() for layers in places for layer in layers]

    # ---- forward

    def forward(
        self, x_FCHW: Tensor, sums_FCHW: Tensor, weights_EO: Tensor, kernels: list[Tensor], fan: Fan
    ) -> _KeptSource:
        """Add this node's (F, C, H, W) through all operations to the later nodes' sums, (F, kC, H', W')."""
        weights_kO = weights_EO[self.leaving]
        free = self._add_free(x_FCHW, sums_FCHW, weights_kO)
        groups = []
        r_FCHW = x_FCHW.clamp_min(0)
        for edges in self._groups(kernels, fan, sums_FCHW):
            own_FCHW = sums_FCHW[:, edges.channels(x_FCHW.shape[1])]
            groups.append((edges, self._add_branches(edges, r_FCHW, own_FCHW, weights_kO[edges.part])))
        return _KeptSource(free, groups)

    def _groups(self, kernels: list[Tensor], fan: Fan, sums_FCHW: Tensor) -> Iterator[_Edges]:
        """Yield the edges in groups that run together, with their kernels joined."""
        k = len(self.leaving)
        size = max(1, min(k, ELEMENTS_TOGETHER.get(sums_FCHW.device.type, 2**62) * k // sums_FCHW.numel()))
        rest = iter(kernels)
        places = {name: [[next(rest) for _ in layers] for layers in self.convolutions[name]] for name in self.names}
        for first in range(0, k, size):
            part = slice(first, first + size)
            joined = {name: [_joined(place[part], sums_FCHW.dtype) for place in places[name]] for name in self.names}
            yield _Edges(first, joined, Fan(min(size, k - first), self.stride, fan.frames, fan.kernel_gradients))

    def _add_branches(
        self, edges: _Edges, r_FCHW: Tensor, sums_FCHW: Tensor, weights_kO: Tensor
    ) -> dict[str, _KeptBranch]:
        found = {}
        inputs = Input(r_FCHW, edges.fan)
        for name in self.names:
            *within, last = [layers[edges.part] for layers in self.norms[name]]
            norms = within[0] if within else []
            x_FCHW, kept = BRANCHES[name].forward(inputs, edges.kernels[name], norms)
            y_FCHW, state = norm_forward(x_FCHW, last, weights_kO[:, self.columns[name]])
            sums_FCHW.add_(y_FCHW)
            found[name] = _KeptBranch(kept, x_FCHW, state)
        return found

    def _add_free(self, x_FCHW: Tensor, sums_FCHW: Tensor, weights_kO: Tensor) -> _KeptFree:
        """Poolings with BN, and identity at stride 1."""
        stride = self.stride
        average = F.avg_pool2d(x_FCHW, 3, stride, 1, count_include_pad=False)
        largest, indices = F.max_pool2d_with_indices(x_FCHW, 3, stride, 1)
        pooled = [norm_forward(y, [norm]) for y, norm in zip((average, largest), self.pool_norms, strict=True)]
        outputs = [y for y, _ in pooled] + ([x_FCHW] if "identity" in self.free else [])
        rows_nM = torch.stack([_row(y) for y in outputs])
        mixed_kM = self._free_weights(weights_kO, rows_nM.dtype) @ rows_nM
        _edges_first(sums_FCHW, len(self.leaving)).add_(mixed_kM.view(len(self.leaving), -1, x_FCHW.shape[1]))
        return _KeptFree(rows_nM, (pooled[0][1], pooled[1][1]), indices)

    def _free_weights(self, weights_kO: Tensor, dtype: torch.dtype) -> Tensor:
        return weights_kO[:, [self.columns[name] for name in self.free]].to(dtype)

    # ---- backward

    def backward(
        self,
        gradient_FCHW: Tensor,
        x_FCHW: Tensor,
        weights_EO: Tensor,
        kept: _KeptSource,
        d_weights_EO: Tensor | None,
        of_input: bool,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for this node and its kernels, from that of the later nodes' sums (F, kC, H', W').

        The gradient for the mixing weights goes into ``d_weights_EO`` where there is one. ``of_input`` False: nothing
        else is wanted.
        """
        weights_kO = weights_EO[self.leaving]
        d_weights_kO = None if d_weights_EO is None else torch.zeros_like(weights_kO)
        r_FCHW = x_FCHW.clamp_min(0)
        dr_FCHW = torch.zeros_like(r_FCHW) if of_input else None
        kernels: dict[tuple[str, int], list[Tensor | None]] = {}
        while kept.groups:  # what has been used is given back at once
            edges, branches = kept.groups.pop(0)
            part, inputs = edges.part, Input(r_FCHW, edges.fan)
            own_FCHW = _dense(gradient_FCHW[:, edges.channels(x_FCHW.shape[1])])
            for name in self.names:
                branch, scale_k = branches.pop(name), weights_kO[part, self.columns[name]]
                of_scale = d_weights_kO is not None
                g, d_scale = norm_backward(
                    own_FCHW, branch.x_FCHW, branch.state, scale_k, of_input=of_input, of_scale=of_scale
                )
                if d_weights_kO is not None:
                    d_weights_kO[part, self.columns[name]] = d_scale
                d_kernels: Sequence[Tensor | None] = [None] * len(edges.kernels[name])
                if dr_FCHW is not None:
                    found = BRANCHES[name].backward(g, inputs, edges.kernels[name], branch.kept)
                    dr_FCHW += found.r_FCHW
                    d_kernels = found.kernels
                for place, d_kernel in enumerate(d_kernels):
                    parts = [None] * edges.fan.edges if d_kernel is None else d_kernel.chunk(edges.fan.edges)
                    kernels.setdefault((name, place), []).extend(parts)
        if dr_FCHW is not None:  # now of x, past the ReLU
            torch.ops.aten.threshold_backward.grad_input(dr_FCHW, r_FCHW, 0, grad_input=dr_FCHW)
        self._free_backward(gradient_FCHW, x_FCHW, weights_kO, kept.free, dr_FCHW, d_weights_kO)
        if d_weights_EO is not None:
            d_weights_EO[self.leaving] = d_weights_kO
        return dr_FCHW, [d_kernel for parts in kernels.values() for d_kernel in parts]

    def _free_backward(
        self,
        gradient_FCHW: Tensor,
        x_FCHW: Tensor,
        weights_kO: Tensor,
        kept: _KeptFree,
        dx_FCHW: Tensor | None,
        d_weights_kO: Tensor | None,
    ) -> None:
        """Add the gradient of the operations without parameters to ``dx_FCHW`` and to ``d_weights_kO``."""
        k, c = len(self.leaving), x_FCHW.shape[1]
        g_kM = _edges_first(gradient_FCHW, k).reshape(k, -1)
        if d_weights_kO is not None:
            columns = [self.columns[name] for name in self.free]
            d_weights_kO[:, columns] = (g_kM @ kept.rows_nM.t()).to(d_weights_kO.dtype)
        if dx_FCHW is None:
            return
        rows_nM = self._free_weights(weights_kO, g_kM.dtype).t() @ g_kM
        f, _, h, w = gradient_FCHW.shape
        gradients, outputs = (
            [row.view(f, h, w, c).permute(0, 3, 1, 2) for row in rows] for rows in (rows_nM, kept.rows_nM)
        )
        average, largest = (
            _normalised_backward(g, y, state)
            for g, y, state in zip(gradients[:2], outputs[:2], kept.states, strict=True)
        )
        stride = self.stride
        window = ([3, 3], [stride, stride], [1, 1])
        dx_FCHW += torch.ops.aten.avg_pool2d_backward(average, x_FCHW, *window, False, False, None)
        dx_FCHW += torch.ops.aten.max_pool2d_with_indices_backward(
            largest, x_FCHW, *window, [1, 1], False, kept.indices
        )
        if "identity" in self.free:
            dx_FCHW += gradients[2]


def _normalised_backward(gradient: Tensor, y: Tensor, state: NormState) -> Tensor:
    """Return BN's gradient for its input from its output: the input of another BN, of mean 0 and deviation 1.

    Where y = (x - m) / s, the gradient is that of y through its own normalisation, times 1 / s.
    """
    if state.running is not None:
        inverse_std = torch.rsqrt(state.running[1] + state.eps).to(gradient.dtype)
        return gradient * inverse_std.view(-1, 1, 1)
    own = NormState(torch.zeros_like(state.mean), torch.ones_like(state.inverse_std), None, state.eps)
    dx, _, _ = torch.ops.aten.native_batch_norm_backward(
        gradient, y, state.inverse_std, None, None, own.mean, own.inverse_std, True, own.eps, [True, False, False]
    )
    return dx


class _CellFunction(torch.autograd.Function):
    """x0 and x1 (N, C, T, H, W) at the cell's width, mixing weights and all kernels to the cell's output."""

    @staticmethod
    def forward(ctx: Any, cell: SharedCell, x0: Tensor, x1: Tensor, weights_EO: Tensor, *parameters: Tensor) -> Tensor:
        n, c, frames, h, w = x0.shape
        stride = cell.sources[0].stride
        h, w = -(-h // stride), -(-w // stride)
        sums_FCHW = x0.new_zeros(n * frames, h, w, NODES * c).permute(0, 3, 1, 2)
        fan = Fan(0, 1, frames, kernel_gradients=any(ctx.needs_input_grad[4:]))
        rest, kept = list(parameters), []
        states = [_dense(fold_time(x0)), _dense(fold_time(x1))]
        with torch.autocast(x0.device.type, enabled=False):
            for source in cell.sources:
                number = len(source.kernels())
                own, rest = rest[:number], rest[number:]
                later = (NODES - len(source.leaving)) * c
                kept.append(
                    source.forward(
                        _state(states, sums_FCHW, source.number, c), sums_FCHW[:, later:], weights_EO, own, fan
                    )
                )
        y = unfold_time(sums_FCHW, frames)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x0, x1, weights_EO, y)
            ctx.cell, ctx.kept = cell, kept
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x0, x1, weights_EO, y = ctx.saved_tensors
        cell: SharedCell = ctx.cell
        c, frames = x0.shape[1], x0.shape[2]
        states = [_dense(fold_time(x0)), _dense(fold_time(x1))]
        sums_FCHW = fold_time(y)
        # A copy, since the nodes' gradients are added to it.
        g_FCHW = (
            fold_time(gradient).permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)
        )
        d_weights_EO = torch.zeros_like(weights_EO) if ctx.needs_input_grad[3] else None
        d_inputs: list[Tensor | None] = [None, None]
        d_parameters: list[Tensor | None] = []
        for source in reversed(cell.sources):
            later = (NODES - len(source.leaving)) * c
            number = source.number
            of_input = number >= INPUTS or ctx.needs_input_grad[1 + number] or any(ctx.needs_input_grad[4:])
            x_FCHW = _state(states, sums_FCHW, number, c)
            dx_FCHW, d_source = source.backward(
                g_FCHW[:, later:], x_FCHW, weights_EO, ctx.kept.pop(), d_weights_EO, of_input
            )
            d_parameters = d_source + d_parameters
            if number < INPUTS:
                d_inputs[number] = None if dx_FCHW is None else unfold_time(dx_FCHW, frames)
            elif dx_FCHW is not None:
                _part(g_FCHW, source.number, c).add_(dx_FCHW)
        parameters = [kernel for source in cell.sources for kernel in source.kernels()]
        d_kernels = [_as_parameter(d, kernel) for d, kernel in zip(d_parameters, parameters, strict=True)]
        return None, *d_inputs, d_weights_EO, *d_kernels


def _state(inputs: list[Tensor], sums_FCHW: Tensor, number: int, channels: int) -> Tensor:
    """Return the (F, C, H, W) of a node, dense: an input, or its part of the sums."""
    if number < INPUTS:
        return inputs[number]
    return _dense(_part(sums_FCHW, number, channels))


def _part(sums_FCHW: Tensor, number: int, channels: int) -> Tensor:
    """Return a view of an intermediate node's part of the sums."""
    return sums_FCHW[:, (number - INPUTS) * channels : (number - INPUTS + 1) * channels]


def _as_parameter(gradient: Tensor | None, kernel: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.reshape(kernel.shape).to(kernel.dtype)


def _dense(x_FCHW: Tensor) -> Tensor:
    return x_FCHW.contiguous(memory_format=torch.channels_last)


def _joined(kernels: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return 3-D kernels (C, ., 1, kh, kw) or (C, ., kt, 1, 1) one after another, as 2-D ones."""
    joined = kernels[0] if len(kernels) == 1 else torch.cat(list(kernels))
    return (joined.squeeze(2) if joined.shape[2] == 1 else joined.squeeze(-1)).to(dtype)


def _by_place(operations: Sequence[nn.Module], kind: type[nn.Module]) -> list[list[Any]]:
    """Return the layers of a kind in some equal operations: by place in the operation, then by operation."""
    layers = [[layer for layer in operation.modules() if isinstance(layer, kind)] for operation in operations]
    return [list(place) for place in zip(*layers, strict=True)]


def _row(x_FCHW: Tensor) -> Tensor:
    return x_FCHW.permute(0, 2, 3, 1).flatten()


def _edges_first(x_FCHW: Tensor, k: int) -> Tensor:
    """Return a view (k, F*H*W, C) of k edges side by side, (F, kC, H, W)."""
    f, c, h, w = x_FCHW.shape
    return x_FCHW.permute(0, 2, 3, 1).view(f * h * w, k, c // k).permute(1, 0, 2)
