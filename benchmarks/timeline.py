"""Timelines of films whose truth is known: test videos of a run joined one behind the other.

    python benchmarks/timeline.py RUN OUT.json [--clips 20] [--films 3] [--minutes 30] [--stride SECONDS]

For each film, drawn anew: the share of its seconds that has the right class, that which it would have if each video
were predicted by itself, and how far the ends of segments are from those of the videos. Then a film of so many
minutes: how many seconds of it are seen in a second, and the memory that this takes.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import numpy as np

from common import command_line, describe_machine, now
from pvnas.data.check import Limits
from pvnas.deploy.inputs import find_videos
from pvnas.deploy.model import load_model
from pvnas.deploy.predictions import predictions
from pvnas.deploy.timeline import Joining, pace_of, timeline_of_each

RATE, SIZE = 25, (320, 240)


def main() -> None:
    """Make films, watch them, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--films", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--window", type=float)
    parser.add_argument("--stride", type=float)
    parser.add_argument("--margin", type=float, default=Joining().margin)
    args = parser.parse_args()
    root = Path(json.loads((args.run / "catalog.json").read_text())["root"])
    with (args.run / "predictions.csv").open() as file:
        tested = [(root / row["path"], row["label"]) for row in csv.DictReader(file)]
    report: dict[str, Any] = {"machine": describe_machine(), "date": now(), "command": command_line(), "films": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.films):
            drawn = random.Random(seed).sample(tested, args.clips)
            film = Path(folder, f"film-{seed}.mp4")
            report["films"].append(watched(args, film, drawn, join(film, drawn)))
            print(report["films"][-1], flush=True)
        if args.minutes:
            long = Path(folder, "long.mp4")
            join(long, cycle(tested), args.minutes * 60)
            report["long"] = speed_of(args, long)
            print(report["long"], flush=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def join(film: Path, videos: Any, most_seconds: float = float("inf")) -> list[float]:
    """Write videos one behind the other, at one rate and size, and return when each ends, in seconds."""
    ends, frames = list[float](), 0
    with av.open(str(film), "w") as to:
        stream = to.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for path, _ in videos:
            with av.open(str(path)) as source:
                for frame in source.decode(video=0):
                    frame = frame.reformat(*SIZE, "yuv420p")
                    frame.pts, frame.time_base = frames, Fraction(1, RATE)
                    to.mux(stream.encode(frame))
                    frames += 1
            ends.append(frames / RATE)
            if ends[-1] >= most_seconds:
                break
        to.mux(stream.encode())
    return ends


def watched(args: argparse.Namespace, film: Path, videos: list[tuple[Path, str]], ends: list[float]) -> dict[str, Any]:
    """Return how the timeline of a film compares with what it was joined of."""
    model = load_model(args.run)
    pace, joining = pace_of(model, args.window, args.stride), Joining(args.margin)
    [found] = timeline_of_each(model, find_videos(film), pace, joining, "cpu", Limits())
    instants = np.arange(0.005, ends[-1], 0.01)
    truth = [videos[np.searchsorted(ends, instant)][1] for instant in instants]
    bounds = [segment.end for segment in found.segments]
    said = [found.segments[min(np.searchsorted(bounds, instant), len(bounds) - 1)].name for instant in instants]
    alone = [answer.classes[0][0] for answer in predictions([str(path) for path, _ in videos], args.run, 1)]
    by_itself = [alone[np.searchsorted(ends, instant)] for instant in instants]
    # Where one video ends and the next is of another class.
    changes = [end for end, (_, a), (_, b) in zip(ends, videos, videos[1:], strict=False) if a != b]
    away = [float(min(abs(end - np.array(bounds)))) for end in changes]
    return {
        "seconds": round(ends[-1], 2),
        "window": pace.window,
        "stride": pace.stride,
        "segments": len(found.segments),
        "right": round(float(np.mean([a == b for a, b in zip(said, truth, strict=True)])), 4),
        "right_if_each_video_is_predicted": round(
            float(np.mean([a == b for a, b in zip(by_itself, truth, strict=True)])), 4
        ),
        "changes": len(changes),
        "within_a_window": sum(distance <= pace.window for distance in away),
        "median_distance": round(float(np.median(away)), 3),
    }


def speed_of(args: argparse.Namespace, film: Path) -> dict[str, Any]:
    """Return seconds and memory of ``pvnas predict --timeline`` on a film, in a process of its own."""
    options = [f"--{name}={getattr(args, name)}" for name in ("window", "stride") if getattr(args, name)]
    words = [sys.executable, "-m", "pvnas", "predict", str(film), "--dir", str(args.run), "--timeline", *options]
    started = time.monotonic()
    subprocess.run([*words, "--out", str(film.with_suffix(".csv"))], check=True, capture_output=True)
    seconds = time.monotonic() - started
    with av.open(str(film)) as container:
        length = container.duration / 1e6
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"length": length, "seconds": round(seconds, 1), "times_real_time": round(length / seconds, 1)} | {
        "peak_mib_of_a_process": round(peak)
    }


if __name__ == "__main__":
    main()
