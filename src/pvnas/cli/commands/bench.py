"""``pvnas bench data`` and ``bench search``: how fast this machine reads clips and makes search steps."""

import sys
from argparse import Namespace
from itertools import product
from pathlib import Path
from typing import Any

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import CLIP, JSON, LISTING, MACHINE, THREADS, data_config, print_json, print_table
from pvnas.errors import UserError

_COMPARED = {"speedup": "times plain", "memory_share": "of its memory"}


@command(
    "bench data",
    Argument("folder", "folder of videos, list of videos, or a pack [generated videos]", None, metavar="DATA"),
    *LISTING,
    Argument("--clips", "clips that each reader reads in a round", 48, least=1),
    Argument("--short-side", "pixels of the shorter side", 128, least=16),
    Argument("--workers", "processes of the loader", 2, least=0),
    THREADS,
    Argument("--footage", "without DATA: encode this video in place of a generated one", None, metavar="VIDEO"),
    JSON,
    example="pvnas bench data\npvnas bench data my_videos --workers 4",
)
def bench_data(args: Namespace) -> None:
    """Measure how many clips a second come from files, packs and memory, and where the time goes."""
    if args.footage is not None and not Path(args.footage).is_file():
        raise UserError(f"no video file {args.footage!r}; give one to encode, or leave --footage away")
    from pvnas.bench.data import bench_catalog, bench_generated
    from pvnas.data.dataset import list_videos
    from pvnas.runtime.device import set_threads

    set_threads(args.threads)
    options = {"clips": args.clips, "short_side": args.short_side, "workers": args.workers}
    if args.folder is None:
        print("measuring on 340x256 H.264 at two lengths of the group of pictures; about a minute", file=sys.stderr)
        result = bench_generated(footage=Path(args.footage) if args.footage else None, **options)
    else:
        result = bench_catalog(list_videos(data_config(args)), **options)
    if args.json:
        print_json(result)
    elif args.folder is None:
        _print_speeds("gop 12", result["gop_12"])
        _print_speeds("gop 250", result["gop_250"])
    else:
        _print_speeds("these videos", result)


def _print_speeds(title: str, result: dict[str, Any]) -> None:
    ours = result["direct"]["pvnas"]
    rates = {f"direct, {reader}": rate for reader, rate in result["direct"].items()}
    rates |= {kind: result[kind] for kind in ("packed", "ram")}
    print_table([title, "clips/s", "times direct, pvnas"], [(*row, f"{row[1] / ours:.2f}") for row in rates.items()])
    print_table(["stage of a direct clip", "ms"], list(result["stages_ms"].items()))
    columns = ("from", "workers", "clips_per_s", "clips_per_s_and_worker", "frames_per_s", "frames_per_s_and_worker")
    rows = [tuple(row[column] for column in columns) for row in result["loader"]]
    print_table(["batches from", "workers", "clips/s", "of a worker", "frames/s", "of a worker"], rows)


@command(
    "bench search",
    Argument("--width", "channels of the first cells; several: every combination", [16], least=2, many=True),
    Argument("--batch", "clips of a step; several: every combination", [4], least=1, many=True),
    CLIP("frames x height x width; several: every combination", [(8, 64, 64)], many=True),
    Argument("--classes", "classes", 20, least=2),
    Argument("--steps", "steps of a round, after two more", 5, least=1),
    Argument("--rounds", "turns of each supernet", 2, least=1),
    Argument("--no-plain", "leave the plain supernet out", False),
    Argument("--checkpointing", "the fast one as with --search.checkpointing true", False),
    *(*MACHINE, JSON),
    example="pvnas bench search --width 16 --batch 4 --clip 8x64x64\n"
    "pvnas bench search --width 16 32 64 --batch 2 4 --clip 8x64x64 8x112x112 --rounds 1",
)
def bench_search(args: Namespace) -> None:
    """Measure a search step beside the plain supernet's: seconds, memory, MACs, bytes, roofline."""
    from pvnas.bench.search import Shape, bench_search
    from pvnas.runtime.device import choose_device

    choose_device(args.device)  # says so where there is no GPU
    names = ("classes", "checkpointing", "device", "precision", "threads")
    same = {name: getattr(args, name) for name in names}
    results = []
    for width, clip, batch in product(args.width, args.clip, args.batch):
        frames, height, side = clip
        shape = Shape(width=width, batch=batch, frames=frames, height=height, side=side, **same)
        results.append(bench_search(shape, steps=args.steps, rounds=args.rounds, plain=not args.no_plain))
        print(f"width {width}, {batch} clips of {frames}x{height}x{side}: measured", file=sys.stderr)
    if args.json:
        print_json(results[0] if len(results) == 1 else {"settings": results})
    elif len(results) == 1:
        _print_supernets(results[0])
    else:
        _print_grid(results)


def _print_supernets(result: dict[str, Any]) -> None:
    """Print what was measured side by side."""
    names = [name for name in ("fast", "plain") if name in result]
    lines = ("seconds", "clips_per_s", "peak_bytes", "gmacs_per_clip", "bytes_per_clip")
    rows = [(line.replace("_", " "), *(result[name][line] for name in names)) for line in lines]
    rows.append(("share of the roofline", *(result[name]["roofline"]["share"] for name in names)))
    print_table(["search step", *names], rows)
    if "speedup" in result:
        print(f"fast over plain: {result['speedup']:.2f} times the clips/s, {result['memory_share']:.2f} of the memory")


def _print_grid(results: list[dict[str, Any]]) -> None:
    """Print a line a setting."""
    heads = ["width", "clips", "clip", "clips/s", "MiB", "GMACs a clip", "of the roofline"]
    rows: list[tuple[object, ...]] = []
    for result in results:
        shape, fast = result["shape"], result["fast"]
        clip = "x".join(str(shape[name]) for name in ("frames", "height", "side"))
        measured = (fast["clips_per_s"], fast["peak_bytes"] >> 20, fast["gmacs_per_clip"], fast["roofline"]["share"])
        compared = (result[name] for name in _COMPARED if name in result)
        rows.append((shape["width"], shape["batch"], clip, *measured, *compared))
    print_table([*heads, *(text for name, text in _COMPARED.items() if name in results[0])], rows)
