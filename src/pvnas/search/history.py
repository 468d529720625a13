"""The alphas that a search leaves after each epoch, and the genotype that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from pvnas.config import NetworkConfig, RunConfig
from pvnas.errors import UserError
from pvnas.runtime.checkpoint import load_tensors
from pvnas.search.budget import Limits, Scores, derive_within
from pvnas.search.derive import collapse_record, derive, effective_alphas
from pvnas.search.latency import Clock, derive_in_time
from pvnas.search.relaxation import has_temperature, temperature_at
from pvnas.space.cost_table import CostTable
from pvnas.space.genotype import Genotype
from pvnas.space.operations import operations_of, registered_operations

HISTORY = "alphas.safetensors"


def alpha_name(epoch: int, category: str = "") -> str:
    """Return the name that alphas after an epoch have in the history; 0: before the first."""
    return f"epoch_{epoch:03d}/{category}"


def final_epoch(config: RunConfig) -> int:
    """Return the epoch whose alphas a search ends with: the last, or the one that the config names."""
    return config.search.stop_epoch or config.search.epochs


def read_history(run_dir: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the alphas of all epochs that a search has left, by ``alpha_name``, and the categories of its cells.

    Raises UserError where it has left none.
    """
    path = run_dir / HISTORY
    if not path.is_file():
        raise UserError(f"{run_dir} holds no alphas of a search ({HISTORY}); search first: pvnas search DATA")
    alphas = load_tensors(path)
    return alphas, tuple(dict.fromkeys(name.partition("/")[2] for name in alphas))


def final_alphas(config: RunConfig, run_dir: Path) -> dict[str, Tensor]:
    """Return what the genotype of a finished search is derived from. Errors as of ``alphas_of_epoch``."""
    return alphas_of_epoch(config, final_epoch(config), *read_history(run_dir))


def limits_of(config: RunConfig) -> Limits:
    """Return what the config's budget allows a network."""
    return Limits(config.budget.params or None, config.budget.macs or None)


def price_table(config: RunConfig, classes: int) -> CostTable:
    """Return the prices of edges in the networks that a config derives, for one view of its test."""
    return _table(config.network, config.view, classes, tuple(registered_operations()))


@lru_cache(maxsize=32)
def _table(network: NetworkConfig, clip: tuple[int, int, int], classes: int, operations: tuple[str, ...]) -> CostTable:
    """Return the table, made once for the same operations: a plan asks for it again and again."""
    return CostTable.made_for(network, clip, classes)


def alphas_of_epoch(
    config: RunConfig, epoch: int, history: Mapping[str, Tensor], categories: Sequence[str]
) -> dict[str, Tensor]:
    """Return what the genotype of an epoch is derived from: of as many epochs as the config asks for.

    ``history``: alphas by ``alpha_name``. Raises UserError where it lacks one.
    """
    search = config.search
    epochs = range(max(1, epoch + 1 - search.derive_epochs), epoch + 1)
    if missing := [each for each in epochs if any(alpha_name(each, name) not in history for name in categories)]:
        mean_of = f", which search.derive_epochs {search.derive_epochs} needs" if len(epochs) > 1 else ""
        raise UserError(
            f"{HISTORY} lacks epoch {missing[0]}{mean_of}; a search that is not finished goes on with its own command, "
            "of another one search anew in another --dir"
        )
    if other := [n for n in categories if history[alpha_name(epoch, n)].shape[-1] != len(operations_of(n))]:
        raise UserError(
            f"{HISTORY}: {other[0]} was searched with other operations than there are; register those that it had"
        )
    by_epoch = [{name: history[alpha_name(each, name)] for name in categories} for each in epochs]
    return effective_alphas(by_epoch, [temperature_at(search.alphas, each, search.epochs) for each in epochs])


def genotype_of_epoch(
    config: RunConfig,
    epoch: int,
    history: Mapping[str, Tensor],
    categories: Sequence[str],
    table: CostTable | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
) -> Genotype:
    """Return the genotype of an epoch by the paper's rule, or with a table of prices the best within the limits.

    With a clock, of those whose network it measures within its milliseconds. The genotype's notes say where it is from,
    and what the limits have changed. Raises UserError where nothing is within them.
    """
    search = config.search
    alphas = alphas_of_epoch(config, epoch, history, categories)
    genotype = free = derive(alphas)
    about: dict[str, Any] = {"epoch": epoch, "seed": config.seed, "preset": config.preset}
    if search.derive_epochs > 1:
        about["mean_of_epochs"] = list(range(max(1, epoch + 1 - search.derive_epochs), epoch + 1))
    if has_temperature(search.alphas):
        about["temperature"] = temperature_at(search.alphas, epoch, search.epochs)
    if table is not None and limits is not None and (limits.any or clock):
        scores, measured = Scores(alphas), dict[str, Any]()
        if clock:
            genotype, measured = derive_in_time(alphas, table, limits, clock)
        else:
            genotype = derive_within(alphas, table, limits)
        about["budget"] = {
            **limits.given,
            **measured,
            "cost": table.of(genotype)._asdict(),
            "cost_without": table.of(free)._asdict(),
            "edges_changed": len(set(genotype.edges()) - set(free.edges())),
            "log_score": scores.of(genotype),
            "log_score_without": scores.of(free),
        }
    return genotype.with_about(**about, collapse=collapse_record(alphas, genotype))
