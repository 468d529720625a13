"""``pvnas data list``, ``check``, ``show``, ``pack``, ``verify`` and ``shapes``: what is in videos, packs of them."""

from __future__ import annotations

import time
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pvnas.api import config_of
from pvnas.cli.command import Argument, Command, command
from pvnas.cli.shared import CONFIG, DEADLINE, JSON, PRESET, VIDEOS, data_config, part_of, print_json, print_table
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import StopRequest

if TYPE_CHECKING:
    from pvnas.data.catalog import Catalog

ODD_VIDEOS_SHOWN = 200
MISSING_SHOWN = 20


PART = Argument(
    "--part",
    "only one of so many parts, such as 3/16, beside others on other hosts; without it then, what they did is joined",
    None,
    metavar="K/N",
    convert=part_of,
)


def _listed(args: Namespace, command: Command) -> Catalog:
    """The videos with the splits that folders or lists name; what was remarked on goes to stderr, a line each."""
    from pvnas.data.dataset import list_videos

    catalog = list_videos(data_config(args))
    with Progress() as progress:
        for remark in catalog.remarks:
            progress.line(f"note: {command.in_its_options(remark)}")
    return catalog


def _splits_of_a_run(catalog: Catalog, args: Namespace) -> tuple[list[str], str]:
    """The splits that nothing names, which a run holds out of train, and a sentence that says so."""
    from pvnas.data.listing import FORMATS
    from pvnas.data.pack.read import open_pack

    format = open_pack(args.folder).info.source.format if catalog.format == "pack" else catalog.format
    named = {split for split, by_class in catalog.counts().items() if sum(by_class.values())}
    sentences = []
    if format in FORMATS and FORMATS[format].validation_is_test and "val" in named and "test" not in named:
        sentences = ["the validation videos are the test of a run, as there are no public labels for one"]
        named = {"test" if split == "val" else split for split in named}
    unnamed = [split for split in ("val", "test") if split not in named]
    if "train" not in named:
        sentences += ["no training videos are named; a run needs some"]
    elif unnamed:
        shares = {"val": "data.validation_share", "test": "data.test_share"}
        options = ", ".join(shares[split] for split in unnamed)
        sentences += [f"not named: {' and '.join(unnamed)}, which a run holds out of train ({options})"]
    return unnamed, "; ".join(sentences)


@command(
    "data list",
    *(*VIDEOS, JSON),
    example="pvnas data list my_videos\npvnas data list UCF-101 --format ucf101 --split 1 --json",
)
def list_data(args: Namespace) -> int:
    """Count the videos of a folder, list or pack by class and split; exit code 1 where files are missing."""
    catalog = _listed(args, list_data)
    counts = catalog.counts()
    unnamed, sentence = _splits_of_a_run(catalog, args)
    missing = list(catalog.missing().paths) if catalog.format != "pack" else []
    if args.json:
        summary = {"format": catalog.format, "videos": len(catalog.videos), "classes": list(catalog.classes)}
        splits = {split: sum(by_class.values()) for split, by_class in counts.items()}
        summary |= {"splits": splits, "missing": missing, "unlabelled": catalog.unlabelled, "counts": counts}
        print_json(summary | {"held_out": unnamed, "remarks": list(map(list_data.in_its_options, catalog.remarks))})
        return int(bool(missing))
    rows = [(name, *(counts[split].get(name, 0) for split in counts)) for name in catalog.classes]
    totals = ("all", *(sum(counts[split].values()) for split in counts))
    print_table(["class", *counts], [*rows, totals])
    if missing:
        print_table(["missing"], [[path] for path in missing[:MISSING_SHOWN]])
    print(f"{catalog.format}: {catalog.summary()}, {len(missing)} missing")
    if sentence:
        print(sentence)
    return int(bool(missing))


@command(
    "data check",
    *VIDEOS,
    Argument(
        "--out", "write verdicts.json and verdicts.csv there; a check that was stopped goes on there", None, str, "DIR"
    ),
    Argument("--workers", "videos read at once", 2),
    DEADLINE,
    Argument("--memory-mib", "MiB that a video may take", 1024),
    PART,
    JSON,
    example="pvnas data check my_videos --out checked",
)
def check(args: Namespace) -> int:
    """Read every video once and name those that are broken, short or refused; exit code 1 where some cannot be used."""
    from pvnas.data.check import Limits, check_videos
    from pvnas.data.check.results import MEMORY, by_class, counts, summary
    from pvnas.data.processes import MORE_TIME

    limits = Limits(args.workers, args.deadline, args.memory_mib)
    catalog = _listed(args, check)
    if catalog.format == "pack":
        raise UserError(f"{args.folder} is a pack: its videos were read when it was made; type: pvnas data verify PACK")
    out = Path(args.out) if args.out else None
    if args.part and not out:
        raise UserError("a part of a check is kept for the whole: name a folder that all parts share, with --out DIR")
    with Progress() as progress, StopRequest() if out else nullcontext() as stop:  # stopped, it goes on in `out`
        verdicts = check_videos(catalog, limits, out=out, part=args.part, progress=progress, stop=stop)
    broken = int(not all(verdict.usable for verdict in verdicts))
    classes, kinds = by_class(catalog, verdicts), list(counts(verdicts))
    if args.json:
        videos = [asdict(verdict) for verdict in verdicts]
        remarks = list(map(check.in_its_options, catalog.remarks))
        print_json({"counts": counts(verdicts), "classes": classes, "videos": videos, "remarks": remarks})
        return broken
    print_table(["class", *kinds], [(name, *(row.get(kind, 0) for kind in kinds)) for name, row in classes.items()])
    odd = [verdict for verdict in verdicts if verdict.verdict != "ok"]
    if odd:
        print_table(["video", "verdict", "detail"], [(v.path, v.verdict, v.detail) for v in odd[:ODD_VIDEOS_SHOWN]])
    if len(odd) > ODD_VIDEOS_SHOWN:
        print(f"and {len(odd) - ODD_VIDEOS_SHOWN} more: see verdicts.csv in the folder that --out names, or --json")
    if any(verdict.verdict == "timeout" for verdict in verdicts):
        print(f"some took too long to decode; give them more time: --deadline {MORE_TIME * args.deadline:g}")
    if any(verdict.detail.startswith(MEMORY) for verdict in verdicts):
        print(f"some take more memory than a video may; let them have more: --memory-mib {4 * args.memory_mib}")
    print(f"{len(verdicts)} videos: {summary(verdicts)}")
    return broken


@command(
    "data show",
    Argument("folder", "folder of labelled videos, list of videos, or a pack", metavar="DATA"),
    Argument("--out", "PNG to write", "augmented.png", metavar="FILE"),
    Argument("--stage", "whose clips", "train", Literal["train", "search"]),
    Argument("--clips", "random clips of each video", 3, least=1),
    PRESET,
    CONFIG,
    takes_config=True,
    example="pvnas data show my_videos --preset laptop --train.augment.rotate 10 --train.augment.brightness 0.3",
)
def show(args: Namespace) -> None:
    """Draw a sheet of training clips as augmentation makes them, before any training."""
    if not args.out.lower().endswith(".png"):
        raise UserError(f"--out {args.out}: a PNG is written; name a file that ends in .png")
    config = config_of(args.folder, args.preset, args.config, args.overrides)
    from pvnas.data.clips.sheet import write_sheet
    from pvnas.data.dataset import open_videos

    opened = open_videos(config.data, config.seed)
    with Progress() as progress:
        for remark in opened.catalog.remarks:
            progress.line(f"note: {remark}")
    stage = config.train if args.stage == "train" else config.search
    videos = opened.dataset("train", config.decoded_short_side, config.clip.colours)
    write_sheet(Path(args.out), videos, config, stage, args.clips)
    print(args.out)


@command(
    "data pack",
    *VIDEOS,
    Argument("out", "new folder; a pack that was interrupted goes on there", metavar="PACK"),
    Argument("--short-side", "pixels of the frames' shorter side, at least the largest that training asks for", 164),
    Argument("--quality", "of the JPEG frames, 1 to 100", 90),
    Argument("--videos-per-shard", "videos of a tar file", 256),
    Argument("--workers", "processes that decode; 0: this one", 2, least=0),
    DEADLINE,
    Argument("--max-bad-share", "largest share of videos that may be unreadable", 0.01),
    Argument("--seed", "of the order of the videos", 0),
    PART,
    JSON,
    example="pvnas data pack my_videos my_pack --short-side 164 --workers 8\npvnas run my_pack --preset laptop",
)
def pack(args: Namespace) -> None:
    """Rewrite videos as shards from which training reads a clip many times faster."""
    from pvnas.data.pack import pack_videos

    catalog, started = _listed(args, pack), time.monotonic()
    if catalog.format == "pack":
        raise UserError(f"{args.folder} is a pack already; name the folder of videos that it was made of")
    names = ("short_side", "quality", "videos_per_shard", "workers", "max_bad_share", "seed", "deadline")
    with Progress() as progress, StopRequest() as stop:
        options = {name: getattr(args, name) for name in names}
        info = pack_videos(catalog, Path(args.out), part=args.part, progress=progress, stop=stop, **options)
    if info is None:
        print(f"{args.out}: part {args.part[0]} of {args.part[1]} is there; when all are, type it without --part")
        return
    if args.json:
        size = sum(shard.bytes for shard in info.shards)
        summary = {"pack": args.out, "videos": sum(info.counts.values()), "frames": info.frames, "bytes": size}
        seconds = {"seconds": round(time.monotonic() - started, 2), "left_out": len(info.left_out)}
        print_json(summary | seconds | {"splits": info.counts, "shards": len(info.shards)})
        return
    if info.left_out:
        print_table(["left out", "why"], [(video.path, video.reason) for video in info.left_out[:ODD_VIDEOS_SHOWN]])
    print(f"{args.out}: {info.summary()}")


@command(
    "data verify",
    Argument("pack", "folder or URL of a pack", metavar="PACK"),
    JSON,
    example="pvnas data verify my_pack",
)
def verify(args: Namespace) -> None:
    """Read a whole pack and compare it with its hashes."""
    from pvnas.data.pack import is_pack, verify_pack

    if not is_pack(args.pack):
        raise UserError(f"{args.pack} is no finished pack; make one with: pvnas data pack DATA PACK")
    with Progress() as progress:
        problems = verify_pack(args.pack, progress)
    if args.json:
        print_json({"sound": not problems, "problems": problems})
    elif problems:
        print_table(["problem"], [[problem] for problem in problems])
    if problems:
        raise UserError(f"{args.pack} is damaged: {len(problems)} problems; pack those videos again in a new folder")
    if not args.json:
        print(f"{args.pack}: sound")


@command(
    "data shapes",
    Argument("folder", "new or empty folder", metavar="DIR"),
    Argument("--seed", "the same seed draws the same videos", 0),
    Argument("--videos-per-class", "of 8 classes; 100 : 15 : 25 of them are for training, validation and test", 140),
    example="pvnas data shapes shapes",
)
def shapes(args: Namespace) -> None:
    """Write the generated videos of the demo."""
    from pvnas.data.shapes import write_shapes

    with Progress() as progress:
        write_shapes(Path(args.folder), videos_per_class=args.videos_per_class, seed=args.seed, progress=progress)
    print(args.folder)
