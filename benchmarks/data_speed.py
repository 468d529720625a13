"""Clips per second from files, packs and memory, beside PyAV, torchcodec and decord: `pvnas bench data` for the record.

    python benchmarks/data_speed.py OUT [--footage VIDEO] [--clips 48] [--workers 2]

Writes OUT/data_speed.json: generated videos, and (--footage) a real one encoded the same way. torchcodec and decord are
measured where they are installed, each as its own manual says, on one thread; give them an environment of their own,
they are no dependencies. About three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from common import describe_machine, in_one_line, now
from pvnas.bench.data import bench_generated
from pvnas.bench.readers import FramesOfAFile, OtherReader, read_by_pyav
from pvnas.runtime.device import set_threads


def read_by_torchcodec(frames: FramesOfAFile, mode: str) -> Any:
    """Read by index; approximate mode takes times from the average rate, not exact where the rate varies."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    resize = [Resize(frames.size)]
    decoder = VideoDecoder(str(frames.path), num_ffmpeg_threads=1, seek_mode=mode, transforms=resize)
    return decoder.get_frames_at(indices=frames.indices).data


def read_by_decord(frames: FramesOfAFile) -> Any:
    """Read a batch of indices, scaled by the reader."""
    import decord

    height, width = frames.size
    reader = decord.VideoReader(str(frames.path), ctx=decord.cpu(0), width=width, height=height, num_threads=1)
    return reader.get_batch(frames.indices).asnumpy()


OTHERS: dict[str, tuple[str, OtherReader]] = {
    "pyav": ("av", read_by_pyav),
    "torchcodec": ("torchcodec.decoders", partial(read_by_torchcodec, mode="exact")),
    "torchcodec_approximate": ("torchcodec.decoders", partial(read_by_torchcodec, mode="approximate")),
    "decord": ("decord", read_by_decord),
}
"""Name -> the module that it needs, and how it reads."""


def imports(module: str) -> bool:
    try:
        import_module(module)
    except (ImportError, OSError, RuntimeError):  # not installed, or without a matching FFmpeg on the system
        return False
    return True


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--footage", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    others = {name: read for name, (module, read) in OTHERS.items() if imports(module)}
    measure = partial(bench_generated, clips=args.clips, short_side=128, workers=args.workers, others=others)
    record = {"date": now(), "machine": describe_machine(), "generated": measure()}
    if args.footage:
        # A path of this machine tells nobody anything.
        record["footage"] = measure(footage=args.footage) | {"footage": args.footage.name}
    (args.out / "data_speed.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    in_one_line(main)
