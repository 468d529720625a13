"""A trained network on disk: model.safetensors beside model.json with all that it needs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pvnas.config import AugmentConfig, ClipConfig, DataConfig, RunConfig, TestConfig, TrainConfig
from pvnas.data.clips.network_input import MEAN, STD
from pvnas.errors import UserError
from pvnas.runtime.checkpoint import load_tensors, save_tensors
from pvnas.runtime.files import write_atomic
from pvnas.settings import all_fields, checked
from pvnas.space.genotype import Genotype
from pvnas.space.network import PVNASNetwork

FORMAT, VERSION = "pvnas-model", 1
SIZES = ("short_side_min", "short_side_max", "crop")
"""Of a training's clips, in pixels: a training that begins with this one's body has them too."""
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Model:
    """A network with its weights, the names of its classes, and how its clips are cut out of a video."""

    network: PVNASNetwork
    genotype: Genotype
    classes: tuple[str, ...]
    config: RunConfig
    video_seconds: float = 0.0
    """Median length of the videos of its run; 0 where that is not known."""


def save_model(
    folder: Path,
    network: nn.Module,
    genotype: Genotype,
    classes: tuple[str, ...],
    config: RunConfig,
    video_seconds: float = 0.0,
) -> None:
    """Write weights and description; the weights come last, so that their presence means a whole model."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "genotype": json.loads(genotype.to_json()),
        "classes": list(classes),
        "network": {name: value for name, value in asdict(config.network).items() if name != "in_channels"},
        "clip": asdict(config.clip),
        "test": asdict(config.test),
        "augment": {name: getattr(config.train.augment, name) for name in SIZES},
        "mean": list(MEAN),
        "std": list(STD),
        "frame_rate": config.data.frame_rate,
        "decoded_short_side": config.decoded_short_side,
        "video_seconds": round(video_seconds, 3),
    }
    write_atomic(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    save_tensors(folder / WEIGHTS, dict(network.state_dict()))


def load_model(folder: Path) -> Model:
    """Read what save_model wrote, on the CPU and in evaluation mode. Raises UserError naming what is wrong."""
    path = folder / DESCRIPTION
    if not (folder / WEIGHTS).exists() or not path.exists():
        raise UserError(f"{folder}: no trained model there; train one with: pvnas run DATA --dir {folder}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise ValueError(f'"format" must be "{FORMAT}" and "version" {VERSION}')
        fields = dict(data["network"])
        clip, test = ClipConfig(**_checked("clip", data, path)), TestConfig(**_checked("test", data, path))
        stem = fields.pop("stem")
        fields.pop("in_channels", None)  # of a model that was written between two releases: the clip's input says it
        # Older models have neither.
        videos = DataConfig(frame_rate=float(data.get("frame_rate", DataConfig.frame_rate)))
        side = int(data.get("decoded_short_side", test.short_side))
        config = RunConfig(preset="model", data=videos, stem=stem, train=TrainConfig(**fields), test=test, clip=clip)
        as_tested = AugmentConfig(min(side, test.short_side), side, test.crop)
        config.search.augment = as_tested
        # Older models do not say at which sizes they were trained.
        config.train.augment = AugmentConfig(**{**asdict(as_tested), **_sizes(data.get("augment", {}))})
        genotype = Genotype.from_json(json.dumps(data["genotype"]))
        classes = tuple(str(name) for name in data["classes"])
        seconds = float(data.get("video_seconds", 0.0))  # which older models do not say
        network = PVNASNetwork(genotype, config.network, num_classes=len(classes))
        network.load_state_dict(load_tensors(folder / WEIGHTS))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: cannot read the model: {str(error).splitlines()[0][:200]}") from error
    return Model(network.eval(), genotype, classes, config, seconds)


def _sizes(written: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(written[name]) for name in SIZES if name in written}


def _checked(part: str, data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the fields of a part of the config, each of its type. Raises UserError, KeyError for an unknown field."""
    known = all_fields()
    return {name: checked(known[f"{part}.{name}"], value, f"{path}: ") for name, value in data[part].items()}
