"""What `pvnas bench estimate` answers: hours and money for the paper's search and retrainings, from measured speeds.

The paper's recipes (sections 4.1 and 4.2) on Kinetics-400: 80 epochs of search, 196 of training for either network.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pvnas.bench.data import reading_rate
from pvnas.bench.footage import write_footage
from pvnas.bench.model import ModelShape
from pvnas.bench.search import Shape
from pvnas.bench.sides import side_by_side
from pvnas.config import AugmentConfig
from pvnas.runtime.device import describe_machine
from pvnas.space.genotype import random_genotype
from pvnas.space.models import MODELS

KINETICS_VIDEOS = 225_946
EPOCHS = {"search": 80, "retrain PV-NAS-L": 196, "retrain PV-NAS-M": 196}
KEY_FRAMES = 250  # frames from one key frame to the next: what encoders do unless told otherwise


@dataclass(frozen=True)
class Plan:
    """What to estimate for."""

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    search_batch: int = 2
    train_batch: int = 1
    width: int = 64
    """Of the search network and PV-NAS-L; PV-NAS-M is wider as in the paper."""
    search_clip: tuple[int, int, int] = (8, 112, 112)
    train_clip: tuple[int, int, int] = (8, 224, 224)
    videos: int = KINETICS_VIDEOS
    devices: tuple[int, ...] = (1, 8, 32)
    workers: int = 1
    """Processes that read videos for one device."""
    price: float | None = None
    """Of one device for an hour, its share of processors included."""


@dataclass(frozen=True)
class Speed:
    """Measured clips per second of one stage."""

    computing: float
    """Of one device."""
    reading: float
    """Of one process."""

    def of_a_device(self, workers: int) -> float:
        """Return the clips per second of a device that so many processes feed: the slower of both."""
        return min(self.computing, workers * self.reading)


def estimate(plan: Plan, *, repeats: int, reading_clips: int) -> dict[str, Any]:
    """Measure every stage on this machine and return hours and money for each number of devices."""
    speeds = measure_speeds(plan, repeats, reading_clips)
    rows = {stage: stage_cost(EPOCHS[stage], speed, plan) for stage, speed in speeds.items()}
    return {"plan": asdict(plan), "stages": rows, "machine": describe_machine()}


def stage_cost(epochs: int, speed: Speed, plan: Plan) -> dict[str, Any]:
    """Return a stage's speeds and, for each number of devices, its hours. Devices are taken to scale evenly."""
    rate = speed.of_a_device(plan.workers)
    device_hours = epochs * plan.videos / rate / 3600
    return {
        "epochs": epochs,
        "clips_per_s": round(speed.computing, 3),
        "reading_clips_per_s_and_worker": round(speed.reading, 3),
        "limited_by": "computing" if rate == speed.computing else "reading",
        "hours": {devices: round(device_hours / devices, 2) for devices in plan.devices},
        "device_days": round(device_hours / 24, 2),
        "money": None if plan.price is None else round(device_hours * plan.price, 2),
    }


def measure_speeds(plan: Plan, repeats: int, reading_clips: int) -> dict[str, Speed]:
    """Return the speeds of search and both retrainings, each computing and reading on its own."""
    machine: dict[str, Any] = {"device": plan.device, "precision": plan.precision, "threads": plan.threads}
    frames, height, side = plan.search_clip
    search = Shape(
        width=plan.width, batch=plan.search_batch, frames=frames, height=height, side=side, classes=400, **machine
    )
    computing = {"search": _rate("pvnas.bench.search", {"shape": asdict(search), "steps": repeats}, plan.search_batch)}
    frames, height, side = plan.train_clip
    genotype = random_genotype(0).to_json()
    for stage, name in (("retrain PV-NAS-L", "pvnas_l"), ("retrain PV-NAS-M", "pvnas_m")):
        network: dict[str, Any] = {"width": plan.width * MODELS[name]["width"] // MODELS["pvnas_l"]["width"]}
        network["repeat"] = MODELS[name]["repeat"]
        clip: dict[str, Any] = {"frames": frames, "height": height, "side": side, "batch": plan.train_batch}
        shape = ModelShape(genotype=genotype, training=True, **network, **clip, **machine)
        computing[stage] = _rate("pvnas.bench.model", {"shape": asdict(shape), "repeats": repeats}, plan.train_batch)
    reading = _reading_rates(plan, reading_clips)
    return {stage: Speed(computing[stage], reading["search" if stage == "search" else "train"]) for stage in EPOCHS}


def _rate(program: str, settings: dict[str, Any], clips: int) -> float:
    found = side_by_side(program, ["fast"], settings, clips=clips, rounds=1)
    rate: float = found["fast"]["clips_per_s"]
    return rate


def _reading_rates(plan: Plan, clips: int) -> dict[str, float]:
    """Return the clips per second of one process at the paper's two sizes, of 340x256 H.264 videos of ten seconds."""
    # Short sides of table 5 in proportion to the crop: 128 to 164 for 112 pixels, 256 to 320 for 224.
    crops = {"search": (plan.search_clip[1], 128 / 112, 164 / 112), "train": (plan.train_clip[1], 256 / 224, 320 / 224)}
    with tempfile.TemporaryDirectory(prefix="pvnas-bench-") as temporary:
        paths = write_footage(Path(temporary), gop=KEY_FRAMES, videos=1, source=None)
        rates = {}
        for stage, (crop, least, most) in crops.items():
            augment = AugmentConfig(short_side_min=round(crop * least), short_side_max=round(crop * most), crop=crop)
            rates[stage] = reading_rate(paths, augment, clips)
    return rates
