"""What enters a relaxed cell and what leaves each of its nodes, forward and backward written out.

Where ``space.search_cell`` goes edge by edge, these go node by node. All edges that leave a node share its ReLU, its
poolings and their BN, which have no parameters; an operation with parameters runs over all of them at once
(``edge_operations``); the mixing weight of an edge rides on the scale of its operation's last BN; all operations are
added to the sums in one pass, and their BN go backwards in two. Zero costs nothing.

Legend: F folded frames, C channels of the cell, k edges that leave the node. They lead to the last k intermediate
nodes, which lie side by side as the cell returns them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pvnas.fast.autograd_operations import AutogradOperations, SavedTerms
from pvnas.fast.edge_norms import BatchStatistics, EdgeNorms, batch_norm_grad
from pvnas.fast.edge_operations import EDGE_OPERATIONS, ConvKernels, EdgeGroup, Made, NodeInput, Pointwise, Reduction
from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.fast.kernels.tensors import dense, unnormed
from pvnas.fast.mixing import MixingGrad, MixingWeights, edges_leaving, nodes_reached
from pvnas.space.genotype import INPUTS, NODES
from pvnas.space.layers import BatchNorm, FactorizedReduction

POOLINGS = ("avg_pool_1x3x3", "max_pool_1x3x3")


class NodeTensors:
    """A tensor for each intermediate node, side by side (F, 4C, H, W): their sums, or their gradients."""

    def __init__(self, values_FCHW: Tensor, *, begun: bool) -> None:
        self.values_FCHW = values_FCHW
        self.begun = begun
        """Whether they have values, to which is added."""

    @classmethod
    def empty(cls, x_FCHW: Tensor, stride: int) -> NodeTensors:
        """Return sums without values behind edges of a stride that leave x."""
        f, c, h, w = x_FCHW.shape
        return cls(x_FCHW.new_empty(f, -(-h // stride), -(-w // stride), NODES * c).permute(0, 3, 1, 2), begun=False)

    def of(self, nodes: slice) -> Tensor:
        """Return the view (F, kC, H, W) of some nodes, counted from 0."""
        c = self.values_FCHW.shape[1] // NODES
        return self.values_FCHW[:, nodes.start * c : nodes.stop * c]

    def each(self, nodes: slice) -> list[Tensor]:
        """Return the views (F, C, H, W) of some nodes."""
        return [self.of(slice(node, node + 1)) for node in range(nodes.start, nodes.stop)]


class SavedInput(NamedTuple):
    """What the backward pass of a cell's input needs."""

    kernels: ConvKernels
    group: EdgeGroup
    normed: Normed


class CellInput:
    """What brings an output of an earlier cell to this cell's width: ReLU, convolution, BN."""

    def __init__(self, layers: nn.Module) -> None:
        halves = isinstance(layers, FactorizedReduction)
        self.operation = Reduction() if halves else Pointwise()
        self.stride = 2 if halves else 1
        self.convolutions = [layer for layer in layers.modules() if isinstance(layer, nn.Conv3d)]
        self.norms = [layer for layer in layers.modules() if isinstance(layer, BatchNorm)]

    def parameters(self) -> list[Tensor]:
        """Return the convolutions' kernels; of a derived cell also the norm's weight and bias."""
        return [*(layer.weight for layer in self.convolutions), *norm_parameters(self.norms)]

    def forward(
        self, kernels: Kernels, x_FCHW: Tensor, group: EdgeGroup, gathered: BatchStatistics | None
    ) -> tuple[Tensor, SavedInput]:
        """Return the cell's input (F, C, H', W') from an earlier output of any width."""
        conv_kernels = [side_by_side([layer.weight], x_FCHW.dtype) for layer in self.convolutions]
        inputs = NodeInput(kernels, x_FCHW, group)
        normed = self.operation.forward(inputs, conv_kernels, [EdgeNorms(self.norms, gathered)]).normed
        return kernels.normalise(normed), SavedInput(conv_kernels, group, normed)

    def backward(
        self, kernels: Kernels, grad: Tensor, x_FCHW: Tensor, saved: SavedInput
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the gradients for the earlier output and for ``parameters``."""
        z_grad, sums = batch_norm_grad(kernels, grad, saved.normed, of_batch=saved.group.of_batch)
        inputs = NodeInput(kernels, x_FCHW, saved.group)
        x_grad, kernel_grads, _ = self.operation.backward(z_grad, inputs, saved.kernels, Made(saved.normed), None)
        if self.stride == 2:  # a pointwise convolution has done it on the way
            torch.ops.aten.threshold_backward.grad_input(x_grad, x_FCHW, 0, grad_input=x_grad)
        return x_grad, [*kernel_grads, *norm_parameter_grads(self.norms, [sums])]


class SavedEdges(NamedTuple):
    """What the backward pass of the edges that leave a node needs."""

    group: EdgeGroup
    kernels: dict[str, ConvKernels]
    """By operation."""
    pools: Sequence[Normed]
    """Both poolings of the node, if there are any."""
    which: Tensor | None
    """Of its nine pixels each maximum is."""
    operations: dict[str, Made]
    terms: SavedTerms | None = None


class CellPass(NamedTuple):
    """What all nodes of a cell share in a pass, forward or backward."""

    kernels: Kernels
    weights: MixingWeights
    nodes: NodeTensors
    """The sums of the intermediate nodes, or their gradients."""
    weights_grad: MixingGrad | None = None
    """Takes the gradient for the mixing weights, where it is asked for."""


class OutEdges:
    """All edges that leave one node: forward adds to the sums of later nodes, backward gives this node's gradient."""

    def __init__(
        self, columns: Mapping[str, int], number: int, stride: int, edges: Sequence[Mapping[str, nn.Module]],
        shared: Mapping[str, nn.Module],
    ) -> None:  # fmt: skip
        """``columns``: of the operations in alpha; ``edges``: of each edge, its operations with parameters by name.

        ``shared``: the node's operations without parameters.
        """
        self.number, self.stride, self.count = number, stride, len(edges)
        self.edges, self.reached = edges_leaving(number), nodes_reached(number)
        self.names = [name for name in edges[0] if name in EDGE_OPERATIONS]
        # By operation, then by layer in it, then by edge. Gathered once: a walk over modules costs more than a kernel.
        self.convolutions = {name: _by_layer([edge[name] for edge in edges], nn.Conv3d) for name in self.names}
        self.norms = {name: _by_layer([edge[name] for edge in edges], BatchNorm) for name in self.names}
        pools = POOLINGS if set(POOLINGS) <= set(shared) else ()
        self.pool_norms = [_by_layer([shared[name]], BatchNorm)[0] for name in pools]
        self.direct = bool(pools) and stride == 1 and "identity" in columns
        by_kernels = [*self.names, *pools, *(["identity"] if self.direct else [])]
        self.order = tuple(columns[name] for name in by_kernels)
        self.others = AutogradOperations(
            columns,
            {name: [edge[name] for edge in edges] for name in edges[0] if name not in EDGE_OPERATIONS},
            {name: module for name, module in shared.items() if name not in by_kernels},
        )

    def parameters(self) -> list[Tensor]:
        """Return the weights by operation, by layer in it, by edge; then those of operations without kernels."""
        layers = [layer for of_name in self.convolutions.values() for of_layer in of_name for layer in of_layer]
        return [*(layer.weight for layer in layers), *self.others.parameters()]

    def prepared(self, dtype: torch.dtype) -> dict[str, ConvKernels]:
        """Return the kernels of all edges in this type, by operation."""
        return {
            name: EDGE_OPERATIONS[name].prepare(
                [side_by_side([layer.weight for layer in layers], dtype) for layers in self.convolutions[name]],
                self.count,
            )
            for name in self.names
        }

    # ---- forward

    def forward(
        self, kernels: Kernels, x_FCHW: Tensor, group: EdgeGroup, by_name: dict[str, ConvKernels],
        gathered: BatchStatistics | None,
    ) -> SavedEdges:  # fmt: skip
        """Return all that the kernels make of a node (F, C, H, W), which ``add`` adds to sums at any mixing weights."""
        pools, which = [], None
        if self.pool_norms:
            average, largest, which = kernels.pool(x_FCHW, self.stride)
            pairs = zip(self.pool_norms, (average, largest), strict=True)
            pools = [EdgeNorms(layers, gathered).of(kernels, z) for layers, z in pairs]
        inputs, operations = NodeInput(kernels, x_FCHW, group), {}
        for name in self.names:
            norms = [EdgeNorms(layers, gathered) for layers in self.norms[name]]
            operations[name] = EDGE_OPERATIONS[name].forward(inputs, by_name[name], norms)
        return SavedEdges(group, by_name, pools, which, operations)

    def add(self, cell: CellPass, x_FCHW: Tensor, made: SavedEdges, *, moves_statistics: bool) -> SavedEdges:
        """Add what ``forward`` has made to the later nodes' sums; return what the backward pass needs."""
        per_edge, shared = [each.normed for each in made.operations.values()], self._shared(x_FCHW, made)
        sums, reached = cell.nodes, cell.nodes.of(self.reached)
        if per_edge or shared:
            weights = cell.weights.of(self.edges, self.order)
            cell.kernels.add_mixed(reached, per_edge, shared, weights, begin=not sums.begun)
        elif not sums.begun:
            reached.zero_()
        sums.begun = True
        if self.others.terms:
            terms = self.others.forward(
                x_FCHW, made.group.frames, sums.each(self.reached), cell.weights, self.edges,
                wants_grads=made.group.input_grad, moves_statistics=moves_statistics,
            )  # fmt: skip
            made = made._replace(terms=terms)
        return made._replace(operations={name: each.needed(made.group) for name, each in made.operations.items()})

    def _shared(self, x_FCHW: Tensor, made: SavedEdges) -> list[Normed]:
        """Return what all edges share: both poolings and, at stride 1, identity."""
        return [*made.pools, *([unnormed(x_FCHW)] if self.direct else [])]

    # ---- backward

    def backward(self, cell: CellPass, x_FCHW: Tensor, saved: SavedEdges) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for an input of the cell, (F, C, H, W), and ``parameters``, from those of later nodes.

        That for an intermediate node is added to those of the nodes, and None here.
        """
        into = None if self.number < INPUTS else cell.nodes.of(slice(self.number - INPUTS, self.number - INPUTS + 1))
        x_grad, parameter_grads = self._through_kernels(cell, x_FCHW, saved, into)
        if saved.terms is None:
            return x_grad, parameter_grads
        of_terms, of_parameters = self.others.backward(
            cell.nodes.each(self.reached), saved.terms, cell.weights, self.edges, cell.weights_grad
        )
        if of_terms is not None and into is not None:
            into.add_(of_terms)
        elif of_terms is not None:
            x_grad = dense(of_terms) if x_grad is None else x_grad.add_(of_terms)
        return x_grad, [*parameter_grads, *of_parameters]

    def _through_kernels(
        self, cell: CellPass, x_FCHW: Tensor, saved: SavedEdges, into: Tensor | None
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Go backwards through all operations that have kernels."""
        kernels, group = cell.kernels, saved.group
        nothing: list[Tensor | None] = [None] * sum(self.count * len(layers) for layers in self.convolutions.values())
        per_edge, shared = [each.normed for each in saved.operations.values()], self._shared(x_FCHW, saved)
        if not per_edge and not shared:
            return None, nothing
        n, grad, weights_kO = len(per_edge), cell.nodes.of(self.reached), cell.weights.of(self.edges, self.order)
        sums = kernels.mixed_grad_sums(grad, per_edge, shared, self.count)
        if cell.weights_grad is not None:
            cell.weights_grad.set(self.edges, self.order, sums[1:].sum(2).t())
        if not group.input_grad:
            return None, nothing
        z_grads = kernels.per_edge_grads(grad, per_edge, weights_kO[:, :n], sums[: 1 + n], of_batch=group.of_batch)
        relu_grad, kernel_grads = self._through_operations(kernels, z_grads, x_FCHW, saved)
        if saved.which is not None:
            of_shared = torch.cat([sums[:1], sums[1 + n :]])
            average_grad, max_grad, *identity_grad = kernels.shared_grads(
                grad, shared, weights_kO[:, n:], of_shared, of_batch=group.of_batch
            )
            x_grad = kernels.pool_grad(
                average_grad, max_grad, saved.which, x_FCHW, self.stride, relu_grad,
                identity_grad[0] if identity_grad else None, into,
            )  # fmt: skip
        else:
            x_grad = torch.ops.aten.threshold_backward.grad_input(relu_grad, x_FCHW, 0, grad_input=relu_grad)
            x_grad = x_grad if into is None else into.add_(x_grad)
        return x_grad if into is None else None, kernel_grads

    def _through_operations(
        self, kernels: Kernels, z_grads: list[Any], x_FCHW: Tensor, saved: SavedEdges
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for ReLU(x) and for the kernels from those of what the last BN have seen."""
        inputs, relu_grad = NodeInput(kernels, x_FCHW, saved.group), None
        kernel_grads: list[Tensor | None] = []
        for name in self.names:
            made = saved.operations.pop(name)  # what has been used is given back at once
            relu_grad, of_layers, _ = EDGE_OPERATIONS[name].backward(
                z_grads.pop(0), inputs, saved.kernels[name], made, relu_grad
            )
            for of_layer in of_layers:
                kernel_grads += [None] * self.count if of_layer is None else of_layer.chunk(self.count)
        return relu_grad, kernel_grads


def norm_parameters(norms: Sequence[BatchNorm]) -> list[Tensor]:
    """Return weight and bias of each norm that has them."""
    return [parameter for norm in norms if norm.weight is not None for parameter in (norm.weight, norm.bias)]


def norm_parameter_grads(norms: Sequence[BatchNorm], sums: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradients for ``norm_parameters`` from those of bias and weight, (2, 1, C) for each norm."""
    return [grad for norm, two in zip(norms, sums, strict=True) if norm.weight is not None for grad in two.flip(0)]


def as_parameters(grads: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Return gradients in the shapes and types of their parameters."""
    return [
        None if grad is None else grad.reshape(parameter.shape).to(parameter.dtype)
        for grad, parameter in zip(grads, parameters, strict=True)
    ]


def side_by_side(kernels: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return 3-D kernels (C, ., 1, kh, kw) or (C, ., kt, 1, 1) one after another, as 2-D ones."""
    # Squeezed first: of more than four dimensions a GPU joins tensors one by one.
    parts = [kernel.squeeze(2) if kernel.shape[2] == 1 else kernel.squeeze(-1) for kernel in kernels]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(dtype)


def _by_layer(operations: Sequence[nn.Module], kind: type[nn.Module]) -> list[list[Any]]:
    """Return the layers of a kind in some equal operations: by position in the operation, then by operation."""
    layers = [[layer for layer in operation.modules() if isinstance(layer, kind)] for operation in operations]
    return [list(layer) for layer in zip(*layers, strict=True)]
