"""The fast form of ``space.search_cell.SearchCell``: the same sums node by node, with the backward pass written out.

``out_edges`` says what is shared and joined. Autograd sees one function: what it would keep of a cell is several times
what the backward pass needs.

Legend: N clips, T frames, F = N*T folded frames, C channels of the cell, E = 14 edges, O operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pvnas.fast.edge_norms import BatchStatistics
from pvnas.fast.edge_operations import ConvKernels, EdgeGroup
from pvnas.fast.kernels.choice import kernels_for
from pvnas.fast.kernels.interface import Kernels
from pvnas.fast.kernels.tensors import dense
from pvnas.fast.mixing import MixingGrad, MixingWeights
from pvnas.fast.out_edges import CellInput, CellPass, NodeTensors, OutEdges, SavedEdges, SavedInput, as_parameters
from pvnas.space.genotype import EDGES, INPUTS, NODES
from pvnas.space.layers import fold_time, unfold_time
from pvnas.space.search_cell import SearchCell, edge_stride


class CachedInput(NamedTuple):
    """What becomes of an input of a cell, whatever the mixing weights are."""

    x_FCHW: Tensor
    """As the cell's edges see it."""
    saved: SavedInput
    statistics: BatchStatistics


@dataclass
class StepCache:
    """What the alpha half-step's pass through a cell leaves to the weight half-step's, of the same clips."""

    inputs: dict[int, CachedInput] = field(default_factory=dict)
    """By number: those that do not depend on alpha, as what the stem makes of the clips."""
    made: dict[int, SavedEdges] = field(default_factory=dict)
    """What the edges that leave such an input make of it."""
    edges: dict[int, dict[str, ConvKernels]] = field(default_factory=dict)
    """The kernels by operation, by the number of the node that the edges leave."""


class FastSearchCell(nn.Module):
    """Two inputs and mixing weights (E, O) to the cell's output, (N, 4C, T, H', W')."""

    def __init__(self, cell: SearchCell, *, checkpointing: bool = False) -> None:
        """Take over the layers of a cell; of operations without parameters those of one edge for each node.

        ``checkpointing``: a forward pass keeps nothing, and the backward pass makes it once more.
        """
        super().__init__()
        category, self.checkpointing = cell.spec.category, checkpointing
        self.input0, self.input1 = cell.input0, cell.input1
        mixed: list[Any] = list(cell.edges)
        leaving = [[e for e, (_, node) in enumerate(EDGES) if node == number] for number in range(INPUTS + NODES - 1)]
        self.edges = nn.ModuleList(_part(operations, with_parameters=True) for operations in mixed)
        self.pools = nn.ModuleList(_part(mixed[edges[0]], with_parameters=False) for edges in leaving)
        self.strides = [edge_stride(category, number) for number in range(len(leaving))]
        self.inputs = [CellInput(self.input0), CellInput(self.input1)]
        per_edge: list[Any] = list(self.edges)
        shared: list[Any] = list(self.pools)
        self.out_edges = [
            OutEdges(mixed[0].columns, number, self.strides[number], [per_edge[edge] for edge in edges], shared[number])
            for number, edges in enumerate(leaving)
        ]
        self.step: StepCache | None = None
        """What the two passes of a search step share, see ``accelerate.shared_passes``."""

    def forward(self, x0: Tensor, x1: Tensor, weights_EO: Tensor) -> Tensor:
        """Return the (N, 4C, T, H', W') of the cell at these mixing weights."""
        y: Tensor = _CellFunction.apply(self, x0, x1, weights_EO, *self.in_order())
        return y

    def parts(self) -> list[CellInput | OutEdges]:
        """Return what owns parameters: both inputs, then the nodes that edges leave."""
        return [*self.inputs, *self.out_edges]

    def in_order(self) -> list[Tensor]:
        """Return all parameters in the order of ``_CellFunction``."""
        return [parameter for part in self.parts() for parameter in part.parameters()]

    def moves_statistics(self) -> bool:
        """Whether a forward pass in training mode moves BN's running statistics, see ``space.frozen_statistics``."""
        return bool(self.inputs[0].norms[0].momentum)


def _part(operations: nn.ModuleDict, *, with_parameters: bool) -> nn.ModuleDict:
    """Return those of an edge's operations that have parameters, or those that have none."""
    has = {name: any(True for _ in operation.parameters()) for name, operation in operations.items()}
    return nn.ModuleDict({name: operation for name, operation in operations.items() if has[name] == with_parameters})


class _CellFunction(torch.autograd.Function):
    """Outputs x0 and x1 of earlier cells, mixing weights and all parameters to the cell's output."""

    @staticmethod
    def forward(ctx: Any, cell: FastSearchCell, x0: Tensor, x1: Tensor, weights_EO: Tensor, *_: Tensor) -> Tensor:
        """Return the cell's output, (N, 4C, T, H', W')."""
        ctx.kernels = kernels_for(x0)
        run = _ForwardPass(cell, ctx.kernels, x0.shape[2], ctx.needs_input_grad)
        y, ctx.inputs, ctx.edges = run.through(x0, x1, weights_EO)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x0, x1, weights_EO, y)
            ctx.cell = cell
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients for all that ``forward`` takes. Raises RuntimeError the second time."""
        x0, x1, weights_EO, y = ctx.saved_tensors
        cell: FastSearchCell = ctx.cell
        kernels: Kernels = ctx.kernels
        if cell.checkpointing:
            again = _ForwardPass(cell, kernels, x0.shape[2], ctx.needs_input_grad, again=True)
            _, ctx.inputs, ctx.edges = again.through(x0, x1, weights_EO)
        if not ctx.edges:
            raise RuntimeError(
                "the first backward pass has given a cell's tensors back; compute the forward pass again"
            )
        grads = NodeTensors(fold_time(grad).clone(memory_format=torch.channels_last), begun=True)
        weights_grad = MixingGrad(weights_EO) if ctx.needs_input_grad[3] else None
        run = CellPass(kernels, MixingWeights(weights_EO), grads, weights_grad)
        nodes = NodeTensors(fold_time(y), begun=True)
        input_grads: list[Tensor | None] = [None, None]
        parameter_grads: list[Tensor | None] = []
        for out in reversed(cell.out_edges):  # a node's gradient is complete when all later ones have added to it
            number = out.number
            if number < INPUTS:
                x_FCHW = kernels.normalise(ctx.inputs[number].normed)
            else:
                x_FCHW = nodes.of(slice(number - INPUTS, number - INPUTS + 1))
            x_grad, of_edges = out.backward(run, x_FCHW, ctx.edges.pop())
            parameter_grads = of_edges + parameter_grads
            if number < INPUTS:
                input_grads[number] = x_grad
        for number, x in ((1, x1), (0, x0)):
            part, x_grad = cell.inputs[number], input_grads[number]
            of_input: list[Tensor | None] = [None] * len(part.parameters())
            if x_grad is not None:
                x_grad, of_input = part.backward(kernels, x_grad, dense(fold_time(x)), ctx.inputs[number])
                input_grads[number] = unfold_time(x_grad, x.shape[2])
            parameter_grads = of_input + parameter_grads
        weights_EO_grad = None if weights_grad is None else weights_grad.total()
        return None, *input_grads, weights_EO_grad, *as_parameters(parameter_grads, cell.in_order())


class _ForwardPass:
    """One forward pass, each part of it made, or taken from the first pass of the same search step."""

    def __init__(
        self, cell: FastSearchCell, kernels: Kernels, frames: int, needs: Sequence[bool], *, again: bool = False
    ) -> None:
        """``needs``: which arguments of ``_CellFunction`` will be asked for their gradients.

        ``again``: in the backward pass of a checkpointing cell, the forward pass of which has kept nothing.
        """
        self.cell, self.kernels = cell, kernels
        self.saves = any(needs) and (again or not cell.checkpointing)
        self.of_inputs, self.of_parameters = needs[1 : 1 + INPUTS], any(needs[2 + INPUTS :])
        of_batch = cell.inputs[0].norms[0].training
        self.group = EdgeGroup(1, 1, frames, of_batch, kernel_grads=self.saves and self.of_parameters, input_grad=True)
        self.moves_statistics = cell.moves_statistics() and not again
        self.gathered = BatchStatistics() if self.moves_statistics else None
        self.takes = cell.step if self.of_parameters else None
        self.gives = cell.step if needs[1 + INPUTS] and not self.of_parameters else None

    def through(self, x0: Tensor, x1: Tensor, weights_EO: Tensor) -> tuple[Tensor, list[SavedInput], list[SavedEdges]]:
        """Make the pass: return its output (N, 4C, T, H', W') and what the backward pass needs."""
        edges = []
        with torch.autocast(x0.device.type, enabled=False):
            entered = [self._input(number, x) for number, x in enumerate((x0, x1))]
            sums = NodeTensors.empty(entered[0][0], self.cell.strides[0])
            run = CellPass(self.kernels, MixingWeights(weights_EO), sums)
            for out in self.cell.out_edges:
                node = out.number - INPUTS
                x_FCHW = entered[out.number][0] if node < 0 else sums.of(slice(node, node + 1))
                made = self._edges(out, x_FCHW)
                edges.append(out.add(run, x_FCHW, made, moves_statistics=self.moves_statistics))
            if self.gathered is not None:
                self.gathered.move_running()
        y = unfold_time(sums.values_FCHW, x0.shape[2])
        return (y, [saved for _, saved in entered], edges) if self.saves else (y, [], [])

    def _input(self, number: int, x: Tensor) -> tuple[Tensor, SavedInput]:
        """Return an input as the cell's edges see it, and what its backward pass needs."""
        part = self.cell.inputs[number]
        group = replace(self.group, stride=part.stride)
        if self.takes is not None and number in self.takes.inputs:
            cached = self.takes.inputs.pop(number)
            if self.gathered is not None:
                self.gathered.extend(cached.statistics)
            return cached.x_FCHW, cached.saved._replace(group=group)
        if self.gives is None or self.of_inputs[number]:
            return part.forward(self.kernels, dense(fold_time(x)), group, self.gathered)
        statistics = BatchStatistics()
        x_FCHW, saved = part.forward(self.kernels, dense(fold_time(x)), group, statistics)
        self.gives.inputs[number] = CachedInput(x_FCHW, saved, statistics)  # alpha does not reach it
        return x_FCHW, saved

    def _edges(self, out: OutEdges, x_FCHW: Tensor) -> SavedEdges:
        """Return what the edges that leave a node make of it."""
        number = out.number
        asked = self.saves and (self.of_parameters or number >= INPUTS or self.of_inputs[number])
        group = replace(self.group, edges=out.count, stride=out.stride, input_grad=asked)
        by_name = self.takes.edges.pop(number, None) if self.takes is not None else None
        if self.takes is not None and number in self.takes.made:
            return self.takes.made.pop(number)._replace(group=group)
        by_name = out.prepared(x_FCHW.dtype) if by_name is None else by_name
        if self.gives is None:
            return out.forward(self.kernels, x_FCHW, group, by_name, self.gathered)
        self.gives.edges[number] = by_name
        if number not in self.gives.inputs:
            return out.forward(self.kernels, x_FCHW, group, by_name, self.gathered)
        statistics = self.gives.inputs[number].statistics
        self.gives.made[number] = out.forward(self.kernels, x_FCHW, group, by_name, statistics)
        return self.gives.made[number]
