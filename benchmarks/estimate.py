"""Hours and money for the paper's search and retrainings on this hardware, from speeds measured on it.

    python benchmarks/estimate.py [--device cuda --precision bf16 --search-batch 32 --train-batch 8] [--price X]

The paper's recipes (sections 4.1 and 4.2) on Kinetics-400: 80 epochs of search, 196 of training for either network. A
search step, two training steps and reading are measured, some minutes on a CPU; devices are taken to scale evenly.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common import in_one_line
from derived_network import ModelShape
from pvnas.bench.data import loader_speed
from pvnas.bench.footage import write_footage
from pvnas.bench.roofline import measure_variants
from pvnas.bench.search import Shape
from pvnas.config import AugmentConfig, DataConfig
from pvnas.data.catalog import Catalog, Video
from pvnas.data.dataset import VideoDataset
from pvnas.deploy.models import MODELS
from pvnas.runtime.device import choose_device, describe_machine, usable_cores
from pvnas.space.genotype import random_genotype

NETWORK = Path(__file__).with_name("derived_network.py")
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
        width = plan.width * MODELS[name].width // MODELS["pvnas_l"].width
        network: dict[str, Any] = {"width": width, "repeat": MODELS[name].repeat}
        clip: dict[str, Any] = {"frames": frames, "height": height, "side": side, "batch": plan.train_batch}
        shape = ModelShape(genotype=genotype, training=True, **network, **clip, **machine)
        computing[stage] = _rate(NETWORK, {"shape": asdict(shape), "repeats": repeats}, plan.train_batch)
    reading = _reading_rates(plan, reading_clips)
    return {stage: Speed(computing[stage], reading["search" if stage == "search" else "train"]) for stage in EPOCHS}


def _rate(program: str | Path, settings: dict[str, Any], clips: int) -> float:
    rate: float = measure_variants(program, ["fast"], settings, clips=clips, rounds=1)["fast"]["clips_per_s"]
    return rate


def _reading_rates(plan: Plan, clips: int) -> dict[str, float]:
    """Return the clips per second of one process at the paper's two sizes, of 340x256 H.264 videos of ten seconds."""
    # Short sides of table 5 in proportion to the crop: 128 to 164 for 112 pixels, 256 to 320 for 224.
    crops = {"search": (plan.search_clip[1], 128 / 112, 164 / 112), "train": (plan.train_clip[1], 256 / 224, 320 / 224)}
    with tempfile.TemporaryDirectory(prefix="pvnas-bench-") as temporary:
        (video,) = write_footage(Path(temporary), gop=KEY_FRAMES, videos=1)
        catalog = Catalog.of(video.parent, ("a", "b"), [Video(video.name, 0, "train")])
        rates = {}
        for stage, (crop, least, most) in crops.items():
            augment = AugmentConfig(short_side_min=round(crop * least), short_side_max=round(crop * most), crop=crop)
            files = VideoDataset(catalog, DataConfig(cache="none"), 128)
            rates[stage] = loader_speed(files, "files", augment, 0, clips)["clips_per_s"]
    return rates


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64, help="channels of the first cells")
    parser.add_argument("--search-batch", type=int, default=2, help="clips of a search step")
    parser.add_argument("--train-batch", type=int, default=1, help="clips of a training step")
    parser.add_argument("--search-clip", type=int, nargs=3, default=[8, 112, 112], metavar=("T", "H", "W"))
    parser.add_argument("--train-clip", type=int, nargs=3, default=[8, 224, 224], metavar=("T", "H", "W"))
    parser.add_argument("--videos", type=int, default=KINETICS_VIDEOS, help="videos of an epoch")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="reading processes a device [all cores]")
    parser.add_argument("--price", type=float, help="money for one device for an hour")
    parser.add_argument("--repeats", type=int, default=2, help="measured steps, after two more")
    parser.add_argument("--reading-clips", type=int, default=48, help="clips read to measure reading")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.price is not None and not 0 <= args.price < 1e9:
        parser.error(f"--price takes the money for one device for an hour, not {args.price}")
    choose_device(args.device)
    args.search_clip, args.train_clip = tuple(args.search_clip), tuple(args.train_clip)
    plan = Plan(**{field.name: getattr(args, field.name) for field in fields(Plan) if field.name != "devices"})
    print("measuring a search step, two training steps and reading; some minutes on a CPU", file=sys.stderr)
    result = estimate(plan, repeats=args.repeats, reading_clips=args.reading_clips)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(result, plan.workers)


def show(result: dict[str, Any], workers: int) -> None:
    """Print a line a stage, and the sum."""
    for stage, row in result["stages"].items():
        reading = workers * row["reading_clips_per_s_and_worker"]
        print(f"{stage}: {row['epochs']} epochs, {row['clips_per_s']} clips/s, {workers} processes read {reading:.2f},")
        hours = ", ".join(f"{hours:,} hours on {devices}" for devices, hours in row["hours"].items())
        print(f"  limited by {row['limited_by']}: {hours} devices")
    days = sum(row["device_days"] for row in result["stages"].values())
    money = [row["money"] for row in result["stages"].values() if row["money"] is not None]
    cost = f", {sum(money):,.2f} in all" if money else "; give --price for one device and hour to see the money"
    print(f"{days:,.1f} device-days{cost}; devices are taken to scale evenly")


if __name__ == "__main__":
    in_one_line(main)
