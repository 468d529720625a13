"""The best genotype whose network is fast enough on a machine: guided by a fit, promised by a measurement.

Milliseconds are no sum over edges as parameters and multiply-accumulates are, so nothing can be exact here. A fit over
the kinds of edges, to random genotypes that are measured, says which to try; what it says of a single network may be
off by a tenth. So the network that is tried is measured itself, the fit is corrected by that, and the promise is the
measurement. Who measures is handed in: this module knows nothing of devices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from torch import Tensor

from pvnas.errors import UserError
from pvnas.search.budget import Limits, Scores, derive_within
from pvnas.search.derive import derive
from pvnas.space.cost_table import CostTable, Kind, kind_of
from pvnas.space.genotype import Genotype, random_genotype

SAMPLES, ROUNDS = 40, 5
AIM, ACCEPTED = 0.95, 0.97
"""Shares of the limit: what a fit must promise, and what a measurement may be, since the next one is another one."""
CHARGES, BISECTIONS = (1e-6, 1e6), 24
"""Of a millisecond, in log score; what halves their ratio so often is exact enough beside a fit."""
WELL_USED = 0.9
"""Share of the limit from which on no better network is looked for."""
FEWEST_RUNS, RUNS = 3, 30
"""Of a network that the fit is made from, and of one that may be taken."""


class Timing(NamedTuple):
    """How long a network takes for a batch of views."""

    median_ms: float
    p95_ms: float
    """Of twenty runs one takes longer."""
    runs: int


class Clock(Protocol):
    """Measures networks, of which one must not take more than its milliseconds."""

    @property
    def most_ms(self) -> float:
        """The limit."""

    @property
    def where(self) -> str:
        """In words: of what and on which machine."""

    @property
    def advice(self) -> str:
        """What to type where no network is fast enough."""

    def __call__(self, genotypes: Sequence[Genotype], runs: int) -> Sequence[Timing]:
        """Measure the networks of genotypes, each so many times; each call is a fresh look at the machine."""


def cheapest(table: CostTable, alphas: Mapping[str, Tensor], limits: Limits) -> Genotype:
    """Return a genotype of the fewest multiply-accumulates within the limits."""
    charges = {kind: float(price.macs) for kind, price in table.operations.items()}
    return derive_within({name: 0 * alpha for name, alpha in alphas.items()}, table, limits, charges)


def derive_in_time(
    alphas: Mapping[str, Tensor], table: CostTable, limits: Limits, clock: Clock
) -> tuple[Genotype, dict[str, Any]]:
    """Return the genotype of the highest sum of log scores that was found within limits and time, and how.

    That is the one that limits alone allow, where it is fast enough. Else SAMPLES random genotypes are measured, and in
    at most ROUNDS the best one that the fit takes for fast enough, the fit being corrected by the last one measured.
    Raises UserError where not even the cheapest network is fast enough.
    """
    scores, most_ms = Scores(alphas), clock.most_ms
    free, best, least = derive(alphas), derive_within(alphas, table, limits), cheapest(table, alphas, limits)
    tried = {best: measure_twice(clock, best)}
    rounds: list[dict[str, float]] = []
    error = None
    if tried[best].median_ms > ACCEPTED * most_ms:
        tried[least] = measure_twice(clock, least)
        random = [random_genotype(seed) for seed in range(SAMPLES)]
        samples = list(zip(random, (timing.median_ms for timing in clock(random, FEWEST_RUNS)), strict=True))
        samples += [(genotype, timing.median_ms) for genotype, timing in tried.items()]
        fit = LatencyFit.to(table, samples)
        error, correction = fit.error, 1.0
        for _ in range(ROUNDS):
            genotype = _best_by(fit.scaled(correction), alphas, table, limits, AIM * most_ms)
            if genotype in tried:
                break
            tried[genotype] = timing = measure_twice(clock, genotype)
            rounds.append({"fitted_ms": round(correction * fit.of(genotype), 3), "median_ms": timing.median_ms})
            correction = timing.median_ms / fit.of(genotype)
            if WELL_USED <= timing.median_ms / most_ms <= ACCEPTED:  # nothing much better can be found
                break
    fast = [genotype for genotype, timing in tried.items() if timing.median_ms <= ACCEPTED * most_ms]
    if not fast:
        raise UserError(too_slow(min(tried.values()), clock))
    found = max(fast, key=scores.of)
    return found, {
        "latency_ms": most_ms,
        "latency_of": clock.where,
        "latency": tried[found]._asdict(),
        "latency_without": (tried.get(free) or measure_twice(clock, free))._asdict(),
        "latency_fit_error": error,
        "latency_rounds": rounds,
    }


def too_slow(fastest: Timing, clock: Clock) -> str:
    """Return what to say of a limit that the fastest network known does not keep."""
    return (
        f"no network of this layout, width and clip is known to keep budget.latency_ms {clock.most_ms:g}, of which "
        f"{100 * ACCEPTED:.0f} % may be used: the fastest that was measured takes {fastest.median_ms:.3g} ms for "
        f"{clock.where}; {clock.advice}"
    )


def measure_twice(clock: Clock, genotype: Genotype) -> Timing:
    """Return the slower of two looks at a network."""
    return max(clock([genotype], RUNS)[0] for _ in range(2))


def _best_by(
    fit: LatencyFit, alphas: Mapping[str, Tensor], table: CostTable, limits: Limits, most_ms: float
) -> Genotype:
    """Return the best genotype within limits that a fit takes for fast enough; where there is none, its fastest.

    A millisecond is charged for in log score, as little as is enough: bisection over the charge finds it.
    """
    scores, low, high = Scores(alphas), *CHARGES
    found: Genotype | None = None
    for _ in range(BISECTIONS):
        charge = math.sqrt(low * high)
        charges = {kind: charge * milliseconds for kind, milliseconds in fit.operations.items()}
        genotype = derive_within(alphas, table, limits, charges)
        if fit.of(genotype) <= most_ms:
            high = charge
            found = genotype if found is None else max(found, genotype, key=scores.of)
        else:
            low = charge
    return found or genotype


@dataclass(frozen=True)
class LatencyFit:
    """Milliseconds as a constant and a sum over kept edges."""

    constant: float
    operations: Mapping[Kind, float]
    error: float
    """Mean error in predicting a genotype that was left out of the fit, as a share of what was measured."""

    def of(self, genotype: Genotype) -> float:
        """Return the milliseconds of a genotype's network."""
        kinds = (kind_of(category, edge) for category, _, edge in genotype.edges())
        return self.constant + math.fsum(self.operations.get(kind, 0.0) for kind in kinds)

    def scaled(self, factor: float) -> Self:
        """Return the fit of a machine that takes so many times as long."""
        operations = {kind: factor * milliseconds for kind, milliseconds in self.operations.items()}
        return type(self)(factor * self.constant, operations, self.error)

    @classmethod
    def to(cls, table: CostTable, samples: Sequence[tuple[Genotype, float]]) -> Self:
        """Fit genotypes and the milliseconds of their networks.

        By ridge regression (Hoerl and Kennard, 1970) of relative errors: a constant and milliseconds per
        multiply-accumulate are free, and what kinds of operations take beyond that is held small, by as much as
        predicts genotypes that are left out best.
        """
        kinds = list(table.operations)
        counts = [Counter(kind_of(category, edge) for category, _, edge in genotype.edges()) for genotype, _ in samples]
        counts_SK = np.array([[count[kind] for kind in kinds] for count in counts], dtype=np.float64)
        scale = max(table.of(genotype).macs for genotype, _ in samples)
        macs_K = np.array([table.operations[kind].macs for kind in kinds]) / scale
        y_S = np.array([milliseconds for _, milliseconds in samples])
        x_SF = np.column_stack([np.ones(len(y_S)), counts_SK @ macs_K, counts_SK]) / y_S[:, None]
        fits = [_ridge(x_SF, strength) for strength in np.geomspace(1e-6, 1e2, 25) * np.mean(1 / y_S**2)]
        weights_F, error = min(fits, key=lambda fit: fit[1])
        operations = weights_F[1] * macs_K + weights_F[2:]
        return cls(float(weights_F[0]), dict(zip(kinds, operations.tolist(), strict=True)), round(error, 4))


def _ridge(x_SF: np.ndarray[Any, Any], strength: float) -> tuple[np.ndarray[Any, Any], float]:
    """Return weights for which all products are near 1, and the mean error where each sample is left out once."""
    held_F = np.full(x_SF.shape[1], strength)
    held_F[:2] = 1e-9 * strength
    solve_FS = np.linalg.solve(x_SF.T @ x_SF + np.diag(held_F), x_SF.T)
    weights_F = solve_FS.sum(1)
    leverage_S = np.einsum("sf,fs->s", x_SF, solve_FS)
    left_out_S = (1 - x_SF @ weights_F) / np.maximum(1 - leverage_S, 1e-9)
    return weights_F, float(np.abs(left_out_S).mean())
