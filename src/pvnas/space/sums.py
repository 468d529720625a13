"""The sums that the intermediate nodes of a relaxed cell are, made in place, and the forms in which they are read.

Legend: F folded frames, C channels of the cell, I = 4 intermediate nodes, k of them, P = F*H*W pixels and M = P*C
elements of a node.

They lie one after another, each dense in channels-last memory: (I, F, H, W, C).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pvnas.space.genotype import NODES
from pvnas.space.norms import NormState


class Sums:
    """The sums of the intermediate nodes while edges add to them; the shifts of all BN are added last, once a node."""

    def __init__(self, x_FCHW: Tensor, stride: int, dtype: torch.dtype) -> None:
        """``x_FCHW``: an input of the cell; ``dtype``: of the mixing weights."""
        f, c, h, w = x_FCHW.shape
        self.values_IFHWC = x_FCHW.new_empty(NODES, f, -(-h // stride), -(-w // stride), c)
        self._shifts_IC = x_FCHW.new_zeros(NODES, c, dtype=dtype)
        self._begun = False

    def add(self, nodes: slice, x_FCHW: Tensor, factor_k1: Tensor) -> None:
        """Add the same pictures (F, C, H, W), times a factor for each, to k nodes.

        The first addition of all, of this or of ``add_normed``, sets the values: it must be to all nodes.
        """
        self._add(self.values_IFHWC[nodes].flatten(1, 3), _pixels(x_FCHW, 1), factor_k1[:, None])

    def add_normed(self, nodes: slice, x_FCHW: Tensor, state: NormState, scale_kC: Tensor) -> None:
        """Add BN times its scale to k nodes: of pictures of their own (F, kC, H, W), or of the same (F, C, H, W)."""
        values_kPC = self.values_IFHWC[nodes].flatten(1, 3)
        c = values_kPC.shape[2]
        mean, inverse_std = state.mean.view(-1, c), state.inverse_std.view(-1, c)
        factor_kC = inverse_std * scale_kC.view(-1, c)
        self._shifts_IC[nodes].addcmul_(mean, factor_kC, value=-1)
        self._add(values_kPC, _pixels(x_FCHW, len(mean)), factor_kC[:, None])

    def _add(self, values_kPC: Tensor, x_kPC: Tensor, factor: Tensor) -> None:
        if self._begun:
            values_kPC.addcmul_(x_kPC, factor)
        else:
            torch.mul(x_kPC, factor, out=values_kPC)
            self._begun = True

    def complete(self, node: int) -> Tensor:
        """Return a node's sum, to which nothing more will be added, (F, C, H, W)."""
        return self.values_IFHWC[node].add_(self._shifts_IC[node]).permute(0, 3, 1, 2)

    def joined(self) -> Tensor:
        """Return the sums of all nodes side by side, (F, 4C, H, W)."""
        return side_by_side(self.values_IFHWC)


class NodeGradients:
    """The gradients of the intermediate nodes; those of later nodes are added as they are found."""

    def __init__(self, gradient_FCHW: Tensor) -> None:
        """``gradient_FCHW``: of all nodes side by side, (F, 4C, H, W)."""
        self.values_IFHWC = _node_by_node(gradient_FCHW)

    def of(self, nodes: slice) -> Tensor:
        """Return the view (k, F, H, W, C) of some nodes."""
        return self.values_IFHWC[nodes]

    def add(self, node: int, dx_FCHW: Tensor) -> None:
        """Add to the gradient of a node."""
        self.values_IFHWC[node] += dx_FCHW.permute(0, 2, 3, 1)


def dense(x_FCHW: Tensor) -> Tensor:
    """Return x in dense channels-last memory."""
    return x_FCHW.contiguous(memory_format=torch.channels_last)


def side_by_side(x_kFHWC: Tensor) -> Tensor:
    """Return the pictures of k edges or nodes side by side, dense in channels-last memory: (F, kC, H, W)."""
    pictures = [x_FHWC.permute(0, 3, 1, 2) for x_FHWC in x_kFHWC]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures, 1)


def _node_by_node(x_FCHW: Tensor) -> Tensor:
    """Return a copy (I, F, H, W, C) of the intermediate nodes' pictures side by side, (F, 4C, H, W)."""
    x_FHWIC = x_FCHW.permute(0, 2, 3, 1).unflatten(3, (NODES, -1))
    return x_FHWIC.permute(3, 0, 1, 2, 4).clone(memory_format=torch.contiguous_format)


def as_row(x_FCHW: Tensor) -> Tensor:
    """Return the view (M,) of dense channels-last pictures."""
    return x_FCHW.permute(0, 2, 3, 1).view(-1)


def as_picture(row_M: Tensor, like_FCHW: Tensor) -> Tensor:
    """Return the view (F, C, H, W) of a row."""
    f, c, h, w = like_FCHW.shape
    return row_M.view(f, h, w, c).permute(0, 3, 1, 2)


def _pixels(x_FCHW: Tensor, k: int) -> Tensor:
    """Return the view (k, P, C) of k pictures side by side, (F, kC, H, W)."""
    return x_FCHW.permute(0, 2, 3, 1).reshape(-1, k, x_FCHW.shape[1] // k).transpose(0, 1)
