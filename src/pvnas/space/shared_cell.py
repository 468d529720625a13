"""A relaxed cell whose edges share what they can, with its backward pass written out.

Legend: N clips, T frames, F = N*T folded frames, C channels of the cell, E = 14 edges, O operations.

The same sum as ``supernet.PlainCell``, gathered by the node that edges leave (``nodes``):
- they share the node's ReLU, its pooling and the pooling's BN, since none has parameters;
- operations with parameters run over several edges at once (``branches``);
- the mixing weight of an edge rides on the scale of its operation's last BN; zero costs nothing;
- operations without parameters are mixed by one product of matrices;
- every sum is made in place, node by node, and BN's outputs are added without being made (``norms``).

Autograd sees one function. What it would keep of a cell is several times what the backward pass needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pvnas.space.branches import Fan
from pvnas.space.free import POOLINGS
from pvnas.space.fused import fused_way
from pvnas.space.genotype import EDGES, INPUTS, NODES, PARAMETER_FREE, ZERO, is_reduction, operations_of
from pvnas.space.kernels import kernels_for
from pvnas.space.layers import FOLDED, fold_time, unfold_time
from pvnas.space.layout import CellPlace
from pvnas.space.mixing import Mixing, MixingGradient
from pvnas.space.nodes import Entry, FoundInput, FoundInStep, KeptEntry, KeptSource, Source, Way
from pvnas.space.norms import Moments
from pvnas.space.operations import build_relaxed, cell_inputs
from pvnas.space.sums import NodeGradients, Sums, dense


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
            build_relaxed(self._branches(strides[source]), place.channels, strides[source], FOLDED)
            for _, source in EDGES
        )
        self.pools = nn.ModuleList(build_relaxed(POOLINGS, place.channels, stride, FOLDED) for stride in strides)
        self.moves_statistics = True
        """Whether a forward pass in training mode moves BN's running statistics."""
        self.checkpointed = False
        """Whether a forward pass keeps nothing and the backward pass makes it once more."""
        self.step: FoundInStep | None = None
        """What the two passes of a search step share, see ``supernet.shared_passes``."""
        self.entries = [Entry(self.input0), Entry(self.input1)]
        self.sources = [self._source(number, stride) for number, stride in enumerate(strides)]
        self._ways: dict[Any, Way] = {None: Way(self.entries, self.sources, Sums, NodeGradients, dense)}

    def _source(self, number: int, stride: int) -> Source:
        leaving = [edge for edge, (_, source) in enumerate(EDGES) if source == number]
        pools: Any = self.pools[number]
        return Source(self.operations, number, stride, [self.edges[edge] for edge in leaving], pools)

    def _branches(self, stride: int) -> list[str]:
        """The operations of an edge that have parameters."""
        own = [name for name in self.operations if name not in PARAMETER_FREE | {ZERO}]
        return own if stride == 1 else ["identity", *own]

    def forward(self, x0: Tensor, x1: Tensor, weights_EO: Tensor) -> Tensor:
        """Return the (N, 4C, T, H', W') of the cell at these mixing weights."""
        y: Tensor = _CellFunction.apply(self, x0, x1, weights_EO, *self.kernels())
        return y

    def kernels(self) -> list[Tensor]:
        """Return the kernels of both inputs and of all edges in the order of ``_CellFunction``."""
        return [kernel for part in self.parts() for kernel in part.kernels()]

    def way_of(self, x: Tensor) -> Way:
        """Return how the cell computes on such clips: with our own kernels, or with PyTorch's operations."""
        kernels = kernels_for(x)
        if kernels is not None and kernels not in self._ways:
            self._ways[kernels] = fused_way(kernels, self.entries, self.sources)
        return self._ways[kernels]

    def parts(self) -> list[Entry | Source]:
        """Return what owns kernels: both inputs, then the nodes that edges leave."""
        return [*self.entries, *self.sources]


class _CellFunction(torch.autograd.Function):
    """Outputs x0 and x1 of earlier cells, mixing weights and all kernels to the cell's output, as ``SharedCell``."""

    @staticmethod
    def forward(ctx: Any, cell: SharedCell, x0: Tensor, x1: Tensor, weights_EO: Tensor, *kernels: Tensor) -> Tensor:
        """Return the cell's output, (N, 4C, T, H', W')."""
        made = _Steps(cell, x0.shape[2], ctx.needs_input_grad).all(x0, x1, weights_EO, kernels)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x0, x1, weights_EO, made.y)
            ctx.cell, ctx.entered, ctx.kept = cell, made.entered, made.sources
        return made.y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients for all that ``forward`` takes. Raises RuntimeError the second time."""
        x0, x1, weights_EO, y = ctx.saved_tensors
        cell: SharedCell = ctx.cell
        if cell.checkpointed:
            steps = _Steps(cell, x0.shape[2], ctx.needs_input_grad, again=True)
            _, ctx.entered, ctx.kept = steps.all(x0, x1, weights_EO, cell.kernels())
        if not ctx.kept:
            raise RuntimeError(
                "the first backward pass has given a cell's tensors back; compute the forward pass again"
            )
        frames, channels = x0.shape[2], y.shape[1] // NODES
        way = cell.way_of(x0)
        gradients = way.gradients(fold_time(gradient))
        mixing = Mixing(weights_EO, channels)
        d_mixing = MixingGradient(weights_EO, channels) if ctx.needs_input_grad[3] else None

        def state_of(number: int) -> Tensor:
            """What a node holds, (F, C, H, W)."""
            if number < INPUTS:
                return way.entries[number].again(ctx.entered[number])
            return way.state(fold_time(y).chunk(NODES, 1)[number - INPUTS])

        d_inputs: list[Tensor | None] = [None, None]
        d_kernels: list[Tensor | None] = []
        for source in reversed(way.sources):
            number = source.number
            dx_FCHW, own = source.backward(gradients, state_of(number), mixing, ctx.kept.pop(), d_mixing)
            d_kernels = own + d_kernels
            if number < INPUTS:
                d_inputs[number] = dx_FCHW
            elif dx_FCHW is not None:
                gradients.add(number - INPUTS, dx_FCHW)
        for number, x in ((1, x1), (0, x0)):
            entry, dx_FCHW = way.entries[number], d_inputs[number]
            own = [None] * len(cell.entries[number].kernels())
            if dx_FCHW is not None:
                dx_FCHW, own = entry.backward(dx_FCHW, dense(fold_time(x)), ctx.entered[number])
                d_inputs[number] = unfold_time(dx_FCHW, frames)
            d_kernels = own + d_kernels
        d_weights_EO = None if d_mixing is None else d_mixing.total()
        return None, *d_inputs, d_weights_EO, *_as_parameters(d_kernels, cell.kernels())


class _Made(NamedTuple):
    """A forward pass: its output (N, 4C, T, H', W') and what the backward pass needs."""

    y: Tensor
    entered: list[KeptEntry]
    sources: list[KeptSource]


class _Steps:
    """The steps of one forward pass: made, or taken from the first pass of the same search step."""

    def __init__(self, cell: SharedCell, frames: int, needs: Sequence[bool], *, again: bool = False) -> None:
        """``needs``: which arguments of ``_CellFunction`` will be asked for their gradients.

        ``again``: in the backward pass of a checkpointed cell, the forward pass of which has kept nothing.
        """
        self.keeps = again or not cell.checkpointed
        self.cell, self.of_inputs, self.of_kernels = cell, needs[1 : 1 + INPUTS], any(needs[2 + INPUTS :])
        self.fan = Fan(1, 1, frames, kernel_gradients=self.of_kernels, input_gradient=True)
        self.moments = Moments() if cell.moves_statistics and not again else None
        self.takes = cell.step if self.of_kernels else None
        self.gives = cell.step if needs[1 + INPUTS] and not self.of_kernels else None
        self.given: dict[int, tuple[KeptEntry, Moments]] = {}

    def all(self, x0: Tensor, x1: Tensor, weights_EO: Tensor, kernels: Sequence[Tensor]) -> _Made:
        """Make the pass. The kernels are those of ``SharedCell.kernels``."""
        cell, rest = self.cell, iter(kernels)
        own = [[next(rest) for _ in part.kernels()] for part in cell.parts()]
        kept = []
        with torch.autocast(x0.device.type, enabled=False):
            entered = [self.enter(number, x, own[number]) for number, x in enumerate((x0, x1))]
            inputs = [x_FCHW for x_FCHW, _ in entered]
            way = cell.way_of(x0)
            sums = way.sums(inputs[0], cell.sources[0].stride, weights_EO.dtype)
            mixing = Mixing(weights_EO, inputs[0].shape[1])
            for source, some in zip(way.sources, own[INPUTS:], strict=True):
                number = source.number
                x_FCHW = inputs[number] if number < INPUTS else sums.complete(number - INPUTS)
                found = self.leave(source, x_FCHW, sums, mixing, some)
                if self.keeps:
                    kept.append(found)
            sums.complete(NODES - 1)
            if self.moments is not None:
                self.moments.move()
            y = unfold_time(sums.joined(), x0.shape[2])
        return _Made(y, [kept_entry for _, kept_entry in entered] if self.keeps else [], kept)

    def enter(self, number: int, x: Tensor, kernels: Sequence[Tensor]) -> tuple[Tensor, KeptEntry]:
        """Return an input as the cell's edges see it, and what its backward pass needs."""
        if self.takes is not None and number in self.takes.inputs:
            found = self.takes.inputs[number]
            if self.moments is not None:
                self.moments.extend(found.moments)
            return found.x_FCHW, found.entry.under(self.fan)
        moments = self.moments
        gives = self.gives is not None and not self.of_inputs[number]  # then alpha does not reach it
        if gives:
            moments = Moments()
        x_FCHW, kept = self.cell.way_of(x).entries[number].forward(dense(fold_time(x)), kernels, self.fan, moments)
        if gives and moments is not None:
            self.given[number] = (kept, moments)
        return x_FCHW, kept

    def leave(self, source: Any, x_FCHW: Tensor, sums: Any, mixing: Mixing, kernels: Sequence[Tensor]) -> KeptSource:
        """Add a node through its edges to the sums and return what the backward pass needs."""
        number = source.number
        if self.takes is not None and number in self.takes.inputs:
            self.takes.groups.pop(number)
            found = self.takes.inputs.pop(number)
            return source.forward_again(found.source, x_FCHW, sums, mixing, self.fan)
        asked = self.of_kernels or number >= INPUTS or self.of_inputs[number]
        fan = replace(self.fan, input_gradient=asked)
        if self.takes is not None and number in self.takes.groups:
            groups = [edges.under(fan) for edges in self.takes.groups.pop(number)]
        else:
            groups = source.grouped(kernels, fan, sums)
        if self.gives is not None:
            self.gives.groups[number] = groups
        if self.gives is None or number not in self.given:
            return source.forward(x_FCHW, sums, mixing, groups, self.moments)
        entry, moments = self.given[number]
        kept = source.forward(x_FCHW, sums, mixing, groups, moments, whole=True)
        self.gives.inputs[number] = FoundInput(x_FCHW, entry, kept.copy(), moments)
        return kept


def _as_parameters(gradients: Sequence[Tensor | None], kernels: Sequence[Tensor]) -> list[Tensor | None]:
    return [
        None if gradient is None else gradient.reshape(kernel.shape).to(kernel.dtype)
        for gradient, kernel in zip(gradients, kernels, strict=True)
    ]
