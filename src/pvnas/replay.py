"""`pvnas verify`: the last stretch of a run made once more, and whether it ends in the same bits.

Of a stage the two newest checkpoints are kept. A copy of the run without the newest goes on from the older one to where
the newest was saved.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.report.record import PEER
from pvnas.runtime.checkpoint import Checkpoint, digest, load_checkpoint, valid_checkpoints
from pvnas.runtime.distributed import World, joined_world
from pvnas.runtime.files import run_lock
from pvnas.session import Session, open_session
from pvnas.settings import CONFIG_NAME, load_config

STAGES, FOLDER = ("search", "train"), "replay"
LEFT_BEHIND = {"checkpoints", FOLDER, "model.safetensors", "results.json", "report.html", "figures", "samples"}
"""What a copy does without: it would be taken for a run that is finished."""


class Replayed(NamedTuple):
    """A stretch that was made again; the digests of its two ends, and which tensors differ."""

    stage: str
    begin: str
    end: str
    digest: str
    again: str
    differing: list[str]


def verify(run_dir: Path, overrides: dict[str, object] | None = None) -> list[Replayed]:
    """Replay the last stretch of each stage of a run. Raises UserError where no stage has two checkpoints."""
    if (run_dir / PEER).exists():
        raise UserError(f"{run_dir} holds a network to compare with ({PEER}), which is not replayed; train it again")
    config = load_config(file=run_dir / CONFIG_NAME, overrides=overrides)
    with joined_world(config) as world, ExitStack() as held:
        world.first_does(lambda: bool(held.enter_context(_undisturbed(run_dir))))
        there = world.first_does(lambda: [stage for stage in STAGES if _stretch(run_dir, stage)])
        if not there:
            raise UserError(f"{run_dir}: no stage has two checkpoints yet, between which a stretch could be replayed")
        return [_replayed(run_dir, stage, config, world) for stage in there]


@contextmanager
def _undisturbed(run_dir: Path) -> Iterator[bool]:
    """Hold a run, so that it does not go on meanwhile, and leave no copy behind."""
    with run_lock(run_dir):
        shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
        try:
            yield True
        finally:
            shutil.rmtree(run_dir / FOLDER, ignore_errors=True)


def _stretch(run_dir: Path, stage: str) -> list[Path]:
    """Return the two newest checkpoints of a stage, the older first; nothing where no step lies between two."""
    newest = valid_checkpoints(run_dir / "checkpoints" / stage)[-2:]
    return newest if len({path.name.partition("-")[2] for path in newest}) > 1 else []


def _replayed(run_dir: Path, stage: str, config: RunConfig, world: World) -> Replayed:
    copy = run_dir / FOLDER / stage
    world.first_does(lambda: _copy(run_dir, copy, stage))
    end = world.first_does(lambda: _position(load_checkpoint(run_dir / "checkpoints" / stage)))
    begin = world.first_does(lambda: _position(load_checkpoint(copy / "checkpoints" / stage)))
    with open_session(replace(config, accept_drift=True), copy) as session:
        _go_on(session, stage, (end[0], end[1]))

    def compared() -> list[Any]:
        first, second = (_tensors(folder / "checkpoints" / stage) for folder in (run_dir, copy))
        names = first.keys() | second.keys()
        alike = {name for name in first.keys() & second.keys() if torch.equal(first[name], second[name])}
        return [digest(first, None), digest(second, None), sorted(names - alike)]

    return Replayed(stage, _in_words(begin), _in_words(end), *world.first_does(compared))


def _copy(run_dir: Path, copy: Path, stage: str) -> None:
    copy.mkdir(parents=True)
    lacking = {*LEFT_BEHIND, *({"genotype.json"} if stage == "search" else ())}
    for path in run_dir.iterdir():
        if path.name in lacking or path.name.startswith("."):
            continue
        if path.is_dir():
            shutil.copytree(path, copy / path.name)
        else:
            shutil.copy2(path, copy / path.name)
    older, _ = _stretch(run_dir, stage)
    shutil.copytree(older, copy / "checkpoints" / stage / older.name)


def _go_on(session: Session, stage: str, end: tuple[int, int]) -> None:
    if stage == "search":
        session.run_stage(session.search_stage(), until=end)
    else:
        session.run_stage(session.train_stage(session.network_to_train()), until=end)


def _position(checkpoint: Checkpoint | None) -> list[int]:
    assert checkpoint is not None
    return [checkpoint.state["epoch"], checkpoint.state["step"]]


def _in_words(position: list[int]) -> str:
    return f"epoch {position[0] + 1}, step {position[1]}" if position[1] else f"the end of epoch {position[0]}"


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.tensors
