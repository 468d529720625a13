"""The search step over width, batch, frames, size and threads, fast beside plain, and how both grow.

    python benchmarks/search_step.py OUT [--threads 1 2] [--beside SCRIPT] [--no-growth]

Around the smaller of two settings (width 16, 4 clips of 8x64x64) one thing at a time is changed; the larger one (width
64, 2 clips of 8x112x112) is measured too. ``--beside`` names another program that takes --width --batch --frames
--size --steps --threads and prints JSON with clips_per_s and peak_bytes: it runs in the same minutes as the two
settings. Writes OUT/search_step.json and OUT/search_step.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import command_line
from pvnas.bench.search import Shape, bench_search
from pvnas.runtime.device import describe_machine

BASE = Shape(width=16, batch=4, frames=8, height=64, side=64)
LARGE = Shape(width=64, batch=2, frames=8, height=112, side=112)
GROWTH = {"width": (8, 16, 32), "batch": (1, 2, 4, 8), "frames": (4, 8, 16), "side": (48, 64, 96, 128)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--beside", type=Path, help="another implementation's benchmark, see above")
    parser.add_argument("--no-growth", action="store_true", help="only the two settings")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    result: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe_machine()}
    result["command"] = command_line()
    result["settings"] = []
    for shape in (BASE, LARGE):
        for threads in args.threads:
            result["settings"].append(measured(replace(shape, threads=threads), args))
            save(result, args.out)
    if not args.no_growth:
        result["growth"] = {
            name: [bench_search(changed(name, value), steps=args.steps, rounds=1) for value in values]
            for name, values in GROWTH.items()
        }
        save(result, args.out)
        draw(result["growth"], args.out / "search_step.png")


def measured(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one setting, and the other program before and after it."""
    other = [beside(args.beside, shape, args.steps)] if args.beside else []
    found = bench_search(shape, steps=args.steps, rounds=args.rounds)
    other += [beside(args.beside, shape, args.steps)] if args.beside else []
    print(f"width {shape.width}, threads {shape.threads}: {found['fast']['clips_per_s']} clips/s, ", end="")
    print(f"{found['speedup']} times plain, {found['memory_share']} of its memory", flush=True)
    if other:
        rate, peak = (sum(o[name] for o in other) / len(other) for name in ("clips_per_s", "peak_bytes"))
        found["beside"] = {"runs": other, "speedup": round(found["fast"]["clips_per_s"] / rate, 3)}
        found["beside"]["memory_share"] = round(found["fast"]["peak_bytes"] / peak, 3)
        print(
            f"  {found['beside']['speedup']} times the other program, {found['beside']['memory_share']} of its memory"
        )
    return found


def beside(script: Path, shape: Shape, steps: int) -> dict[str, Any]:
    """Return what the other program says of itself."""
    options = {"width": shape.width, "batch": shape.batch, "frames": shape.frames, "size": shape.side}
    options |= {"classes": shape.classes, "steps": steps, "threads": shape.threads}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def changed(name: str, value: int) -> Shape:
    """Return the base with one thing changed; a side changes the height too."""
    return replace(BASE, side=value, height=value) if name == "side" else replace(BASE, **{name: value})


def save(result: dict[str, Any], out: Path) -> None:
    """Write what there is so far."""
    (out / "search_step.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def draw(growth: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw seconds and peak memory of a step against each thing that was changed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(growth), figsize=(3.1 * len(growth), 5.6), sharey="row", layout="constrained")
    labels = {"width": "width", "batch": "clips of a step", "frames": "frames", "side": "pixels of a side"}
    for column, (name, found) in enumerate(growth.items()):
        values = [one["shape"][name] for one in found]
        for way, color in (("fast", "#0b6e99"), ("plain", "#c4662d")):
            seconds = [one[way]["seconds"] for one in found]
            memory = [one[way]["peak_bytes"] / 2**20 for one in found]
            axes[0, column].plot(values, seconds, "o-", color=color, label=way)
            axes[1, column].plot(values, memory, "o-", color=color, label=way)
        for axis in axes[:, column]:
            axis.set_xticks(values)
            axis.grid(alpha=0.25)
        axes[1, column].set_xlabel(labels[name])
    for axis in axes[:, 0]:  # the rows share their scale, which is known once all is drawn
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("seconds of a step")
    axes[1, 0].set_ylabel("peak memory, MiB")
    axes[0, 0].legend(frameon=False)
    figure.suptitle(
        f"A search step around width {BASE.width}, {BASE.batch} clips of {BASE.frames}x{BASE.side}x{BASE.side}"
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
