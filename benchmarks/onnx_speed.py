"""Milliseconds of a run's network by its ONNX export and by `pvnas.for_inference`, in turn: from its input to scores.

    pvnas export RUN && python benchmarks/onnx_speed.py RUN OUT.json [--batches 1 2 4 8 24] [--threads 1]

Both take what the network sees; decoding and optical flow are no part of it. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from common import command_line, describe_machine, now
from pvnas.deploy.export import FOLDER, Form, OnnxNetwork
from pvnas.deploy.model import load_model
from pvnas.fast.inference import for_inference


def main() -> None:
    """Measure, print and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 24])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.run)
    clip, side = model.config.clip, model.config.test.crop
    forms = {"onnx": OnnxNetwork(args.run / FOLDER / Form().file_name, args.run), "ours": for_inference(model.network)}
    report = {"machine": describe_machine(), "date": now(), "command": command_line(), "threads": args.threads}
    report["clip"] = [clip.channels, clip.frames, side, side]
    rows = []
    for batch in args.batches:
        x_NCTHW = torch.randn(batch, *report["clip"])
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        with torch.inference_mode():
            for number in range(args.passes + 2):  # the first two are not counted
                for name, network in forms.items():
                    started = time.perf_counter()
                    network(x_NCTHW)
                    if number >= 2:
                        seconds[name].append(time.perf_counter() - started)
        medians = {name: round(1000 * statistics.median(taken), 3) for name, taken in seconds.items()}
        rows.append(
            {"clips": batch, "milliseconds": medians, "onnx_of_ours": round(medians["onnx"] / medians["ours"], 3)}
        )
        print(rows[-1], flush=True)
    args.out.write_text(json.dumps(report | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
