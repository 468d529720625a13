"""Operations that leave one node and have no kernels: autograd takes them, each as ``space`` builds it.

Legend: N clips, C channels of the cell, T frames, F = N*T folded frames, k edges that leave the node.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pvnas.fast.mixing import MixingGrad, MixingWeights
from pvnas.space.layers import fold_time, unfold_time
from pvnas.space.supernet import frozen_statistics


class Term(NamedTuple):
    """One operation: of one of the k edges, or (None) shared by all since it has no parameters."""

    module: nn.Module
    column: int
    """Of the operation in alpha."""
    edge: int | None


class SavedTerms(NamedTuple):
    """What the backward pass needs: the node as a leaf of autograd's graph, and what each term made of it."""

    x: Tensor
    outputs: list[Tensor]


class AutogradOperations:
    """Those of one node. ``per_edge``: modules by name, one for each edge that leaves; ``shared``: one by name."""

    def __init__(
        self, columns: Mapping[str, int], per_edge: Mapping[str, Sequence[nn.Module]], shared: Mapping[str, nn.Module]
    ) -> None:
        self.terms = [
            Term(one, columns[name], edge) for name, each in per_edge.items() for edge, one in enumerate(each)
        ]
        self.terms += [Term(module, columns[name], None) for name, module in shared.items()]

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all terms."""
        return [parameter for term in self.terms for parameter in term.module.parameters()]

    def forward(
        self, x_FCHW: Tensor, frames: int, sums: Sequence[Tensor], weights: MixingWeights, edges: slice,
        *, wants_grads: bool, moves_statistics: bool,
    ) -> SavedTerms:  # fmt: skip
        """Add all terms, times their weights, to the sums (F, C, H', W') of the k nodes that the edges lead to."""
        x, outputs = separate_leaf(x_FCHW, frames, wants_grads=wants_grads), []
        for module, column, edge in self.terms:
            outputs.append(output_of(module, x, moves_statistics=moves_statistics))
            y_FCHW = fold_time(outputs[-1].detach())
            weights_k = weights.of(edges, (column,))
            for reached in range(len(sums)) if edge is None else (edge,):
                sums[reached].add_((weights_k[reached] * y_FCHW).to(x.dtype))
        return SavedTerms(x, outputs)

    def backward(
        self, grads: Sequence[Tensor], saved: SavedTerms, weights: MixingWeights, edges: slice,
        weights_grad: MixingGrad | None,
    ) -> tuple[Tensor | None, list[Tensor | None]]:  # fmt: skip
        """Return the gradients for the node (F, C, H, W) and ``parameters``, from those of the k nodes reached.

        None where ``forward`` was not told that it wants them.
        """
        columns = tuple(dict.fromkeys(term.column for term in self.terms))
        weights_kO = weights.of(edges, columns)
        weights_kO_grad, output_grads = torch.zeros_like(weights_kO), []
        for (_, column, edge), y in zip(self.terms, saved.outputs, strict=True):
            o, y_FCHW = columns.index(column), fold_time(y.detach())
            reached = range(len(grads)) if edge is None else (edge,)
            if weights_grad is not None:
                for node in reached:
                    weights_kO_grad[node, o] = (grads[node] * y_FCHW).sum(dtype=weights_kO.dtype)
            weights_k = weights_kO[:, o : o + 1]  # of a dimension: so halves are multiplied in the type of the weights
            mixed = torch.stack([weights_k[node] * grads[node] for node in reached]).sum(0).to(y.dtype)
            output_grads.append(unfold_time(mixed, y.shape[2]))
        if weights_grad is not None:
            weights_grad.set(edges, columns, weights_kO_grad)
        if not saved.x.requires_grad:
            return None, [None] * len(self.parameters())
        wanted = [saved.x, *(p for p in self.parameters() if p.requires_grad)]
        x_grad, *rest = torch.autograd.grad(saved.outputs, wanted, output_grads, allow_unused=True)
        of_parameters = [rest.pop(0) if p.requires_grad else None for p in self.parameters()]
        return None if x_grad is None else fold_time(x_grad), of_parameters


def separate_leaf(x_FCHW: Tensor, frames: int, *, wants_grads: bool) -> Tensor:
    """Return a node as a leaf of a graph of autograd's of its own, (N, C, T, H, W).

    A copy: a node lies among others, whose sums go on being made, and autograd wants what it saves unchanged.
    """
    copy = x_FCHW.clone(memory_format=torch.channels_last)
    return unfold_time(copy, frames).detach().requires_grad_(wants_grads)


def output_of(module: nn.Module, x: Tensor, *, moves_statistics: bool) -> Tensor:
    """Return what a module makes of a ``separate_leaf``, under autocast where that is of half precision."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    with (
        torch.set_grad_enabled(x.requires_grad),
        torch.autocast(x.device.type, x.dtype if half else torch.bfloat16, enabled=half),
        nullcontext() if moves_statistics else frozen_statistics(module),
    ):
        y: Tensor = module(x)
    return y
