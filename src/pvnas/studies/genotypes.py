"""The cells that studies compare: random ones, those of a cost, and searched ones within a budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from pvnas.search.budget import Limits, derive_within
from pvnas.search.candidates import largest, sized
from pvnas.search.history import final_alphas, price_table
from pvnas.session import RESULTS
from pvnas.settings import dump_config, load_config
from pvnas.space.cost_table import CostTable
from pvnas.space.genotype import EDGES, Genotype, random_genotype
from pvnas.space.operations import operations_of
from pvnas.studies.parts import Part

MACS_WITHIN = 0.05
MOST_DRAWS = 20_000


def write_drawn(path: Path, draw: Callable[[], Genotype]) -> None:
    """Write a genotype where none lies."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, draw().to_json())


def genotype_of_cost(config: RunConfig, base: Part, seed: int) -> Genotype:
    """Return the first of a seed's random genotypes whose MACs are within 5 % of those of a tested run's network.

    Of any number of convolutions: what is searched may be cheaper than any network with four in every cell. Each seed
    draws genotypes that no other does. Raises UserError where MOST_DRAWS have none.
    """
    results = _results(base)
    clip, classes, asked = tuple(results["clip"]), len(results["classes"]), results["macs_per_view"]
    if found := genotype_near(CostTable.made_for(config.network, clip, classes), asked, seed):
        return found
    raise UserError(
        f"{base.run_dir}: of {MOST_DRAWS} random genotypes none has its multiply-accumulates ({asked:,}) within 5 %"
    )


def genotype_near(table: CostTable, asked: int, seed: int) -> Genotype | None:
    """Return the first of a seed's random genotypes whose MACs are within 5 % of those asked for.

    None where MOST_DRAWS have none.
    """
    for draw in range(MOST_DRAWS):
        genotype = random_genotype(MOST_DRAWS * (seed + 1) + draw)
        if abs(table.of(genotype).macs - asked) <= MACS_WITHIN * asked:
            return genotype
    return None


def _results(part: Part) -> dict[str, Any]:
    return dict(json.loads((part.run_dir / RESULTS).read_bytes()))


@dataclass(frozen=True)
class Budget:
    """The cells of a searched run within a share of its multiply-accumulates, and files for them.

    At the width of the run, or where that is too wide for any cells, at the widest that the run's own cells keep it
    with.
    """

    config: RunConfig
    base: Part
    share: int
    """Percent."""
    folder: Path

    def _named(self, kind: str, ending: str) -> Path:
        return self.folder / f"{kind}-{self.share}-{self.base.run_dir.name}.{ending}"

    @property
    def genotype(self) -> Path:
        return self._named("within", "json")

    @property
    def random(self) -> Path:
        return self._named("random", "json")

    @property
    def file(self) -> Path:
        """The config of all runs, with another width where it needs one."""
        return self._named("within", "yaml")

    def write(self) -> None:
        """Write the cells and the config."""
        if self.genotype.exists() and self.file.exists():
            return
        results = _results(self.base)
        classes, limits = len(results["classes"]), Limits(macs=results["macs_per_view"] * self.share // 100)
        free, alphas = Genotype.load(self.base.genotype), final_alphas(self.config, self.base.run_dir)

        def at(width: int) -> tuple[RunConfig, CostTable]:
            config = sized(self.config, width, self.config.train.repeat)
            return config, price_table(config, classes)

        config, table = at(self.config.train.width)
        try:
            genotype = derive_within(alphas, table, limits)
        except UserError:
            config, table = at(largest(lambda width: limits.allow(at(width)[1].of(free)), step=2))
            genotype = derive_within(alphas, table, limits)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.file, dump_config(config))
        write_atomic(self.genotype, genotype.with_about(macs=table.of(genotype).macs).to_json())

    def write_random(self, seed: int) -> None:
        """Write random cells of the same cost: the seed's first that are near, else the best by random alphas."""
        self.write()
        config, results = load_config(file=self.file), _results(self.base)
        table, asked = price_table(config, len(results["classes"])), Genotype.load(self.genotype).about["macs"]
        categories = tuple(Genotype.load(self.genotype).cells)

        def draw() -> Genotype:
            if near := genotype_near(table, asked, seed):
                return near
            noise = torch.Generator().manual_seed(seed)
            alphas = {name: torch.randn(len(EDGES), len(operations_of(name)), generator=noise) for name in categories}
            return derive_within(alphas, table, Limits(macs=asked))

        write_drawn(self.random, draw)
