"""What each study compares: its runs, their commands, and genotypes of a cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from pvnas.cli.commands.study import NAMES
from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.presets import laptop, tiny
from pvnas.runtime.checkpoint import save_tensors
from pvnas.search.budget import Limits, derive_within
from pvnas.search.derive import derive
from pvnas.search.history import HISTORY, alpha_name, price_table
from pvnas.settings import load_config
from pvnas.space.cost import network_cost
from pvnas.space.genotype import CATEGORIES, EDGES, Genotype, random_genotype
from pvnas.space.operations import operations_of
from pvnas.studies import genotypes
from pvnas.studies.experiments import BUDGETS, STUDIES, Setting
from pvnas.studies.genotypes import Budget, genotype_of_cost
from pvnas.studies.make import ALL, parts_of, studies_of
from pvnas.studies.parts import with_needs


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    config = laptop()
    config.data.path, config.search.epochs = "/videos/here", 10
    return Setting(tmp_path, config, (4, 5), "/videos/there")


def words(setting: Setting, study: str) -> dict[str, list[str]]:
    return {part.name: part.command for part in STUDIES[study](setting).parts}


def test_the_command_knows_them_all() -> None:
    assert set(get_args(NAMES)) == {*STUDIES, ALL}


def test_every_run_is_a_command_with_a_directory_of_its_own(setting: Setting) -> None:
    parts = parts_of(studies_of(ALL, setting))
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    for number, part in enumerate(parts):
        assert all(needed.name in names[:number] for needed in part.needs)
        kind, videos, *options = part.command
        assert kind in ("run", "train", "search")
        assert videos == ("/videos/there" if kind == "search" else "/videos/here")
        assert options[-2:] == ["--dir", str(setting.folder / part.name)]
        assert options[options.index("--seed") + 1] == part.name[-1]
        config = load_config(
            "laptop", overrides=dict(o[2:].split("=", 1) for o in options if o.startswith("--") and "=" in o)
        )
        assert isinstance(config, RunConfig)


def test_schedules_are_all_nine_pairs_and_the_usual_one_is_searched_once(setting: Setting) -> None:
    named = words(setting, "schedules")
    assert len(named) == 9 * 2
    assert "searched/seed-4" in named
    assert "--search.weights.schedule.kind=cosine" in named["schedules/w-cosine_a-step/seed-5"]
    assert "--search.alphas.schedule.kind=step" in named["schedules/w-cosine_a-step/seed-5"]


def test_stops_train_the_cells_of_earlier_epochs_of_one_search(setting: Setting) -> None:
    study = STUDIES["stops"](setting)
    assert [arm.name for arm in study.arms] == ["epoch-002", "epoch-005", "epoch-008", "searched"]
    part = study.arms[0].parts[4]
    genotype = part.command[part.command.index("--genotype") + 1]
    assert genotype == str(setting.folder / "searched/seed-4/genotypes/epoch_002.json")
    assert [needed.name for needed in part.needs] == ["searched/seed-4"]
    setting.config.search.epochs = 2
    assert [arm.name for arm in STUDIES["stops"](setting).arms] == ["epoch-001", "searched"]


def test_widths_are_half_and_double(setting: Setting) -> None:
    named = words(setting, "widths")
    assert "--train.width=8" in named["widths/half/seed-4"]
    assert "--train.width=32" in named["widths/double/seed-4"]


def test_peers_have_their_own_size_and_the_searched_ones_cost(setting: Setting) -> None:
    named = words(setting, "peers")
    assert named["peers/x3d-s/seed-4"][-4:-2] == ["--peer", "x3d-s"]
    of = str(setting.folder / "searched/seed-4")
    assert named["peers/x3d-s-matched/seed-4"][-6:-2] == ["--peer", "x3d-s", "--macs-of", of]
    assert "peers/residual/seed-4" not in named


def test_transfer_needs_another_set_and_all_goes_without(setting: Setting) -> None:
    alone = Setting(setting.folder, setting.config, setting.seeds)
    with pytest.raises(UserError, match="name it, with --searched-on OTHER_VIDEOS"):
        studies_of("transfer", alone)
    assert "transfer" not in [study.name for study in studies_of(ALL, alone)]
    setting.config.data.format, setting.config.data.annotations = "ucf101", "/lists"
    search = with_needs(STUDIES["transfer"](setting).parts)[2]
    assert search.name == "transfer/search/seed-4"
    assert {"--data.format=auto", "--data.annotations="} <= set(search.command)


def test_parts_can_be_chosen_and_shared_out(setting: Setting) -> None:
    studies = studies_of("random", setting)
    every = [part.name for part in parts_of(studies)]
    assert every[:2] == ["searched/seed-4", "searched/seed-5"]
    shares = [[part.name for part in parts_of(studies, share=(k, 4))] for k in (1, 2, 3, 4)]
    assert sorted(name for share in shares for name in share) == sorted(every)
    assert [part.name for part in parts_of(studies, ["random/*/seed-5"])] == [
        "random/drawn/seed-5",
        "random/matched/seed-5",
    ]
    with pytest.raises(UserError, match="no part is named nothing; see them all with --list"):
        parts_of(studies, ["nothing"])


def test_matched_genotypes_have_the_cost_and_each_seed_has_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, classes = tiny(), 3
    base = Setting(tmp_path, config, (0, 1)).searched(0)
    clip = (config.clip.frames, config.test.crop, config.test.crop)
    asked = network_cost(random_genotype(77), config.network, clip=clip, classes=classes).macs
    base.run_dir.mkdir(parents=True)
    results = {"macs_per_view": asked, "clip": clip, "classes": ["a", "b", "c"]}
    (base.run_dir / "results.json").write_text(json.dumps(results))
    drawn = [genotype_of_cost(config, base, seed) for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    for genotype in drawn:
        assert abs(network_cost(genotype, config.network, clip=clip, classes=classes).macs - asked) <= 0.05 * asked
    assert drawn[0] == genotype_of_cost(config, base, 0)
    (base.run_dir / "results.json").write_text(json.dumps(results | {"macs_per_view": 10 * asked}))
    monkeypatch.setattr(genotypes, "MOST_DRAWS", 3)
    with pytest.raises(UserError, match="of 3 random genotypes none has its multiply-accumulates"):
        genotype_of_cost(config, base, 0)


def test_budgets_have_searched_and_random_cells_of_each_share(setting: Setting) -> None:
    study = STUDIES["budgets"](setting)
    assert [arm.name for arm in study.arms[:2]] == ["searched", "matched"]
    assert [arm.name for arm in study.arms[2:]] == [f"{kind}-{s}" for s in BUDGETS for kind in ("searched", "random")]
    assert "budgets" not in [each.name for each in studies_of(ALL, setting)]
    command = words(setting, "budgets")["budgets/random-50/seed-4"]
    assert command[command.index("--config") + 1] == str(setting.folder / "genotypes" / "within-50-seed-4.yaml")
    assert command[command.index("--genotype") + 1] == str(setting.folder / "genotypes" / "random-50-seed-4.json")


@pytest.mark.parametrize("share", [25, 50, 75, 90])
def test_cells_within_a_share_are_the_best_ones_and_random_ones_cost_as_much(tmp_path: Path, share: int) -> None:
    config, classes, noise = laptop(), 3, torch.Generator().manual_seed(1)
    base = Setting(tmp_path, config, (0,)).searched(0)
    alphas = {name: torch.randn(len(EDGES), len(operations_of(name)), generator=noise) for name in CATEGORIES}
    free = derive(alphas)
    macs = price_table(config, classes).of(free).macs
    base.run_dir.mkdir(parents=True)
    history = {alpha_name(config.search.epochs, name): alpha for name, alpha in alphas.items()}
    save_tensors(base.run_dir / HISTORY, history)
    base.genotype.write_text(free.to_json())
    results = {"macs_per_view": macs, "clip": list(config.view), "classes": ["a", "b", "c"]}
    (base.run_dir / "results.json").write_text(json.dumps(results))
    budget = Budget(config, base, share, tmp_path / "genotypes")
    budget.write_random(0)
    within, found = Genotype.load(budget.genotype), load_config(file=budget.file)
    cost = network_cost(within, found.network, clip=config.view, classes=classes).macs  # an independent count
    assert 0.6 * share / 100 * macs < cost <= share / 100 * macs
    if share == 90:
        assert within == derive_within(alphas, price_table(config, classes), Limits(macs=macs * share // 100))
        assert found.train.width == config.train.width
    if share == 25:  # which no cells of that width have
        assert found.train.width < config.train.width
    drawn = Genotype.load(budget.random)
    assert drawn != within
    assert network_cost(drawn, found.network, clip=config.view, classes=classes).macs == pytest.approx(cost, rel=0.1)


def test_a_genotype_that_was_drawn_before_stays(tmp_path: Path) -> None:
    part = STUDIES["random"](Setting(tmp_path, tiny(), (3,))).arms[1].parts[3]
    assert part.prepare is not None
    part.prepare()
    path = tmp_path / "genotypes" / "random-seed-3.json"
    assert Genotype.load(path) == random_genotype(3, 4)
    path.write_text(random_genotype(9).to_json())
    part.prepare()
    assert Genotype.load(path) == random_genotype(9)
