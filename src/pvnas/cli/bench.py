"""What the commands of ``pvnas bench`` do: thin, everything slow is imported inside."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pvnas.cli.data import add_videos, data_config
from pvnas.cli.output import print_json, print_table
from pvnas.cli.parsing import clip_shape
from pvnas.errors import UserError

_COMPARED = {"speedup": "times plain", "memory_share": "of its memory"}


def add_bench_data(parser: ArgumentParser) -> None:
    """Arguments of ``bench data``."""
    add_videos(parser, nargs="?", default=None)
    parser.add_argument("--clips", type=int, default=48, metavar="N", help="clips that each way reads in a round [48]")
    parser.add_argument("--short-side", type=int, default=128, metavar="N", help="pixels of the shorter side [128]")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes of the loader [2]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of this process [1]")
    footage = "without DATA: encode this video in place of a generated one"
    parser.add_argument("--footage", metavar="VIDEO", default=None, help=footage)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_bench_data(args: Namespace) -> None:
    """Clips per second of every way to a clip."""
    _check_least(args, clips=1, short_side=16, workers=0, threads=1)
    if args.footage is not None and not Path(args.footage).is_file():
        raise UserError(f"no video file {args.footage!r}; give one to encode, or leave --footage away")
    from pvnas.bench.data import bench_catalog, bench_generated
    from pvnas.data.dataset import list_videos
    from pvnas.runtime.device import set_threads

    set_threads(args.threads)
    options = {"clips": args.clips, "short_side": args.short_side, "workers": args.workers}
    if args.folder is None:
        print("measuring on 340x256 H.264 at two lengths of the group of pictures; about a minute", file=sys.stderr)
        found = bench_generated(footage=Path(args.footage) if args.footage else None, **options)
    else:
        found = bench_catalog(list_videos(data_config(args)), **options)
    if args.json:
        print_json(found)
        return
    if "gop_12" not in found:
        _print_speeds("these videos", found)
        return
    for name in ("gop_12", "gop_250"):
        _print_speeds(name, found[name])


def _print_speeds(name: str, part: dict[str, Any]) -> None:
    own = part["direct"]["pvnas"]
    ways = {f"direct, {way}": rate for way, rate in part["direct"].items()}
    ways |= {way: part[way] for way in ("packed", "ram")}
    speeds = [(way, rate, f"{rate / own:.2f}") for way, rate in ways.items()]
    print_table([name.replace("_", " "), "clips/s", "times direct, pvnas"], speeds)
    print_table(["stage of a direct clip", "ms"], list(part["stages_ms"].items()))
    columns = ("from", "workers", "clips_per_s", "clips_per_s_and_worker", "frames_per_s", "frames_per_s_and_worker")
    rows = [tuple(row[column] for column in columns) for row in part["loader"]]
    print_table(["batches from", "workers", "clips/s", "of a worker", "frames/s", "of a worker"], rows)


def _check_least(args: Namespace, **least: int) -> None:
    """UserError for a number below the least that makes sense."""
    for name, low in least.items():
        value = getattr(args, name)
        if value < low:
            raise UserError(f"--{name.replace('_', '-')} must be at least {low}, not {value}")


def add_bench_search(parser: ArgumentParser) -> None:
    """Arguments of ``bench search``."""
    several = "; several: every combination"
    parser.add_argument(
        "--width", type=int, nargs="+", default=[16], metavar="N", help=f"channels of the first cells [16]{several}"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[4], metavar="N", help=f"clips of a step [4]{several}")
    parser.add_argument(
        "--clip", nargs="+", default=["8x64x64"], metavar="TxHxW", help=f"frames x height x width [8x64x64]{several}"
    )
    parser.add_argument("--classes", type=int, default=20, metavar="N", help="classes [20]")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="steps of a round, after two more [5]")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="turns of each supernet [2]")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain supernet out")
    parser.add_argument("--checkpointing", action="store_true", help="the fast one as with --search.checkpointing true")
    _add_machine(parser)


def run_bench_search(args: Namespace) -> None:
    """Seconds, memory, MACs and bytes of a search step, beside the plain supernet's."""
    settings = [
        Namespace(**vars(args) | {"width": width, "batch": batch, "clip": clip})
        for width, clip, batch in product(args.width, args.clip, args.batch)
    ]
    for one in settings:  # all of them before the first is measured
        _check_least(one, width=2, batch=1, classes=2, steps=1, rounds=1, threads=1)
        _setting(one)
    from pvnas.bench.search import Shape, bench_search

    found = []
    for one in settings:
        shape = Shape(width=one.width, checkpointing=args.checkpointing, **_setting(one))
        found.append(bench_search(shape, steps=args.steps, rounds=args.rounds, plain=not args.no_plain))
        if len(settings) > 1:
            print(f"width {one.width}, {one.batch} clips of {one.clip}: measured", file=sys.stderr)
    if len(settings) == 1:
        _print_sides("search step", found[0], ("fast", "plain"), args.json)
    elif args.json:
        print_json({"settings": found})
    else:
        _print_grid(settings, found)


def _print_grid(settings: list[Namespace], found: list[dict[str, Any]]) -> None:
    """Print a line a setting."""
    heads = ["width", "clips", "clip", "clips/s", "MiB", "GMACs a clip", "of the roofline"]
    rows: list[tuple[object, ...]] = []
    for one, each in zip(settings, found, strict=True):
        fast = each["fast"]
        row = (one.width, one.batch, one.clip, fast["clips_per_s"], fast["peak_bytes"] >> 20, fast["gmacs_per_clip"])
        rows.append((*row, fast["roofline"]["share"], *(each[name] for name in _COMPARED if name in each)))
    print_table([*heads, *(text for name, text in _COMPARED.items() if name in found[0])], rows)


def _add_machine(parser: ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads [1]")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu or cuda [cpu]")
    parser.add_argument("--precision", default="fp32", metavar="NAME", help="fp32 or bf16 [fp32]")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _setting(args: Namespace) -> dict[str, Any]:
    """Return the fields of ``pvnas.bench.sides.Setting``."""
    frames, height, side = clip_shape(args.clip)
    clips = {"batch": args.batch, "frames": frames, "height": height, "side": side, "classes": args.classes}
    return clips | _machine(args)


def _machine(args: Namespace) -> dict[str, Any]:
    """Return threads, device and precision, known to exist. UserError in one line where there is no GPU."""
    _check_known(args, device=("cpu", "cuda"), precision=("fp32", "bf16"))
    from pvnas.runtime.device import choose_device

    choose_device(args.device)
    return {"device": args.device, "precision": args.precision, "threads": args.threads}


def _check_known(args: Namespace, **known: tuple[str, ...]) -> None:
    """UserError for a word that an option does not know."""
    for name, words in known.items():
        if getattr(args, name) not in words:
            raise UserError(f"--{name} takes {' or '.join(words)}, not {getattr(args, name)!r}")


def _print_sides(title: str, found: dict[str, Any], ways: tuple[str, ...], as_json: bool) -> None:
    """Print what was measured side by side."""
    if as_json:
        print_json(found)
        return
    names = [name for name in ways if name in found]
    lines = ("seconds", "clips_per_s", "peak_bytes", "gmacs_per_clip", "bytes_per_clip")
    rows = [(line.replace("_", " "), *(found[name][line] for name in names)) for line in lines]
    rows.append(("share of the roofline", *(found[name]["roofline"]["share"] for name in names)))
    print_table([title, *names], rows)
    if "speedup" in found:
        print(f"fast over plain: {found['speedup']:.2f} times the clips/s, {found['memory_share']:.2f} of the memory")
    if "compiled_speedup" in found:
        print(f"compiled over plain: {found['compiled_speedup']:.2f} times the clips/s")
