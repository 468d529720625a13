"""The page, the tables and the figure of a study, of runs as they may be: some missing, one without a genotype."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from pvnas.presets import tiny
from pvnas.studies import tables
from pvnas.studies.experiments import STUDIES, Setting, Study, in_a_line
from pvnas.studies.figures import study_figure
from pvnas.studies.outcome import Outcome

MACHINE = {
    "cpu": "a processor",
    "gpu": None,
    "threads": 1,
    "pvnas": "0",
    "torch": "2.13",
    "date": "2026-11-30T10:00:00",
}


def outcome(arm: str, seed: int, right: str, **more: Any) -> Outcome:
    """Return a run that named videos rightly (1) or not (0); videos are two by two of one film."""
    verdicts = {f"v{number}": digit == "1" for number, digit in enumerate(right)}
    results = {
        "top1": 100 * sum(verdicts.values()) / len(verdicts),
        "top5": 90.0,
        "mean_class": 40.0,
        "n_videos": len(right),
        "params": 2_000_000,
        "macs_per_view": 300_000_000,
        "views": 4,
        "macs_per_video": 1_200_000_000,
        "seconds": {"train": 10.4, "test": 1.0},
        "digest": "ab",
    }
    values: dict[str, Any] = {"parameter_free": 12, "operations": 32, "by_epoch": (14, 12), "train_top1": 99.123}
    group_of = {name: str(int(name[1:]) // 2) for name in verdicts}
    return Outcome(arm, seed, results, verdicts, group_of, machine=MACHINE, run=f"{arm}/seed-{seed}", **(values | more))


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path, tiny(), (0, 1))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_study_of_schedules_counts_operations_without_parameters(setting: Setting) -> None:
    study = STUDIES["schedules"](setting)
    runs = [outcome("w-step_a-constant", seed, "11110000") for seed in (0, 1)]
    runs += [outcome("w-cosine_a-constant", 0, "11000000", by_epoch=(14, 20), parameter_free=20)]
    found = tables.differences(study, runs)
    page = tables.page(study, runs, found, "pvnas study schedules videos --seeds 2")
    assert "without parameters, of 32 operations" in page
    assert "| weights' rate step, alphas' constant | 2 | 50.0 ± 0.0 (50.0, 50.0) | 2 | 0.3 | × 4 | 1.2 | 12.0 |" in page
    assert "| weights' rate cosine, alphas' constant | 1 | 25.0 (25.0) | 2 | 0.3 | × 4 | 1.2 | 20.0 |" in page
    assert "| weights' rate step, alphas' step | 0 | – | – | – | – | – | – |" in page
    assert "+25.0 points (95 % interval" in page
    assert "1 seed of each, 8 test videos of 4 groups" in page
    assert (
        "- Not measured yet: a step schedule of the weights' rate ends in a better network than a constant one." in page
    )
    assert "a processor, PyTorch 2.13, 2026-11-30." in page
    (difference,) = rows(tables.differences_csv(study, found))
    assert (difference["better"], difference["points"], difference["groups"]) == ("w-step_a-constant", "25.0", "4")
    first = rows(tables.runs_csv(study, runs))[0]
    assert first["parameter_free_by_epoch"] == "14 12"
    assert (first["train_top1"], first["seconds"], first["cpu"]) == ("99.12", "11", "a processor")
    assert isinstance(study_figure(study, runs), Figure)


def test_a_network_of_no_genotype_has_a_place_in_table_and_figure(setting: Setting) -> None:
    study = STUDIES["peers"](setting)
    runs = [outcome("searched", 0, "1100"), outcome("x3d-s", 0, "1000", parameter_free=None, operations=0, by_epoch=())]
    page = tables.page(study, runs, tables.differences(study, runs), "pvnas study peers videos")
    assert "| x3d-s at its published width | 1 | 25.0 (25.0) |" in page
    assert "Published (GFLOPs are multiply-accumulates of one view" in page
    assert "| PV-NAS-L | Kinetics-400 | 78.7 / 93.5 | 19.65 | 22.14 | × 30 | 664 | PV-NAS, table 1 |" in page
    assert rows(tables.runs_csv(study, runs))[1]["parameter_free"] == ""
    assert isinstance(study_figure(study, runs), Figure)


def test_runs_that_were_tested_on_different_videos_are_not_compared(setting: Setting) -> None:
    study = STUDIES["widths"](setting)
    runs = [outcome("searched", 0, "1100"), outcome("half", 0, "110")]
    assert tables.differences(study, runs) == {}
    assert "- Not measured yet: a wider network" in tables.page(study, runs, {}, "pvnas study widths videos")


def test_before_any_run_is_finished_the_page_says_so(setting: Setting) -> None:
    study: Study = STUDIES["random"](setting)
    assert "no run is finished yet" in tables.page(study, [], {}, "pvnas study random videos")
    assert rows(tables.runs_csv(study, [])) == []


def test_every_published_row_has_a_source_and_belongs_to_a_study() -> None:
    for row in tables.published()["rows"]:
        assert row["source"]
        assert set(row["studies"]) <= set(STUDIES)


def test_a_folder_of_any_name_stays_in_its_line() -> None:
    assert in_a_line("a|b`c\n<d>") == "a b c d"
    assert in_a_line("```") == "videos"
