"""The fast form of ``space.network.DerivedCell`` for training: the same sums, with the backward pass written out.

Autograd sees one function. Of its forward pass it keeps what convolutions put out and the statistics of the norms; what
depthwise convolutions, ReLUs and norms make of them is made again. Nodes are summed where they lie in the cell's
output. The operations are those of the search's cells (``edge_operations``), one edge at a time.

Legend: N clips, T frames, F = N*T folded frames, C channels of the cell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from pvnas.fast.autograd_operations import output_of, separate_leaf
from pvnas.fast.edge_norms import BatchStatistics, EdgeNorms, batch_norm_grad
from pvnas.fast.edge_operations import EDGE_OPERATIONS, ConvKernels, EdgeGroup, EdgeOperation, Made, NodeInput
from pvnas.fast.kernels import pytorch
from pvnas.fast.kernels.choice import kernels_for
from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.fast.kernels.tensors import dense, sum_type, unnormed
from pvnas.fast.out_edges import (
    POOLINGS,
    CellInput,
    NodeTensors,
    SavedInput,
    as_parameters,
    norm_parameter_grads,
    norm_parameters,
    side_by_side,
)
from pvnas.space.genotype import INPUTS, NODES
from pvnas.space.layers import BatchNorm, fold_time, unfold_time
from pvnas.space.network import DerivedCell, PVNASNetwork, drop_path_scales


class FastTrainingCell(DerivedCell):
    """Two (N, C', T, H, W) inputs to (N, 4C, T, H', W'), with the layers and the names of a cell of folded layers.

    It computes as the plain cell does where no kernels of our own work, under ``torch.compile`` and in exports.
    """

    def __init__(self, cell: DerivedCell) -> None:
        nn.Module.__init__(self)
        _take_over(self, cell)
        self.inputs = [CellInput(self.input0), CellInput(self.input1)]
        predecessors = [predecessor for pair in self.predecessors for predecessor in pair]
        self.edges = [
            _edge(name, module, predecessor, number // 2)
            for number, (name, module, predecessor) in enumerate(
                zip(self.names, self.operations, predecessors, strict=True)
            )
        ]
        self.norms = [layer for layer in self.modules() if isinstance(layer, BatchNorm)]

    def forward(self, x0: Tensor, x1: Tensor, rectified: bool = False) -> Tensor:
        """``rectified``: both inputs are through their ReLU, which changes nothing here."""
        kernels = self._kernels(x0)
        if kernels is None:
            return super().forward(x0, x1, rectified)
        y: Tensor = _CellFunction.apply(self, kernels, False, x0, x1, *self.in_order())
        return y

    def checkpointed(self, x0: Tensor, x1: Tensor, rectified: bool = False) -> Tensor:
        """Return what ``forward`` does and keep nothing of it; running statistics move once."""
        kernels = self._kernels(x0)
        if kernels is None or any(isinstance(edge, _AutogradEdge) for edge in self.edges):  # which may draw at random
            y: Tensor = checkpoint(DerivedCell.forward, self, x0, x1, rectified, use_reentrant=False)
        else:
            y = _CellFunction.apply(self, kernels, True, x0, x1, *self.in_order())
        return y

    def in_order(self) -> list[Tensor]:
        """Return all parameters in the order of ``_CellFunction``."""
        parts: list[CellInput | _Edge] = [*self.inputs, *self.edges]
        return [parameter for part in parts for parameter in part.parameters()]

    def plain(self) -> DerivedCell:
        """Return the cell as it was, of the same layers."""
        cell = DerivedCell.__new__(DerivedCell)
        nn.Module.__init__(cell)
        _take_over(cell, self)
        return cell

    def _kernels(self, x: Tensor) -> Kernels | None:
        """Return the kernels that compute a pass; None where the plain cell does."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        if any(norm.training != self.norms[0].training for norm in self.norms):  # some of them are frozen
            return None
        return fast_kernels_for(x)


def with_plain_cells(network: PVNASNetwork) -> PVNASNetwork:
    """Put plain cells back in the place of a network's fast ones, in place, and return it."""
    for number, cell in enumerate(network.cells):
        if isinstance(cell, FastTrainingCell):
            network.cells[number] = cell.plain()
            network.shares_relu = True
    return network


def fast_kernels_for(x: Tensor) -> Kernels | None:
    """Return the kernels for such a tensor; None where those are PyTorch's, by which plain cells are no slower."""
    kernels = kernels_for(x)
    return None if kernels is pytorch else kernels


def _take_over(to: DerivedCell, cell: DerivedCell) -> None:
    """Give a cell all that another one is made of."""
    names = ("predecessors", "names", "stride", "input0", "input1", "operations", "shares_relu", "drop_path_rate")
    for name in (*names, "training"):
        setattr(to, name, getattr(cell, name))


@dataclass
class _NodeGrad:
    """What the edges that leave a node x (F, C, H, W) say about its gradient."""

    relu: Tensor | None = None
    """That for ReLU(x)."""
    average: Tensor | None = None
    """That for its averages."""
    largest: Tensor | None = None
    """That for its maxima."""
    which: Tensor | None = None
    """Which pixel each maximum is."""
    itself: list[Tensor] = field(default_factory=list)
    """Those for x as it is."""

    def total(self, kernels: Kernels, x_FCHW: Tensor, stride: int, into: Tensor | None) -> Tensor | None:
        """Return the gradient for x, added to ``into`` where that is given."""
        if self.average is not None or self.largest is not None:
            given = self.average, self.largest, self.which, x_FCHW, stride, self.relu, None
            into = kernels.pool_grad(*given, into)
        elif self.relu is not None:
            x_grad = torch.ops.aten.threshold_backward.grad_input(self.relu, x_FCHW, 0, grad_input=self.relu)
            into = x_grad if into is None else into.add_(x_grad)
        for grad in self.itself:
            into = grad.clone(memory_format=torch.channels_last) if into is None else into.add_(grad)
        return into


class _Edge(ABC):
    """One edge: what it adds to its node's sum is what a norm makes of a tensor, or a tensor as it is."""

    drops = True
    """Whether drop-path takes it."""

    def __init__(self, module: nn.Module, predecessor: int, node: int) -> None:
        self.module, self.predecessor, self.node = module, predecessor, node

    def parameters(self) -> list[Tensor]:
        """Return the parameters for which ``backward`` returns gradients."""
        return []

    @abstractmethod
    def forward(self, inputs: NodeInput, gathered: BatchStatistics | None) -> tuple[Normed, Any]:
        """Return what the edge adds to the sum, and what its backward pass reads."""

    @abstractmethod
    def backward(
        self, grad: Tensor, scales: Tensor | None, inputs: NodeInput, saved: Any, x_grad: _NodeGrad
    ) -> Sequence[Tensor | None]:
        """Add to ``x_grad`` and return the gradients for the parameters, from that of the sum (F, C, H', W').

        ``scales``: by which each clip has been multiplied, (N,).
        """


class _IdentityEdge(_Edge):
    """The node itself."""

    drops = False

    def forward(self, inputs: NodeInput, gathered: BatchStatistics | None) -> tuple[Normed, Any]:
        return unnormed(inputs.x_FCHW), None

    def backward(
        self, grad: Tensor, scales: Tensor | None, inputs: NodeInput, saved: Any, x_grad: _NodeGrad
    ) -> Sequence[Tensor | None]:
        x_grad.itself.append(grad)
        return []


class _PoolEdge(_Edge):
    """A pooling; both kinds of a node are made at once."""

    def __init__(self, module: nn.Module, predecessor: int, node: int, *, averages: bool) -> None:
        super().__init__(module, predecessor, node)
        self.averages = averages

    def forward(self, inputs: NodeInput, gathered: BatchStatistics | None) -> tuple[Normed, Any]:
        average, largest, which = inputs.pooled
        return (unnormed(average), None) if self.averages else (unnormed(largest), which)

    def backward(
        self, grad: Tensor, scales: Tensor | None, inputs: NodeInput, saved: Any, x_grad: _NodeGrad
    ) -> Sequence[Tensor | None]:
        grad = dense(_scaled(grad, scales))
        if self.averages:
            x_grad.average = grad if x_grad.average is None else x_grad.average + grad
        else:
            x_grad.largest = grad if x_grad.largest is None else x_grad.largest + grad
            x_grad.which = saved
        return []


class _SavedConvolutions(NamedTuple):
    """What the backward pass of convolutions reads."""

    kernels: ConvKernels
    made: Made


class _ConvEdge(_Edge):
    """An operation of convolutions and norms that has kernels."""

    def __init__(self, operation: EdgeOperation, module: nn.Module, predecessor: int, node: int) -> None:
        super().__init__(module, predecessor, node)
        self.operation = operation
        self.convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv3d)]
        self.norms = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]

    def parameters(self) -> list[Tensor]:
        return [*(layer.weight for layer in self.convolutions), *norm_parameters(self.norms)]

    def forward(self, inputs: NodeInput, gathered: BatchStatistics | None) -> tuple[Normed, Any]:
        weights = [side_by_side([layer.weight], inputs.x_FCHW.dtype) for layer in self.convolutions]
        kernels = self.operation.prepare(weights, edges=1)
        made = self.operation.forward(inputs, kernels, [EdgeNorms([norm], gathered) for norm in self.norms])
        return made.normed, _SavedConvolutions(kernels, made.needed(inputs.group))

    def backward(
        self, grad: Tensor, scales: Tensor | None, inputs: NodeInput, saved: Any, x_grad: _NodeGrad
    ) -> Sequence[Tensor | None]:
        kernels, made = saved
        z_grad, sums = batch_norm_grad(inputs.kernels, grad, made.normed, of_batch=inputs.group.of_batch, scales=scales)
        x_grad.relu, kernel_grads, inner = self.operation.backward(z_grad, inputs, kernels, made, x_grad.relu)
        return [*kernel_grads, *norm_parameter_grads(self.norms, [*inner, sums])]


class _AutogradEdge(_Edge):
    """An operation without kernels: autograd takes it, as ``space`` builds it."""

    def parameters(self) -> list[Tensor]:
        return list(self.module.parameters())

    def forward(self, inputs: NodeInput, gathered: BatchStatistics | None) -> tuple[Normed, Any]:
        group, x_FCHW = inputs.group, inputs.x_FCHW
        x = separate_leaf(x_FCHW, group.frames, wants_grads=group.input_grad)
        y = output_of(self.module, x, moves_statistics=gathered is not None)
        return unnormed(dense(fold_time(y.detach())).to(x_FCHW.dtype)), (x, y)

    def backward(
        self, grad: Tensor, scales: Tensor | None, inputs: NodeInput, saved: Any, x_grad: _NodeGrad
    ) -> Sequence[Tensor | None]:
        x, y = saved
        y_grad = unfold_time(_scaled(grad, scales).to(y.dtype), y.shape[2])
        wanted = [x, *(parameter for parameter in self.parameters() if parameter.requires_grad)]
        of_x, *rest = torch.autograd.grad(y, wanted, y_grad, allow_unused=True)
        if of_x is not None:
            x_grad.itself.append(fold_time(of_x))
        return [rest.pop(0) if parameter.requires_grad else None for parameter in self.parameters()]


def _edge(name: str, module: nn.Module, predecessor: int, node: int) -> _Edge:
    """Return the edge of an operation by its name."""
    if isinstance(module, nn.Identity):
        return _IdentityEdge(module, predecessor, node)
    if name in POOLINGS:
        return _PoolEdge(module, predecessor, node, averages=name == POOLINGS[0])
    if name in EDGE_OPERATIONS:
        return _ConvEdge(EDGE_OPERATIONS[name], module, predecessor, node)
    return _AutogradEdge(module, predecessor, node)


def _scaled(grad_FCHW: Tensor, scales_N: Tensor | None) -> Tensor:
    """Return a gradient times the number of each clip."""
    if scales_N is None:
        return grad_FCHW
    scales_F = scales_N.repeat_interleave(len(grad_FCHW) // len(scales_N))
    return (grad_FCHW * scales_F.view(-1, 1, 1, 1)).to(grad_FCHW.dtype)


@dataclass
class _SavedPass:
    """What the backward pass of a cell reads, beside the inputs and the output; it takes out what it has used."""

    inputs: list[SavedInput] = field(default_factory=list)
    edges: list[Any] = field(default_factory=list)
    scales: list[Tensor | None] = field(default_factory=list)
    """Of both terms of each node, (2, N): what drop-path has drawn, None: nothing."""


class _CellFunction(torch.autograd.Function):
    """Outputs x0 and x1 of earlier cells and all parameters to the cell's output."""

    @staticmethod
    def forward(
        ctx: Any, cell: FastTrainingCell, kernels: Kernels, checkpointing: bool, x0: Tensor, x1: Tensor, *_: Tensor
    ) -> Tensor:
        """Return the cell's output, (N, 4C, T, H', W')."""
        needs, of_batch = any(ctx.needs_input_grad), cell.norms[0].training
        ctx.group = EdgeGroup(1, 1, x0.shape[2], of_batch, kernel_grads=needs, input_grad=needs)
        gathered = BatchStatistics() if cell.norms[0].momentum else None
        y, saved = _through(cell, kernels, ctx.group, x0, x1, gathered, None)
        if gathered is not None:
            gathered.move_running()
        if needs:
            ctx.save_for_backward(x0, x1, y)
            ctx.cell, ctx.kernels, ctx.checkpointing = cell, kernels, checkpointing
            ctx.saved = _SavedPass(scales=saved.scales) if checkpointing else saved
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients for all that ``forward`` takes. Raises RuntimeError the second time."""
        x0, x1, y = ctx.saved_tensors
        cell: FastTrainingCell = ctx.cell
        kernels: Kernels = ctx.kernels
        saved: _SavedPass = ctx.saved
        if ctx.checkpointing:
            _, saved = _through(cell, kernels, ctx.group, x0, x1, None, saved.scales)
        if not saved.inputs:
            raise RuntimeError(
                "the first backward pass has given a cell's tensors back; compute the forward pass again"
            )
        outputs = NodeTensors(fold_time(y), begun=True)
        grads = NodeTensors(fold_time(grad).clone(memory_format=torch.channels_last), begun=True)
        parameter_grads: list[Sequence[Tensor | None]] = [()] * (INPUTS + len(cell.edges))
        input_grads: list[Tensor | None] = [None] * INPUTS
        for number in reversed(range(INPUTS + NODES - 1)):  # complete when all later ones have added to it
            entering, node = number < INPUTS, slice(number - INPUTS, number - INPUTS + 1)
            x_FCHW = kernels.normalise(saved.inputs[number].normed) if entering else outputs.of(node)
            stride, x_grad = cell.stride if entering else 1, _NodeGrad()
            inputs = NodeInput(kernels, x_FCHW, replace(ctx.group, stride=stride))
            for position, edge in enumerate(cell.edges):
                if edge.predecessor == number:
                    scales, reached = saved.scales[edge.node], slice(edge.node, edge.node + 1)
                    scales_N = scales[position % 2] if scales is not None and edge.drops else None
                    given, saved.edges[position] = saved.edges[position], None
                    of_edge = edge.backward(grads.of(reached), scales_N, inputs, given, x_grad)
                    parameter_grads[INPUTS + position] = of_edge
            total = x_grad.total(kernels, x_FCHW, stride, None if entering else grads.of(node))
            if entering and total is not None:
                x, part = (x0, x1)[number], cell.inputs[number]
                of_x, parameter_grads[number] = part.backward(kernels, total, dense(fold_time(x)), saved.inputs.pop())
                input_grads[number] = unfold_time(of_x, x.shape[2])
        in_order = [one for of_part in parameter_grads for one in of_part]
        return None, None, None, *input_grads, *as_parameters(in_order, cell.in_order())


def _through(
    cell: FastTrainingCell, kernels: Kernels, group: EdgeGroup, x0: Tensor, x1: Tensor,
    gathered: BatchStatistics | None, scales: list[Tensor | None] | None,
) -> tuple[Tensor, _SavedPass]:  # fmt: skip
    """Make a forward pass: return its output (N, 4C, T, H', W') and what the backward pass reads.

    ``gathered``: takes the statistics of the batch, None: the running ones stay. ``scales``: of ``_SavedPass``, where
    they have been drawn.
    """
    saved, nodes = _SavedPass(), []
    rate = cell.drop_path_rate if cell.training else 0.0
    with torch.autocast(x0.device.type, enabled=False):
        for part, x in zip(cell.inputs, (x0, x1), strict=True):
            given = dense(fold_time(x)), replace(group, stride=part.stride), gathered
            x_FCHW, of_input = part.forward(kernels, *given)
            saved.inputs.append(of_input)
            nodes.append(NodeInput(kernels, x_FCHW, replace(group, stride=cell.stride)))
        sums = NodeTensors.empty(nodes[0].x_FCHW, cell.stride)
        ones = x0.new_ones(1, 2, dtype=sum_type(x0))
        for node in range(NODES):
            terms, drawn = [], []
            for edge in cell.edges[2 * node : 2 * node + 2]:
                term, of_edge = edge.forward(nodes[edge.predecessor], gathered)
                terms.append(term)
                saved.edges.append(of_edge)
                drops = rate > 0 and edge.drops and scales is None
                drawn.append(drop_path_scales(x0, rate).to(ones.dtype) if drops else ones.new_ones(len(x0)))
            of_node = scales[node] if scales is not None else torch.stack(drawn) if rate > 0 else None
            saved.scales.append(of_node)
            sum_FCHW = sums.of(slice(node, node + 1))
            kernels.add_mixed(sum_FCHW, terms, [], ones, begin=True, scales=of_node)
            nodes.append(NodeInput(kernels, sum_FCHW, group))
    return unfold_time(sums.values_FCHW, x0.shape[2]), saved
