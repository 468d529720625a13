"""The seven studies: what each one trains, and what the paper, or this project, claims of it.

A study is a function of a setting that returns its arms (what is compared, a run for each seed) and its claims (which
arm is said to be better than which). A new one is a function here, with ``study`` above it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pvnas.config import LOCATION_FIELDS, DataConfig, RunConfig
from pvnas.errors import UserError
from pvnas.peers import PEERS
from pvnas.search.history import final_epoch
from pvnas.session import GENOTYPE
from pvnas.settings import CONFIG_NAME, get_field, plain
from pvnas.space.genotype import random_genotype
from pvnas.studies.genotypes import Budget, genotype_of_cost, write_drawn
from pvnas.studies.parts import Part

MIN_CONVOLUTIONS = 4  # in every cell of a random genotype (table 3)
BUDGETS = (25, 50, 75)  # percent
COMPARED_PEERS = ("residual", "r2plus1d-18", "slowonly-r50", "x3d-s", "tsm-r50")


@dataclass(frozen=True)
class Arm:
    """One of the things that a study compares."""

    name: str
    what: str
    parts: Mapping[int, Part]
    """By seed."""


@dataclass(frozen=True)
class Claim:
    """That one arm is better than another, and who says so."""

    text: str
    better: str
    than: str


@dataclass(frozen=True)
class Study:
    """Arms and claims. ``counts``: whether operations without parameters are what it is about, too."""

    name: str
    title: str
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    counts: bool = False

    @property
    def parts(self) -> list[Part]:
        return [part for arm in self.arms for part in arm.parts.values()]


@dataclass(frozen=True)
class Setting:
    """On what and how a study is made: its folder holds the config of all runs."""

    folder: Path
    config: RunConfig
    seeds: tuple[int, ...]
    other: str | None = None
    """Another set of videos, to search on (transfer)."""
    harmless: Mapping[str, object] = field(default_factory=dict)
    """Fields that change no number, such as a number of workers, as they were typed now."""
    moved: Mapping[str, object] = field(default_factory=dict)
    """Fields that say where the videos lie, as they were typed now."""

    def searched(self, seed: int) -> Part:
        """Return the run that all studies compare with: searched, trained and tested as the config says."""
        return self.run("searched", seed)

    def run(self, name: str, seed: int, **fields: object) -> Part:
        """Return a search with what follows it, with other values of some fields (``search__width=8``)."""
        return Part(self.folder, f"{name}/seed-{seed}", ("run", *self._words(seed, fields)))

    def training(
        self,
        name: str,
        seed: int,
        genotype: Path,
        needs: Sequence[Part] = (),
        file: Path | None = None,
        **fields: object,
    ) -> Part:
        """Return the training and test of a genotype; ``file``: with the config, where it is not that of all runs."""
        words = ("train", *self._words(seed, fields | self._no_budget, file=file), "--genotype", str(genotype))
        return Part(self.folder, f"{name}/seed-{seed}", words, tuple(needs))

    def peer(self, name: str, seed: int, peer: str, macs_of: Part | None = None) -> Part:
        """Return the training and test of a published network, of its own width or with another run's MACs."""
        words = ("train", *self._words(seed, self._no_budget), "--peer", peer)
        if macs_of is None:
            return Part(self.folder, f"{name}/seed-{seed}", words)
        return Part(self.folder, f"{name}/seed-{seed}", (*words, "--macs-of", str(macs_of.run_dir)), (macs_of,))

    def search_elsewhere(self, name: str, seed: int) -> Part:
        """Return a search alone, on the other set, which is listed as it is found."""
        assert self.other is not None
        fresh = DataConfig()
        as_found = {
            name.replace(".", "__"): getattr(fresh, name.partition(".")[2])
            for name in sorted(LOCATION_FIELDS - {"data.path"})
            if get_field(self.config, name) != getattr(fresh, name.partition(".")[2])
        }
        words = ("search", *self._words(seed, as_found, self.other))
        return Part(self.folder, f"{name}/seed-{seed}", words, ends_in=GENOTYPE)

    @property
    def _no_budget(self) -> dict[str, object]:
        """What takes the budget, of what is searched, from a network that is given."""
        budget = self.config.budget
        limits: dict[str, object] = {f"budget__{name}": 0 for name in ("params", "macs") if getattr(budget, name)}
        return limits | ({"budget__pressure": False} if budget.pressure else {})

    def _words(
        self, seed: int, fields: Mapping[str, object], videos: str = "", file: Path | None = None
    ) -> tuple[str, ...]:
        config = str(file or self.folder / CONFIG_NAME)
        own = {name.replace("__", "."): value for name, value in fields.items()}
        own |= {**self.harmless, **({} if videos else self.moved)}
        options = [f"--{name}={plain(value)}" for name, value in own.items()]
        return (videos or self.config.data.path, "--config", config, "--seed", str(seed), *options)


STUDIES: dict[str, Callable[[Setting], Study]] = {}
OURS = ("budgets",)
"""Those that are not about a claim of the paper."""


def study(function: Callable[[Setting], Study]) -> Callable[[Setting], Study]:
    """Register a study under the name of its function."""
    STUDIES[function.__name__] = function
    return function


@study
def schedules(setting: Setting) -> Study:
    """Step, cosine and constant rates of the weights, each with those of the alphas (section 3.3 and figure 4)."""
    kinds, config = ("step", "cosine", "constant"), setting.config
    usual = (config.search.weights.schedule.kind, config.search.alphas.schedule.kind)
    arms = []
    for weights in kinds:
        for alphas in kinds:
            name = f"w-{weights}_a-{alphas}"
            make = (
                setting.searched
                if (weights, alphas) == usual
                else partial(
                    setting.run,
                    f"schedules/{name}",
                    search__weights__schedule__kind=weights,
                    search__alphas__schedule__kind=alphas,
                )
            )
            what = f"weights' rate {weights}, alphas' {alphas}"
            arms.append(Arm(name, what, {seed: make(seed) for seed in setting.seeds}))
    step, cosine, constant = (f"w-{kind}_a-constant" for kind in kinds)
    claims = (
        Claim("a step schedule of the weights' rate ends in a better network than a cosine one", step, cosine),
        Claim("a step schedule of the weights' rate ends in a better network than a constant one", step, constant),
    )
    return Study("schedules", "Schedules of the search", tuple(arms), claims, counts=True)


@study
def stops(setting: Setting) -> Study:
    """Networks derived at a quarter, a half, three quarters and the end of one search, each trained (table 3)."""
    last = final_epoch(setting.config)
    arms = []
    for epoch in sorted({max(1, round(last * quarter / 4)) for quarter in (1, 2, 3)} - {last}):
        parts = {}
        for seed in setting.seeds:
            base = setting.searched(seed)
            genotype = base.run_dir / "genotypes" / f"epoch_{epoch:03d}.json"
            parts[seed] = setting.training(f"stops/epoch-{epoch:03d}", seed, genotype, [base])
        arms.append(Arm(f"epoch-{epoch:03d}", f"cells of epoch {epoch} of {last}", parts))
    arms.append(_searched(setting, f"cells of the last epoch, {last}"))
    claims = tuple(
        Claim(f"a search of {last} epochs ends in a better network than its {arm.what}", "searched", arm.name)
        for arm in arms[:-1]
    )
    return Study("stops", "When the search is stopped", tuple(arms), claims)


@study
def widths(setting: Setting) -> Study:
    """The searched cells at half, one and twice the width (table 3)."""
    width = setting.config.train.width
    arms = [_searched(setting, f"{width} channels in the first cells")]
    for name, channels in (("half", max(1, width // 2)), ("double", 2 * width)):
        parts = {}
        for seed in setting.seeds:
            base = setting.searched(seed)
            parts[seed] = setting.training(f"widths/{name}", seed, base.genotype, [base], train__width=channels)
        arms.insert(0 if name == "half" else 2, Arm(name, f"{channels} channels in the first cells", parts))
    claims = (
        Claim("a wider network is better than one of half its width", "searched", "half"),
        Claim("a network of double width is better", "double", "searched"),
    )
    return Study("widths", "Width", tuple(arms), claims)


@study
def random(setting: Setting) -> Study:
    """Random genotypes, any and of the searched ones' cost, against searched ones (table 3)."""
    drawn, matched = {}, {}
    for seed in setting.seeds:
        base, folder = setting.searched(seed), setting.folder / "genotypes"
        genotype = folder / f"random-seed-{seed}.json"
        part = setting.training("random/drawn", seed, genotype)
        drawn[seed] = _prepared(part, partial(write_drawn, genotype, partial(random_genotype, seed, MIN_CONVOLUTIONS)))
        genotype = folder / f"matched-seed-{seed}.json"
        part = setting.training("random/matched", seed, genotype, [base])
        draw = partial(genotype_of_cost, setting.config, base, seed)
        matched[seed] = _prepared(part, partial(write_drawn, genotype, draw))
    convolutions = f"at least {MIN_CONVOLUTIONS} convolutions in every cell"
    arms = (
        _searched(setting, "searched"),
        Arm("drawn", f"random cells, {convolutions}", drawn),
        Arm("matched", "random cells whose multiply-accumulates are within 5 % of the searched ones'", matched),
    )
    claims = (
        Claim("searched cells are better than random ones", "searched", "drawn"),
        Claim("searched cells are better than random ones of the same cost", "searched", "matched"),
    )
    return Study("random", "Searched against random cells", arms, claims)


@study
def budgets(setting: Setting) -> Study:
    """The searched cells within shares of their multiply-accumulates, beside random ones of the same cost (ours)."""
    matched = next(arm for arm in random(setting).arms if arm.name == "matched")
    arms, claims = [_searched(setting, "searched, without a budget"), matched], list[Claim]()
    for share in BUDGETS:
        within, drawn = {}, {}
        for seed in setting.seeds:
            base, folder = setting.searched(seed), setting.folder / "genotypes"
            budget = Budget(setting.config, base, share, folder)
            part = setting.training(f"budgets/searched-{share}", seed, budget.genotype, [base], budget.file)
            within[seed] = _prepared(part, budget.write)
            part = setting.training(f"budgets/random-{share}", seed, budget.random, [base], budget.file)
            drawn[seed] = _prepared(part, partial(budget.write_random, seed))
        what = f"{share} % of the searched ones' multiply-accumulates"
        arms.append(Arm(f"searched-{share}", f"the best cells by the search within {what}", within))
        arms.append(Arm(f"random-{share}", f"random cells of about {what}", drawn))
        text = f"within {share} % of their cost searched cells are better than random ones of the same cost"
        claims.append(Claim(text, f"searched-{share}", f"random-{share}"))
    claims.append(Claim("searched cells are better than random ones of the same cost", "searched", "matched"))
    return Study("budgets", "Within a budget", tuple(arms), tuple(claims))


@study
def peers(setting: Setting) -> Study:
    """Published networks by the same recipe, at their own cost and at the searched ones' (figure 1)."""
    arms, claims = [_searched(setting, "PV-NAS, searched")], []
    for name in COMPARED_PEERS:
        own = {seed: setting.peer(f"peers/{name}", seed, name) for seed in setting.seeds}
        of_cost = {s: setting.peer(f"peers/{name}-matched", s, name, setting.searched(s)) for s in setting.seeds}
        if PEERS[name].params == PEERS[name].params:  # published at a size of its own
            arms.append(Arm(name, f"{name} at its published width", own))
        arms.append(Arm(f"{name}-matched", f"{name}, as wide as has the searched ones' MACs", of_cost))
        claims.append(Claim(f"a searched network is better than {name} of the same cost", "searched", arms[-1].name))
    return Study("peers", "Beside published networks", tuple(arms), tuple(claims))


@study
def transfer(setting: Setting) -> Study:
    """Cells that were searched on another set, against those searched here and random ones (table 2)."""
    if setting.other is None:
        raise UserError("transfer searches on another set, too: name it, with --searched-on OTHER_VIDEOS")
    transferred = {}
    for seed in setting.seeds:
        source = setting.search_elsewhere("transfer/search", seed)
        transferred[seed] = setting.training("transfer/trained", seed, source.genotype, [source])
    drawn = next(arm for arm in random(setting).arms if arm.name == "drawn")
    arms = (
        _searched(setting, "searched here"),
        Arm("transferred", f"searched on {in_a_line(Path(setting.other).name)}", transferred),
        drawn,
    )
    claims = (
        Claim("cells searched on another set are better than random ones", "transferred", "drawn"),
        Claim("cells searched here are better than those of another set", "searched", "transferred"),
    )
    return Study("transfer", "Cells of another set", arms, claims)


def in_a_line(name: str) -> str:
    """Return a name as Markdown shows it, with nothing in it that would end a line, a cell or a piece of code."""
    return re.sub(r"[\s`|<>\[\]*_\\]+", " ", name).strip() or "videos"


def _searched(setting: Setting, what: str) -> Arm:
    return Arm("searched", what, {seed: setting.searched(seed) for seed in setting.seeds})


def _prepared(part: Part, prepare: Callable[[], None]) -> Part:
    return Part(part.folder, part.name, part.words, part.needs, part.ends_in, prepare)
