"""What the runs of a study have come to, read from their directories."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvnas.data.check.results import inert
from pvnas.session import GENOTYPE, RESULTS
from pvnas.settings import ENVIRONMENT_NAME
from pvnas.space.genotype import Genotype
from pvnas.studies.experiments import Study
from pvnas.training.log import read_metrics


@dataclass(frozen=True)
class Outcome:
    """One run that was tested."""

    arm: str
    seed: int
    results: Mapping[str, Any]
    right: Mapping[str, bool]
    """By the name of a test video, whether the network named it rightly."""
    group_of: Mapping[str, str]
    """By the name of a test video, the videos that go with it (one film, one person): else itself."""
    parameter_free: int | None
    """Operations without parameters in its cells; None for a network of no genotype."""
    operations: int
    """Of its cells; 0 for a network of no genotype."""
    by_epoch: tuple[int, ...]
    """Operations without parameters after each epoch of its search, where it has one."""
    train_top1: float | None
    """Percent, in the last epoch of its training."""
    machine: Mapping[str, Any]
    run: str


def outcomes(study: Study) -> list[Outcome]:
    """Return the finished runs of a study that have a test, arm by arm."""
    runs = [
        _outcome(arm.name, seed, part.run_dir, part.name)
        for arm in study.arms
        for seed, part in arm.parts.items()
        if part.is_done() and part.ends_in == RESULTS
    ]
    return [run for run in runs if run.right]


def _outcome(arm: str, seed: int, run_dir: Path, name: str) -> Outcome:
    metrics = read_metrics(run_dir / "metrics.jsonl")
    trained = [line["top1"] for line in metrics if line["stage"] == "train"]
    searched = [line["parameter_free"]["total"] for line in metrics if line["stage"] == "search"]
    genotype = Genotype.load(run_dir / GENOTYPE) if (run_dir / GENOTYPE).exists() else None
    with (run_dir / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        right = {row["path"]: row["correct"] == "1" for row in csv.DictReader(stream)}
    return Outcome(
        arm,
        seed,
        json.loads((run_dir / RESULTS).read_bytes()),
        right,
        _groups(run_dir, right),
        genotype.parameter_free()["total"] if genotype else None,
        len(list(genotype.edges())) if genotype else 0,
        tuple(searched),
        trained[-1] if trained else None,
        json.loads((run_dir / ENVIRONMENT_NAME).read_bytes()),
        name,
    )


def _groups(run_dir: Path, right: Mapping[str, bool]) -> dict[str, str]:
    """Return each test video's group as the run's list of videos says; of one that it does not, itself."""
    listed = json.loads((run_dir / "videos.json").read_bytes())
    rows = [dict(zip(listed["columns"], row, strict=True)) for row in listed["videos"]]
    known = {inert(row["path"]): row["group"] for row in rows if row["group"]}
    return {name: known.get(name, name) for name in right}
