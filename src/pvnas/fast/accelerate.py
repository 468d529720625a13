"""Fast cells in the place of a network's, and what the two passes of a search step share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pvnas.fast.search_cell import FastSearchCell, StepCache
from pvnas.fast.training_cell import FastTrainingCell
from pvnas.space.network import DerivedCell, PVNASNetwork
from pvnas.space.search_cell import SearchCell
from pvnas.space.supernet import Supernet, frozen, momenta


def accelerate(network: Supernet, *, checkpointing: bool = False) -> Supernet:
    """Put fast cells in the place of a supernet's, in place, and return it: the same parameters and numbers.

    Kernels are chosen by the clips' device and type (``kernels.kernels_for``). ``checkpointing``: a cell keeps its
    output alone and makes the rest again in the backward pass.
    """
    for number, cell in enumerate(network.cells):
        if isinstance(cell, SearchCell):
            network.cells[number] = FastSearchCell(cell, checkpointing=checkpointing)
    if isinstance(network.stem, nn.Sequential):
        network.stem = SharedStem(network.stem)
    return network


def accelerate_training(network: PVNASNetwork) -> PVNASNetwork:
    """Put fast cells in the place of a derived network's, in place, and return it: the same names and numbers.

    Kernels are chosen by the clips' device and type. Cells of PyTorch's own 3-D layers stay as they are.
    """
    for number, cell in enumerate(network.cells):
        if isinstance(cell, DerivedCell) and cell.shares_relu:
            network.cells[number] = FastTrainingCell(cell)
            network.shares_relu = False  # they read through it
    return network


class SharedStem(nn.Sequential):
    """A stem whose output two passes may share: the alpha half-step's leaves it to the weight half-step's."""

    def __init__(self, stem: nn.Sequential) -> None:
        super().__init__(*stem)
        self.norms = [(layer, layer.momentum) for layer in stem if isinstance(layer, nn.BatchNorm3d)]
        self.sharing = False
        self.left: Tensor | None = None
        """The output of the first pass, whose backward pass reaches the stem's parameters."""

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """Return what the stem makes, or has made. Where passes share it, its statistics move once, in the first."""
        parameters = list(self.parameters())
        if self.sharing and torch.is_grad_enabled():
            if not parameters[0].requires_grad:
                with frozen(parameters, frozen=False), momenta(self.norms):  # which move although they are frozen
                    self.left = super().forward(x_NCTHW)
                return self.left.detach()
            left, self.left = self.left, None
            if left is not None:
                return left
        y: Tensor = super().forward(x_NCTHW)
        return y


@contextmanager
def shared_passes(network: Supernet) -> Iterator[None]:
    """Let an alpha step's pass leave to the weight step's what is the same in both.

    That are the stem, the edges which it alone reaches, all but their mixing weights, and what is made of kernels
    alone. The numbers are those of two separate passes. Within, no more than one pass of each kind, alpha first, and
    no change of the clips, the weights, the precision or the mode between them. Without fast cells it does nothing.
    """
    cells = [cell for cell in network.cells if isinstance(cell, FastSearchCell) and not cell.checkpointing]
    stem = network.stem if isinstance(network.stem, SharedStem) else None
    for cell in cells:
        cell.step = StepCache()
    if stem is not None:
        stem.sharing = True
    try:
        yield
    finally:
        if stem is not None:
            stem.sharing, stem.left = False, None
        for cell in cells:
            cell.step = None
