"""PV-NAS-L beside R(2+1)D-18, SlowOnly-R50, X3D-M and TSM-R50: milliseconds of a forward pass and of a training step.

    python benchmarks/model_speed.py OUT [--genotype FILE] [--batches 1 8] [--training-batch 4] [--device cuda ...]
    python benchmarks/model_speed.py OUT --no-peers --width 24 --clip 8 72 72 --classes 20 --compile

Each network runs at the clip that it was published for, randomly initialised, in processes of its own that take turns.
Ours runs as `pvnas test`, `pvnas predict` and `pvnas train` run it (fast), a training step also without kernels of our
own (folded), a forward pass as torch.compile makes it (compiled, left out without --compile), and all written with
PyTorch's own 3-D layers (plain). Writes OUT/model_speed.json and prints a table, case by case as they are measured:
seconds, clips/s, peak memory, MACs, bytes and the share of the roofline.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from common import command_line, in_one_line
from derived_network import ModelShape
from pvnas.bench.roofline import compare, measure_variants
from pvnas.config import StemKind
from pvnas.peers import PEERS
from pvnas.runtime.device import describe_machine
from pvnas.space.genotype import Genotype, random_genotype

OURS = Path(__file__).with_name("derived_network.py")
THEIRS = Path(__file__).with_name("peer_network.py")
BESIDE = ("r2plus1d-18", "slowonly-r50", "x3d-m", "tsm-r50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--genotype", type=Path, help="a genotype file [random, seed 0]")
    parser.add_argument("--width", type=int, default=64, help="channels of our first cells")
    parser.add_argument("--repeat", type=int, default=1, help="our normal cells in a row")
    parser.add_argument("--stem", choices=get_args(StemKind), default="stride4")
    parser.add_argument("--classes", type=int, default=400, help="of our network")
    parser.add_argument("--channels", type=int, default=3, help="of our network's clips: 2 of optical flow")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8], help="clips of a forward pass")
    parser.add_argument("--training-batch", type=int, default=2, help="clips of a training step, 0: none")
    parser.add_argument("--clip", type=int, nargs=3, help="frames, height and width for all [as published]")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too (a minute, a C++ compiler)")
    parser.add_argument("--no-peers", action="store_true", help="measure our network alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()

    genotype = Genotype.load(args.genotype) if args.genotype else random_genotype(0)
    cases = [(batch, False) for batch in args.batches]
    cases += [(args.training_batch, True)] if args.training_batch else []
    result: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe_machine()}
    result |= {"command": command_line(), "genotype": json.loads(genotype.to_json())}
    result["peers"] = {
        name: {k: v for k, v in asdict(peer).items() if k != "build"} for name, peer in PEERS.items() if name in BESIDE
    }
    result["cases"] = []
    args.out.mkdir(parents=True, exist_ok=True)
    for batch, training in cases:
        result["cases"].append(case(args, genotype, batch, training))
        (args.out / "model_speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        show(result["cases"][-1])


def case(args: argparse.Namespace, genotype: Genotype, batch: int, training: bool) -> dict[str, Any]:
    """Measure all networks at one batch."""
    machine = {"device": args.device, "precision": args.precision, "threads": args.threads}
    network = {name: getattr(args, name) for name in ("width", "repeat", "stem", "classes", "channels")}
    shape = ModelShape(genotype=genotype.to_json(), batch=batch, training=training, **network, **machine)
    if args.clip:
        shape = replace(shape, **dict(zip(("frames", "height", "side"), args.clip, strict=True)))
    variants = ["fast", "plain", *(["folded"] if training else ["compiled"] if args.compile else [])]
    turns = {"clips": batch, "rounds": args.rounds}
    ours = measure_variants(OURS, variants, {"shape": asdict(shape), "repeats": args.repeats}, **turns)
    result: dict[str, Any] = {"batch": batch, "training": training, "shape": asdict(shape)}
    result |= compare(ours["fast"], ours["plain"])
    if "compiled" in ours:
        result["compiled_speedup"] = compare(ours["compiled"], ours["plain"])["speedup"]
    if "folded" in ours:
        over = compare(ours["fast"], ours["folded"])
        result |= {f"{name}_over_folded": over[name] for name in ("speedup", "memory_share")}
    settings = {"batch": batch, "training": training, "repeats": args.repeats, **machine}
    settings |= {"clip": args.clip} if args.clip else {}
    peers = measure_variants(THEIRS, [] if args.no_peers else list(BESIDE), settings, **turns)
    return result | {"networks": {f"PV-NAS-L, {name}": measured for name, measured in ours.items()} | peers}


def show(result: dict[str, Any]) -> None:
    """Print the milliseconds of one case."""
    print(f"\n{'training step' if result['training'] else 'forward pass'}, batch {result['batch']}")
    for name, network in result["networks"].items():
        times = f"{1000 * network['seconds']:9.1f} ms {network['clips_per_s']:8.2f} clips/s"
        print(
            f"  {name:20}{times} {network['gmacs_per_clip']:8.2f} GMACs a clip {network['peak_bytes'] / 2**20:7.0f} MiB"
        )
    for other, suffix in (("plain", ""), ("folded", "_over_folded")):
        if f"speedup{suffix}" in result:
            speed, share = result[f"speedup{suffix}"], result[f"memory_share{suffix}"]
            print(f"  fast over {other}: {speed:.2f} times the clips/s, {share:.2f} of the memory")


if __name__ == "__main__":
    in_one_line(main)
