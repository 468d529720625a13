"""``pvnas demo``, ``run``, ``search``, ``train``, ``test`` and ``report``: a run's stages."""

import os
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from pvnas.api import config_of, default_run_dir, make_paths_absolute, run_of, tested_config, what_from
from pvnas.cli.command import Argument, command
from pvnas.cli.shared import (
    CONFIG,
    HOURS,
    PRESET,
    RUN,
    RUNTIME,
    checked_cost,
    model_directory,
    print_json,
    print_table,
    run_directory,
    speaks,
)
from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress
from pvnas.settings import check_resumable, load_config

PROCESSES = Argument(
    "--processes",
    "processes on this host that share the run, as torchrun would start them; they must divide batch.shards",
    1,
    least=1,
)

DATA_AND_CONFIG = (
    Argument("folder", "folder of labelled videos", None, metavar="DATA"),
    Argument("--dir", "run directory; an interrupted run is resumed there", None, metavar="RUN"),
    PRESET,
    CONFIG,
    PROCESSES,
)


@command(
    "demo",
    Argument("--dir", "where videos and run go", "runs/demo", metavar="DIR"),
    CONFIG,
    Argument("--preset", "demo, or tiny to see it work in a minute", "demo", metavar="NAME"),
    PROCESSES,
    takes_config=True,
    example="pvnas demo\npvnas demo --dir trial --preset tiny",
)
def demo(args: Namespace) -> None:
    """Generate videos, then search, train, test and report on them (about five minutes)."""
    folder, run_dir = Path(args.dir, "videos"), Path(args.dir, "run")
    config = load_config(args.preset, args.config, args.overrides)
    config.data.path = os.path.abspath(folder)
    check_resumable(run_dir, config)
    from pvnas import pipeline
    from pvnas.data.shapes import write_shapes
    from pvnas.runtime.distributed import joined_world

    def write() -> None:
        with Progress() as progress:
            write_shapes(folder, seed=0, progress=progress)

    with joined_world(config) as world:
        world.first_does(write)
        _print_outcome(pipeline.run(config, run_dir), run_dir)


@command(
    "run",
    *DATA_AND_CONFIG,
    HOURS,
    takes_config=True,
    example="pvnas run my_videos --hours 1\npvnas run my_videos --preset laptop\n"
    "pvnas run my_videos --dir runs/wide --train.width 24",
)
def run(args: Namespace) -> None:
    """Search, train, test and report on a folder of videos; the same command resumes it."""
    config, run_dir = run_of(args.folder, args.dir, args.preset, args.config, args.overrides, args.hours)
    from pvnas import pipeline

    _print_outcome(pipeline.run(config, run_dir), run_dir)


@command(
    "search",
    *DATA_AND_CONFIG,
    takes_config=True,
    example="pvnas search my_videos --preset laptop --search.epochs 20",
)
def search(args: Namespace) -> None:
    """Only search: find the four cells and write genotype.json."""
    config, run_dir = _config_of(args)
    from pvnas import pipeline

    pipeline.search(config, run_dir)
    if speaks():
        print(f"genotype: {run_dir / 'genotype.json'}")


@command(
    "train",
    *DATA_AND_CONFIG,
    Argument("--genotype", "genotype to train [the run's own]", None, metavar="FILE"),
    Argument(
        "--from",
        "fine-tune a trained network: genotype, geometry, clips and all but the classifier are its own",
        None,
        metavar="RUN",
    ),
    Argument("--peer", "train a published network in its place, by the same recipe: x3d-s, ...", None, metavar="NAME"),
    Argument(
        "--macs",
        "the peer as wide as has about so many a view, such as 0.3G [as published]",
        None,
        metavar="N",
        convert=checked_cost,
    ),
    Argument("--macs-of", "the peer as wide as has about those of a tested run", None, metavar="RUN"),
    takes_config=True,
    example="pvnas train my_videos --genotype runs/my_videos-laptop/genotype.json --dir runs/again\n"
    "pvnas train my_videos --from runs/their_videos-1h --train.epochs 40 --train.body_lr 0.1\n"
    "pvnas train my_videos --peer x3d-s --macs 0.3e9 --dir runs/x3d-s",
)
def train(args: Namespace) -> None:
    """Only train and test: the network of a genotype, or another to compare with, from scratch or fine-tuned."""
    origin = _origin(vars(args)["from"], args.dir) if vars(args)["from"] else None
    if origin and (args.genotype or args.peer):
        raise UserError("--from brings its own genotype and is no network to compare with: name one of them")
    if args.genotype and args.peer:
        raise UserError("--genotype and --peer: name one of them")
    if args.macs is not None and args.macs_of:
        raise UserError("--macs and --macs-of: name one of them")
    if (args.macs is not None or args.macs_of) and not args.peer:
        raise UserError("--macs makes a network to compare with as wide as fits it: name it, as --peer residual")
    config = config_of(args.folder, args.preset, args.config, args.overrides, origin)
    run_dir = Path(args.dir) if args.dir else default_run_dir(config, what_from(origin))
    from pvnas import pipeline

    if args.peer:
        macs = pipeline.macs_of(Path(args.macs_of)) if args.macs_of else args.macs
        results = pipeline.train_peer(config, run_dir, args.peer, macs)
    else:
        results = pipeline.train(config, run_dir, Path(args.genotype) if args.genotype else None, origin)
    _print_outcome(results, run_dir)


@command(
    "test",
    Argument("target", "run directory; with --dir RUN where its videos lie, or another set", metavar="RUN|DATA"),
    Argument("--dir", "run directory", None, metavar="RUN"),
    Argument("--out", "test all of DATA as another set, with the results in this folder", None, metavar="FOLDER"),
    RUNTIME,
    Argument("--json", "print results.json", False),
    PROCESSES,
    takes_config=True,
    example="pvnas test runs/my_videos-laptop\npvnas test my_videos --dir runs/my_videos-laptop --json\n"
    "pvnas test other_videos --dir runs/my_videos-laptop --out tests/other",
)
def test(args: Namespace) -> None:
    """Test a trained network, over many views of each video: on its run's test videos again, or on another set."""
    if args.out and not args.dir:
        raise UserError("--out goes with another set: pvnas test DATA --dir RUN --out FOLDER")
    if args.out:
        run_dir, out = model_directory(args.dir), Path(args.out)
    elif args.dir:
        run_dir = out = run_directory(args.dir)
    else:
        run_dir = out = run_directory(args.target, f"where it holds videos: pvnas test {args.target} --dir RUN")
    config = tested_config(run_dir, is_other_set=bool(args.out), overrides=args.overrides)
    if args.dir:
        config.data.path = args.target
        make_paths_absolute(config)
    from pvnas import pipeline

    if args.runtime != "torch":
        if args.out:
            raise UserError("an export is tested on its run's own test videos: leave --out away")
        from pvnas.deploy.export import Form

        found = pipeline.test_export(config, run_dir, Form(int8=args.runtime == "onnx-int8"))
        if args.json and speaks():
            print_json(found)
        elif speaks():
            same = "no test to compare with" if found["same"] is None else f"{found['same']} of them as by the network"
            print(f"top-1 {found['top1']} % on {found['videos']} videos; {same}")
        return
    results = pipeline.test_on(config, run_dir, out) if args.out else pipeline.test(config, run_dir)
    if args.json and speaks():
        print_json(results)
    elif not args.json:
        _print_outcome(results, out)


def _origin(folder: str, run_dir: str | None) -> Path:
    """The folder of the network to begin with. UserError where it is none; a run that has begun needs it no more."""
    if run_dir and Path(run_dir, "origin.json").is_file() and not Path(folder, "model.json").is_file():
        again = shlex.join(["pvnas", "train", "DATA", "--config", f"{run_dir}/config.yaml", "--dir", run_dir])
        raise UserError(
            f"{folder} holds no network any more, of which {run_dir} keeps what it took; go on with: {again}"
        )
    return model_directory(folder)


def _config_of(args: Namespace) -> tuple[RunConfig, Path]:
    """The config and the run directory that a command line asks for."""
    config = config_of(args.folder, args.preset, args.config, args.overrides)
    return config, Path(args.dir) if args.dir else default_run_dir(config)


def _print_outcome(results: dict[str, Any], run_dir: Path) -> None:
    from pvnas.training.outcome import lacks, mean_class_name

    if not speaks():
        return

    names = {
        "top1": "top-1 (%)",
        "top5": f"top-{results.get('k', 5)} (%)",
        "mean_class": f"{mean_class_name(results)} (%)",
        "n_videos": "test videos",
        "n_failed": "videos that failed",
        "views": "views of a video",
        "params": "parameters",
        "macs_per_view": "MACs of a view",
    }

    def interval(key: str) -> str:
        limits = results.get(f"{key}_interval")
        return f"{limits[0]:.2f} to {limits[1]:.2f}" if limits else ""

    # Accuracies are null where nothing was tested: the note below says so.
    known = {key: text for key, text in names.items() if results.get(key) is not None}
    rows = [(text, results[key], interval(key)) for key, text in known.items()]
    columns = ["result", "value", "95 % interval"][: 3 if any(limits for *_, limits in rows) else 2]
    print_table(columns, [row[: len(columns)] for row in rows])
    for line in lacks(results):
        print(f"note: {line}")
    print(f"report: {run_dir / 'report.html'}")


@command(
    "report",
    RUN,
    Argument("--png", "write the figures as PNG, too", False),
    example="pvnas report runs/demo/run\npvnas report runs/demo/run --png",
)
def report(args: Namespace) -> None:
    """Write report.html and the figures again."""
    run_dir = run_directory(args.run)
    from pvnas.report.page import write_report

    with Progress() as progress:
        page = write_report(run_dir, progress, png=args.png)
    print(page)
