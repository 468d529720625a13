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
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pvnas.fast.autograd_operations import AutogradOperations, SavedTerms
from pvnas.fast.edge_norms import BatchStatistics, EdgeNorms, batch_norm_grad
from pvnas.fast.edge_operations import (
    EDGE_OPERATIONS,
    ConvKernels,
    EdgeGroup,
    NodeInput,
    Pointwise,
    Reduction,
    Saved,
)
from pvnas.fast.kernels.interface import Kernels, Normed
from pvnas.fast.kernels.tensors import unnormed
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
        """Return the convolutions' kernels."""
        return [layer.weight for layer in self.convolutions]

    def forward(
        self, kernels: Kernels, x_FCHW: Tensor, group: EdgeGroup, gathered: BatchStatistics | None
    ) -> tuple[Tensor, SavedInput]:
        """Return the cell's input (F, C, H', W') from an earlier output of any width."""
        group = replace(group, edges=1, stride=self.stride)
        conv_kernels = [side_by_side([weight], x_FCHW.dtype) for weight in self.parameters()]
        inputs = NodeInput(kernels, x_FCHW, group)
        normed, _ = self.operation.forward(inputs, conv_kernels, [EdgeNorms(self.norms, gathered)])
        return kernels.normalise(normed), SavedInput(conv_kernels, group, normed)

    def backward(
        self, kernels: Kernels, grad: Tensor, x_FCHW: Tensor, saved: SavedInput
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the gradients for the earlier output and for ``parameters``."""
        z_grad = batch_norm_grad(kernels, grad, saved.normed, of_batch=saved.group.of_batch)
        inputs = NodeInput(kernels, x_FCHW, saved.group)
        x_grad, kernel_grads = self.operation.backward(z_grad, inputs, saved.kernels, (), None)
        if self.stride == 2:  # a pointwise convolution has done it on the way
            torch.ops.aten.threshold_backward.grad_input(x_grad, x_FCHW, 0, grad_input=x_grad)
        return x_grad, list(kernel_grads)


class PreparedEdges(NamedTuple):
    """The edges that leave a node, with the kernels that they compute by."""

    group: EdgeGroup
    kernels: dict[str, ConvKernels]
    """By operation."""

    def asked(self, group: EdgeGroup) -> PreparedEdges:
        """Return the same edges with what is asked of another pass."""
        return self._replace(group=replace(self.group, kernel_grads=group.kernel_grads, input_grad=group.input_grad))


class SavedPools(NamedTuple):
    """Both poolings of a node."""

    normed: tuple[Normed, Normed]
    which: Tensor
    """Of its nine pixels each maximum is."""


class SavedEdges(NamedTuple):
    """What the backward pass of the edges that leave a node needs."""

    edges: PreparedEdges
    pools: SavedPools | None
    operations: dict[str, tuple[Normed, Saved]]
    """By name: what the last BN has seen, and what else its operation keeps."""
    terms: SavedTerms | None

    def for_backward(self) -> SavedEdges:
        """Return it without what only a forward pass at other mixing weights would need."""
        group = self.edges.group
        if not group.input_grad:
            return self._replace(operations={name: (normed, ()) for name, (normed, _) in self.operations.items()})
        return self._replace(
            operations={
                name: (normed, EDGE_OPERATIONS[name].save(rest, group))
                for name, (normed, rest) in self.operations.items()
            }
        )


class OutEdges:
    """All edges that leave one node: forward adds to the sums of later nodes, backward gives this node's gradient."""

    def __init__(
        self,
        columns: Mapping[str, int],
        number: int,
        stride: int,
        edges: Sequence[Mapping[str, nn.Module]],
        shared: Mapping[str, nn.Module],
    ) -> None:
        """``columns``: of the operations in alpha; ``edges``: of each edge, its operations with parameters by name.

        ``shared``: the node's operations without parameters.
        """
        self.number, self.stride, self.count = number, stride, len(edges)
        self.edges, self.reached = edges_leaving(number), nodes_reached(number)
        self.names = [name for name in edges[0] if name in EDGE_OPERATIONS]
        # By operation, then by layer in it, then by edge. Gathered once: a walk over modules costs more than a kernel.
        self.convolutions = {name: _by_layer([edge[name] for edge in edges], nn.Conv3d) for name in self.names}
        self.norms = {name: _by_layer([edge[name] for edge in edges], BatchNorm) for name in self.names}
        pools = set(POOLINGS) <= set(shared)
        self.pool_norms = [_by_layer([shared[name]], BatchNorm)[0] for name in POOLINGS] if pools else []
        direct = pools and stride == 1 and "identity" in columns
        by_kernels = [*self.names, *(POOLINGS if pools else ()), *(["identity"] if direct else [])]
        self.direct, self.order = direct, tuple(columns[name] for name in by_kernels)
        self.others = AutogradOperations(
            columns,
            {name: [edge[name] for edge in edges] for name in edges[0] if name not in EDGE_OPERATIONS},
            {name: module for name, module in shared.items() if name not in by_kernels},
        )

    def parameters(self) -> list[Tensor]:
        """Return the weights by operation, by layer in it, by edge; then those of operations without kernels."""
        layers = [layer for of_name in self.convolutions.values() for of_layer in of_name for layer in of_layer]
        return [*(layer.weight for layer in layers), *self.others.parameters()]

    def prepared(self, group: EdgeGroup, dtype: torch.dtype) -> PreparedEdges:
        """Return the edges with their kernels in this type."""
        by_name = {
            name: EDGE_OPERATIONS[name].prepare(
                [side_by_side([layer.weight for layer in layers], dtype) for layers in self.convolutions[name]],
                self.count,
            )
            for name in self.names
        }
        return PreparedEdges(replace(group, edges=self.count, stride=self.stride), by_name)

    # ---- forward

    def forward(
        self,
        kernels: Kernels,
        x_FCHW: Tensor,
        edges: PreparedEdges,
        gathered: BatchStatistics | None,
    ) -> SavedEdges:
        """Return all that the kernels make of a node (F, C, H, W), which ``add`` adds to sums at any mixing weights."""
        pools = None
        if self.pool_norms:
            average, largest, which = kernels.pool(x_FCHW, self.stride)
            pairs = zip(self.pool_norms, (average, largest), strict=True)
            first, second = (EdgeNorms(layers, gathered).of(kernels, z) for layers, z in pairs)
            pools = SavedPools((first, second), which)
        inputs, operations = NodeInput(kernels, x_FCHW, edges.group), {}
        for name in self.names:
            norms = [EdgeNorms(layers, gathered) for layers in self.norms[name]]
            operations[name] = EDGE_OPERATIONS[name].forward(inputs, edges.kernels[name], norms)
        return SavedEdges(edges, pools, operations, None)

    def add(
        self,
        kernels: Kernels,
        x_FCHW: Tensor,
        made: SavedEdges,
        sums: NodeTensors,
        weights: MixingWeights,
        *,
        moves_statistics: bool,
    ) -> SavedEdges:
        """Add what ``forward`` has made to the later nodes' sums; return what the backward pass needs."""
        own = [normed for normed, _ in made.operations.values()]
        shared = self._shared(x_FCHW, made.pools)
        reached, group = sums.of(self.reached), made.edges.group
        if own or shared:
            kernels.add_mixed(reached, own, shared, weights.of(self.edges, self.order), begin=not sums.begun)
        elif not sums.begun:
            reached.zero_()
        sums.begun = True
        terms = None
        if self.others.terms:
            terms = self.others.forward(
                x_FCHW, group.frames, sums.each(self.reached), weights, self.edges,
                wants_grads=group.input_grad, moves_statistics=moves_statistics,
            )  # fmt: skip
        return made._replace(terms=terms).for_backward()

    def _shared(self, x_FCHW: Tensor, pools: SavedPools | None) -> list[Normed]:
        """Return what all edges share: both poolings and, at stride 1, identity."""
        return [*(pools.normed if pools else ()), *([unnormed(x_FCHW)] if self.direct else [])]

    # ---- backward

    def backward(
        self,
        kernels: Kernels,
        grads: NodeTensors,
        x_FCHW: Tensor,
        weights: MixingWeights,
        saved: SavedEdges,
        weights_grad: MixingGrad | None,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for an input of the cell, (F, C, H, W), and ``parameters``, from those of later nodes.

        That for an intermediate node is added to ``grads``, and None here. The gradient for the mixing weights goes
        into ``weights_grad`` where there is one.
        """
        into = None if self.number < INPUTS else grads.of(slice(self.number - INPUTS, self.number - INPUTS + 1))
        x_grad, parameter_grads = self._through_kernels(kernels, grads, x_FCHW, weights, saved, weights_grad, into)
        if saved.terms is None:
            return x_grad, parameter_grads
        of_terms, of_parameters = self.others.backward(
            grads.each(self.reached), saved.terms, weights, self.edges, weights_grad
        )
        if of_terms is not None and into is not None:
            into.add_(of_terms)
        elif of_terms is not None:
            x_grad = of_terms.contiguous(memory_format=torch.channels_last) if x_grad is None else x_grad.add_(of_terms)
        return x_grad, [*parameter_grads, *of_parameters]

    def _through_kernels(
        self, kernels: Kernels, grads: NodeTensors, x_FCHW: Tensor, weights: MixingWeights, saved: SavedEdges,
        weights_grad: MixingGrad | None, into: Tensor | None,
    ) -> tuple[Tensor | None, list[Tensor | None]]:  # fmt: skip
        """Go backwards through all operations that have kernels."""
        group = saved.edges.group
        nothing: list[Tensor | None] = [None] * sum(self.count * len(layers) for layers in self.convolutions.values())
        own = [normed for normed, _ in saved.operations.values()]
        shared = self._shared(x_FCHW, saved.pools)
        if not own and not shared:
            return None, nothing
        grad, weights_kO = grads.of(self.reached), weights.of(self.edges, self.order)
        sums = kernels.mixed_grad_sums(grad, own, shared, self.count)
        if weights_grad is not None:
            weights_grad.set(self.edges, self.order, sums[1:].sum(2).t())
        if not group.input_grad:
            return None, nothing
        z_grads = kernels.per_edge_grads(
            grad, own, weights_kO[:, : len(own)], sums[: 1 + len(own)], of_batch=group.of_batch
        )
        relu_grad, kernel_grads = self._through_operations(kernels, z_grads, x_FCHW, saved)
        if saved.pools is None:
            assert relu_grad is not None
            x_grad = torch.ops.aten.threshold_backward.grad_input(relu_grad, x_FCHW, 0, grad_input=relu_grad)
            if into is None:
                return x_grad, kernel_grads
            into.add_(x_grad)
            return None, kernel_grads
        of_shared = torch.cat([sums[:1], sums[1 + len(own) :]])
        average_grad, max_grad, *identity_grad = kernels.shared_grads(
            grad, shared, weights_kO[:, len(own) :], of_shared, of_batch=group.of_batch
        )
        x_grad = kernels.pool_grad(
            average_grad, max_grad, saved.pools.which, x_FCHW, self.stride, relu_grad,
            identity_grad[0] if identity_grad else None, into,
        )  # fmt: skip
        return x_grad if into is None else None, kernel_grads

    def _through_operations(
        self, kernels: Kernels, z_grads: list[Any], x_FCHW: Tensor, saved: SavedEdges
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients for ReLU(x) and for the kernels from those of what the last BN have seen."""
        inputs, relu_grad = NodeInput(kernels, x_FCHW, saved.edges.group), None
        kernel_grads: list[Tensor | None] = []
        for name in self.names:
            _, rest = saved.operations.pop(name)  # what has been used is given back at once
            relu_grad, of_layers = EDGE_OPERATIONS[name].backward(
                z_grads.pop(0), inputs, saved.edges.kernels[name], rest, relu_grad
            )
            for of_layer in of_layers:
                kernel_grads += [None] * self.count if of_layer is None else of_layer.chunk(self.count)
        return relu_grad, kernel_grads


def side_by_side(kernels: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return 3-D kernels (C, ., 1, kh, kw) or (C, ., kt, 1, 1) one after another, as 2-D ones."""
    # Squeezed first: of more than four dimensions a GPU joins tensors one by one.
    parts = [kernel.squeeze(2) if kernel.shape[2] == 1 else kernel.squeeze(-1) for kernel in kernels]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(dtype)


def _by_layer(operations: Sequence[nn.Module], kind: type[nn.Module]) -> list[list[Any]]:
    """Return the layers of a kind in some equal operations: by position in the operation, then by operation."""
    layers = [[layer for layer in operation.modules() if isinstance(layer, kind)] for operation in operations]
    return [list(layer) for layer in zip(*layers, strict=True)]
