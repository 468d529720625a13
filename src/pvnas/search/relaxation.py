"""What a search on few videos may do otherwise than the paper: a falling temperature, operations dropped at random.

All of it follows from the config, the time and a step's seed: no checkpoint holds any of it.
"""

import torch
from torch import Tensor

from pvnas.config import AlphaOptimizerConfig, SearchConfig
from pvnas.runtime.random import generator
from pvnas.space.genotype import EDGES, INPUTS, NODES, ZERO, operations_of
from pvnas.space.supernet import Relaxation, Supernet


def temperature_at(alphas: AlphaOptimizerConfig, epoch: float, epochs: int) -> float:
    """Return what the alphas are divided by after ``epoch`` (a fraction within an epoch) of ``epochs`` epochs.

    From temperature to final_temperature, by the same factor in every step. 1 is the paper's.
    """
    return alphas.temperature * (alphas.final_temperature / alphas.temperature) ** (epoch / epochs)


def has_temperature(alphas: AlphaOptimizerConfig) -> bool:
    """Return whether the softmax has another temperature than the paper's at any time."""
    return (alphas.temperature, alphas.final_temperature) != (1.0, 1.0)


def relaxation_at(
    network: Supernet, config: SearchConfig, epoch: float, drop_seed: int | None = None
) -> Relaxation | None:
    """Return how a pass after ``epoch`` epochs makes its mixing weights; None where it is the paper's way.

    ``drop_seed``: of the operations that it drops; None drops none.
    """
    drops = config.drop_path > 0 and drop_seed is not None
    if not has_temperature(config.alphas) and not drops:
        return None
    like = next(iter(network.architecture_parameters().values()))
    value = temperature_at(config.alphas, epoch, config.epochs)
    temperature = torch.full((), value, dtype=like.dtype, device=like.device)
    if drop_seed is None or not drops:
        return Relaxation(temperature)
    draw = generator(drop_seed, "drop-path")
    factors = [drop_factors(category, config.drop_path, draw) for category in network.categories]
    return Relaxation(temperature, tuple(f.to(like, non_blocking=True) for f in factors))


def drop_factors(category: str, probability: float, draw: torch.Generator) -> Tensor:
    """Return factors (E, O) on a cell's mixing weights: 0 for a dropped operation, the others so that their mean is 1.

    A node that would lose all of its operations keeps them all: with nothing to sum it would send a constant on, and
    the batch norms behind it would blow up what little is left.
    """
    names = operations_of(category)
    adds_O = torch.tensor([name != ZERO for name in names])
    factors_EO = (torch.rand(len(EDGES), len(names), generator=draw, dtype=torch.float64) >= probability).double()
    for node in range(INPUTS, INPUTS + NODES):
        incoming_E = torch.tensor([target == node for target, _ in EDGES])
        operations = int(incoming_E.sum() * adds_O.sum())
        if not factors_EO[incoming_E][:, adds_O].any():
            factors_EO[incoming_E] = 1.0
        factors_EO[incoming_E] /= 1.0 - probability + probability**operations  # how often an operation is kept
    return factors_EO
