"""Fine-tuning: a training that begins with the body of a trained network, which the run directory then keeps a copy of.

The body is all but the classifier, which is new. Genotype, size of the network and clips are the trained network's: the
body has learnt from such clips alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from pvnas.config import ClipConfig, RunConfig
from pvnas.deploy.model import SIZES as CLIP_SIZES
from pvnas.deploy.model import Model
from pvnas.errors import UserError
from pvnas.runtime.checkpoint import digest, load_tensors, save_tensors
from pvnas.runtime.files import write_atomic
from pvnas.settings import get_field, plain, set_field
from pvnas.space.network import PVNASNetwork
from pvnas.training.stage import HEAD

ORIGIN, ORIGIN_WEIGHTS = "origin.json", "origin.safetensors"
FORMAT, VERSION = "pvnas-origin", 1

FIXED = (
    "stem",
    *(f"train.{name}" for name in ("layout", "width", "repeat", "head")),
    *(f"clip.{field.name}" for field in fields(ClipConfig)),
)
"""Fields that say what the network is and what it sees: the trained network's, whatever the config says."""
SIZES = ("test.short_side", "test.crop", *(f"train.augment.{name}" for name in CLIP_SIZES))
"""Fields that are the trained network's unless they are typed."""


@dataclass(frozen=True)
class Origin:
    """What a training begins with, as its run directory keeps it."""

    name: str
    """The folder's that it was read from."""
    digest: str
    """SHA-256 over its weights and genotype."""
    classes: int
    body: dict[str, Tensor]


def fine_tuned_config(config: RunConfig, model: Model, typed: Collection[str]) -> RunConfig:
    """Give a config what it must have of a trained network, in place, and return it.

    ``typed``: fields that somebody has asked for; UserError for one that must be the network's own.
    """
    for name in FIXED:
        own = get_field(model.config, name)
        if name in typed and get_field(config, name) != own:
            raise UserError(
                f"{name} is {plain(own)} in the network that this training begins with, not "
                f"{plain(get_field(config, name))}; leave it away"
            )
        set_field(config, name, own)
    for name in SIZES:
        if name not in typed:
            set_field(config, name, get_field(model.config, name))
    if config.budget.width == "fit":
        raise UserError("the size of the network is that of the trained one; leave budget.width away")
    augment = config.train.augment
    augment.short_side_min = max(augment.short_side_min, augment.crop)
    augment.short_side_max = max(augment.short_side_max, augment.short_side_min)
    augment.first_crop = min(augment.first_crop, augment.crop)
    # Nothing is searched: what a search would see must not make videos larger than what is trained and tested.
    for name in (*CLIP_SIZES, "first_crop"):
        setattr(config.search.augment, name, getattr(augment, name))
    return config


def keep_origin(run_dir: Path, model: Model, folder: Path) -> str:
    """Copy a trained network's body into a run directory, and say what is taken. UserError where it holds another."""
    tensors = dict(model.network.state_dict())
    mark = digest(tensors, model.genotype.with_about().to_json())
    kept = load_origin(run_dir)
    if kept is not None and kept.digest != mark:
        raise UserError(f"{run_dir} began with another network ({kept.name}) than {folder}; name another --dir")
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}
    about = {"format": FORMAT, "version": VERSION, "name": folder.resolve().name, "digest": mark}
    about["classes"] = len(model.classes)
    if kept is None:
        save_tensors(run_dir / ORIGIN_WEIGHTS, body)
        write_atomic(run_dir / ORIGIN, json.dumps(about, indent=1) + "\n")
    new = ", ".join(name for name in tensors if name.startswith(HEAD))
    return f"{len(body)} tensors are those of {folder.resolve().name} ({len(model.classes)} classes); new: {new}"


def load_origin(run_dir: Path) -> Origin | None:
    """Return what the training in a run directory begins with, None where it begins from scratch.

    Raises UserError where its files are damaged.
    """
    path = run_dir / ORIGIN
    if not path.exists():
        return None
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ValueError(f'"format" must be "{FORMAT}" and "version" {VERSION}')
        return Origin(
            str(about["name"]), str(about["digest"]), int(about["classes"]), load_tensors(run_dir / ORIGIN_WEIGHTS)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error).splitlines()[0][:200]
        raise UserError(
            f"{path}: cannot read what the training begins with ({why}); begin anew in another --dir"
        ) from None


def with_body(network: PVNASNetwork, origin: Origin) -> PVNASNetwork:
    """Give a new network the body of a trained one, in place, and return it. UserError where it is built otherwise."""
    state = network.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items() if not name.startswith(HEAD)}
    if shapes != {name: tensor.shape for name, tensor in origin.body.items()}:
        raise UserError(
            f"the network that this training begins with ({origin.name}) is built otherwise than the config says; "
            "fields of its geometry must not be changed"
        )
    network.load_state_dict({**state, **origin.body})
    return network
