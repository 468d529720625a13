"""Alphas that tests draw."""

import torch
from torch import Tensor

from pvnas.space.genotype import CATEGORIES, EDGES, operations_of


def alphas_of(seed: int, scale: float = 0.3) -> dict[str, Tensor]:
    """Return alphas of all categories, drawn from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(len(EDGES), len(operations_of(name)), generator=generator) for name in CATEGORIES}
