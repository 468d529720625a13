"""What the commands of ``pvnas data`` do: thin, everything slow is imported inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pvnas.cli.output import print_json, print_table
from pvnas.config import DataConfig
from pvnas.errors import UserError
from pvnas.settings import all_fields

if TYPE_CHECKING:
    from pvnas.data.catalog import Catalog
    from pvnas.data.check import Limits
    from pvnas.data.check.results import CheckResult

ODD_VIDEOS_SHOWN = 200
MISSING_SHOWN = 20


# What lies where


def add_data(parser: ArgumentParser) -> None:
    """Arguments of ``data list``."""
    add_videos(parser)
    _add_json(parser)


def add_videos(parser: ArgumentParser, **options: Any) -> None:
    """The folder, and how its videos are listed."""
    parser.add_argument("folder", metavar="DATA", help="folder of videos, list of videos, or a pack", **options)
    names = all_fields()["data.format"]
    parser.add_argument("--format", type=names.kind, default="auto", metavar="NAME", help=f"{names.takes} [auto]")
    parser.add_argument("--split", type=int, default=1, metavar="N", help="official split of ucf101 and hmdb51 [1]")
    parser.add_argument("--annotations", metavar="PATH", default="", help="official lists that lie elsewhere")
    outside = "folder that listed paths and links may lead into"
    parser.add_argument("--allow-outside", metavar="DIR", default="", help=outside)


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def data_config(args: Namespace) -> DataConfig:
    """The part of a config that says where the videos are."""
    if args.split not in (1, 2, 3):
        raise UserError(f"--split is 1, 2 or 3, not {args.split}")
    return DataConfig(
        path=args.folder,
        format=args.format,
        split=args.split,
        annotations=args.annotations,
        allow_outside=args.allow_outside,
    )


def _listed(args: Namespace) -> Catalog:
    """The videos as the lists name them; of plain folders with the splits that training would make."""
    from pvnas.data.dataset import list_videos, open_videos

    catalog = list_videos(data_config(args))
    return open_videos(data_config(args), seed=0).catalog if catalog.format == "folders" else catalog


def run_list(args: Namespace) -> None:
    """Videos, classes and splits."""
    catalog = _listed(args)
    counts = catalog.counts()
    missing = list(catalog.missing().paths) if catalog.format != "pack" else []
    if args.json:
        print_json(
            {
                "format": catalog.format,
                "videos": len(catalog.videos),
                "classes": list(catalog.classes),
                "splits": {split: sum(by_class.values()) for split, by_class in counts.items()},
                "missing": missing,
                "unlabelled": catalog.unlabelled,
                "counts": counts,
            }
        )
        return
    rows = [(name, *(counts[split].get(name, 0) for split in counts)) for name in catalog.classes]
    totals = ("all", *(sum(counts[split].values()) for split in counts))
    print_table(["class", *counts], [*rows, totals])
    if missing:
        print_table(["missing"], [[path] for path in missing[:MISSING_SHOWN]])
    print(f"{catalog.format}: {catalog.summary()}, {len(missing)} missing")


# What is in the files


def add_check(parser: ArgumentParser) -> None:
    """Arguments of ``data check``."""
    add_data(parser)
    out_help = "write verdicts.json and verdicts.csv there; a check that was stopped goes on there"
    parser.add_argument("--out", metavar="DIR", default=None, help=out_help)
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="videos read at once [2]")
    deadline_help = "time for one video, and as much again for each 60 MiB of it [60]"
    parser.add_argument("--deadline", type=float, default=60.0, metavar="SECONDS", help=deadline_help)
    parser.add_argument("--memory-mib", type=int, default=1024, metavar="N", help="MiB that a video may take [1024]")


def run_check(args: Namespace) -> None:
    """Reads every video once and says what is wrong with which."""
    from dataclasses import asdict

    from pvnas.data.check import Limits
    from pvnas.data.check.results import by_class, counts, summary

    limits = Limits(args.workers, args.deadline, args.memory_mib)
    catalog = _listed(args)
    if catalog.format == "pack":
        raise UserError(f"{args.folder} is a pack: its videos were read when it was made; type: pvnas data verify PACK")
    verdicts = _checked(catalog, limits, Path(args.out) if args.out else None)
    classes = by_class(catalog, verdicts)
    if args.json:
        videos = [asdict(verdict) for verdict in verdicts]
        print_json({"counts": counts(verdicts), "classes": classes, "videos": videos})
        return
    kinds = list(counts(verdicts))
    rows = [(name, *(found.get(kind, 0) for kind in kinds)) for name, found in classes.items()]
    print_table(["class", *kinds], rows)
    odd = [verdict for verdict in verdicts if verdict.verdict != "ok"]
    if odd:
        print_table(["video", "verdict", "detail"], [(v.path, v.verdict, v.detail) for v in odd[:ODD_VIDEOS_SHOWN]])
    if len(odd) > ODD_VIDEOS_SHOWN:
        print(f"and {len(odd) - ODD_VIDEOS_SHOWN} more: see verdicts.csv in the folder that --out names, or --json")
    print(f"{len(verdicts)} videos: {summary(verdicts)}")


def _checked(catalog: Catalog, limits: Limits, out: Path | None) -> list[CheckResult]:
    """The verdicts; a stop leaves the same command where it can go on, if there is a folder to go on in."""
    from contextlib import nullcontext

    from pvnas.data.check import check_videos
    from pvnas.runtime.progress import Progress
    from pvnas.runtime.signals import StopRequest

    with Progress() as progress, StopRequest() if out else nullcontext() as stop:
        return check_videos(catalog, limits, out=out, progress=progress, stop=stop)


# Packs


def add_pack(parser: ArgumentParser) -> None:
    """Arguments of ``data pack``."""
    add_videos(parser)
    parser.add_argument("out", metavar="PACK", help="new folder; a pack that was interrupted goes on there")
    side_help = "pixels of the frames' shorter side, at least the largest that training asks for [164]"
    parser.add_argument("--short-side", type=int, default=164, metavar="N", help=side_help)
    parser.add_argument("--quality", type=int, default=90, metavar="N", help="of the JPEG frames, 1 to 100 [90]")
    parser.add_argument("--videos-per-shard", type=int, default=256, metavar="N", help="videos of a tar file [256]")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that decode [2]")
    bad_help = "largest share of videos that may be unreadable [0.01]"
    parser.add_argument("--max-bad-share", type=float, default=0.01, metavar="X", help=bad_help)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of the videos [0]")
    _add_json(parser)


def run_pack(args: Namespace) -> None:
    """Rewrites the videos as shards made for training."""
    import time

    from pvnas.data.dataset import list_videos
    from pvnas.data.pack import pack_videos
    from pvnas.runtime.progress import Progress

    catalog, started = list_videos(data_config(args)), time.monotonic()
    if catalog.format == "pack":
        raise UserError(f"{args.folder} is a pack already; name the folder of videos that it was made of")
    with Progress() as progress:
        info = pack_videos(
            catalog,
            Path(args.out),
            short_side=args.short_side,
            quality=args.quality,
            videos_per_shard=args.videos_per_shard,
            workers=args.workers,
            max_bad_share=args.max_bad_share,
            seed=args.seed,
            progress=progress,
        )
    if args.json:
        size = sum(shard.bytes for shard in info.shards)
        summary = {"pack": args.out, "videos": sum(info.counts.values()), "frames": info.frames, "bytes": size}
        seconds = {"seconds": round(time.monotonic() - started, 2), "left_out": len(info.left_out)}
        print_json(summary | seconds | {"splits": info.counts, "shards": len(info.shards)})
        return
    if info.left_out:
        print_table(["left out", "why"], [(video.path, video.reason) for video in info.left_out[:ODD_VIDEOS_SHOWN]])
    print(f"{args.out}: {info.summary()}")


def add_verify(parser: ArgumentParser) -> None:
    """Arguments of ``data verify``."""
    parser.add_argument("pack", metavar="PACK", help="folder or URL of a pack")
    _add_json(parser)


def run_verify(args: Namespace) -> None:
    """Reads a whole pack and compares it with its hashes."""
    from pvnas.data.pack import is_pack, verify_pack
    from pvnas.runtime.progress import Progress

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


# Generated videos


def add_shapes(parser: ArgumentParser) -> None:
    """Arguments of ``data shapes``."""
    parser.add_argument("folder", metavar="DIR", help="new or empty folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed draws the same videos [0]")


def run_shapes(args: Namespace) -> None:
    """Writes the generated videos."""
    generate_shapes(Path(args.folder), seed=args.seed)
    print(args.folder)


def generate_shapes(folder: Path, seed: int) -> None:
    """Writes the generated videos and shows how far it is."""
    from pvnas.data.shapes import write_shapes
    from pvnas.runtime.progress import Progress

    with Progress() as progress:
        write_shapes(folder, seed=seed, progress=progress)
