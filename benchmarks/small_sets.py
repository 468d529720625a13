"""Small sets: a few classes of a data set with a few training videos each, drawn three times.

    python benchmarks/small_sets.py DATA OUT [--draws 0 1 2] [--classes 6] [--videos 12] [any option of `pvnas run`]

A draw takes classes at random, and of each as many films as possible, one video of each in turn; validation and test
are all videos of these classes that DATA's list says. Each draw is a run (`pvnas run --hours 0.4` unless options are
typed) in OUT/draw-N, tested on its test and on its training videos, beside the SVM on still frames of
still_features.py. Writes OUT/small_sets.json; the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common import command_line, describe_machine, in_one_line, now, pvnas
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from still_features import accuracies
from video_lists import Listed, list_options, listed_videos, write_list

OPTIONS = ["--hours", "0.4"]


def main() -> None:
    """Draw, run, and print network and SVM side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of videos with a list that names groups")
    parser.add_argument("folder", type=Path, metavar="OUT", help="where lists and run directories go")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="seeds of the draws")
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--videos", type=int, default=12, help="training videos of a class")
    args, more = parser.parse_known_args()
    data, videos = args.data.absolute(), listed_videos(args.data.absolute())
    report: dict[str, Any] = {"machine": describe_machine(), "command": command_line(), "date": now(), "draws": []}
    print("| draw | network: test | its training videos | still frames: test | videos |\n|---|---|---|---|---|")
    for seed in args.draws:
        folder = args.folder.absolute() / f"draw-{seed}"
        chosen = draw(videos, args.classes, args.videos, seed)
        row = {"draw": seed, **run_draw(data, folder, chosen, more or OPTIONS)}
        report["draws"].append(row)
        write_atomic(args.folder / "small_sets.json", json.dumps(report, indent=1) + "\n")
        counts = "/".join(map(str, row["still"]["videos"]))
        print(f"| {seed} | {row['test']} | {row['train']} | {row['still']['test']} | {counts} |", flush=True)


def draw(videos: Sequence[Listed], classes: int, number: int, seed: int) -> list[Listed]:
    """Return ``classes`` classes with ``number`` training videos each, and all their validation and test videos.

    Of a class a video of each film in turn, films and their videos in an order by ``seed``.
    """
    films: dict[str, dict[str, list[Listed]]] = defaultdict(lambda: defaultdict(list))
    for video in sorted(videos, key=lambda video: video.name):
        if video.split == "train":
            films[video.label][video.group].append(video)
    enough = sorted(label for label, of_film in films.items() if sum(map(len, of_film.values())) >= number)
    if len(enough) < classes:
        raise UserError(f"{len(enough)} classes have {number} training videos, not {classes}; set --classes, --videos")
    rng = np.random.default_rng(seed)
    labels = set(rng.choice(enough, classes, replace=False).tolist())
    chosen = [video for video in videos if video.label in labels and video.split != "train"]
    for label in sorted(labels):
        queues = [list(rng.permutation(len(own))) for own in films[label].values()]
        own, order = list(films[label].values()), rng.permutation(len(queues))
        turns = [(turn, place) for turn in range(max(map(len, queues))) for place in order if turn < len(queues[place])]
        chosen += [own[place][queues[place][turn]] for turn, place in turns[:number]]
    return chosen


def run_draw(data: Path, folder: Path, videos: Sequence[Listed], options: Sequence[str]) -> dict[str, Any]:
    """Run one draw and return top-1 of network and SVM. Raises UserError where a command fails."""
    listed = write_list(folder / "list", videos)
    training = [replace(video, split="test") for video in videos if video.split == "train"]
    train_list = write_list(folder / "training_videos", training)
    run_dir, tested = folder / "run", folder / "tested_on_training"
    _succeed(["run", str(data), "--dir", str(run_dir), *list_options(listed), *options])
    _succeed(["test", str(data), "--dir", str(run_dir), "--out", str(tested), *list_options(train_list)])
    results, train = (json.loads((place / "results.json").read_bytes()) for place in (run_dir, tested))
    return {
        "classes": sorted({video.label for video in videos}),
        "films": len({video.group for video in training}),
        "test": results["top1"],
        "train": train["top1"],
        "seconds": results["seconds"],
        "still": accuracies(data, "still", listed),
    }


def _succeed(arguments: list[str]) -> None:
    if code := pvnas(arguments):
        raise UserError(f"`pvnas {arguments[0]}` ended with exit code {code}; mend it, then type the same command")


if __name__ == "__main__":
    in_one_line(main)
