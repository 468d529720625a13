"""What each command of ``pvnas`` does: thin, everything slow is imported inside, results go to stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from pvnas.cli.data import generate_shapes
from pvnas.cli.output import print_json, print_table
from pvnas.cli.parsing import checked_preset, clip_shape
from pvnas.config import PAPER_LAYOUT, PRESETS, NetworkConfig, RunConfig
from pvnas.errors import UserError
from pvnas.settings import CONFIG_NAME, check_resumable, dump_config, load_config, shown

DEMO_DIR = "runs/demo"
REPORT_NAME = "report.html"
RESULTS_NAME = "results.json"


# Commands that run stages


def add_run(parser: ArgumentParser) -> None:
    """Arguments of ``run`` and ``search``."""
    parser.add_argument("folder", metavar="DATA", nargs="?", default=None, help="folder of labelled videos")
    _add_common(parser)


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--dir", metavar="RUN", default=None, help="run directory; an interrupted run is resumed there")
    parser.add_argument("--preset", metavar="NAME", default=None, help=f"one of {', '.join(PRESETS)} [laptop]")
    parser.add_argument("--config", metavar="FILE", default=None, help="YAML file with fields, over the preset")


def add_train(parser: ArgumentParser) -> None:
    """Arguments of ``train``."""
    add_run(parser)
    parser.add_argument("--genotype", metavar="FILE", default=None, help="genotype to train [the run's own]")


def add_demo(parser: ArgumentParser) -> None:
    """Arguments of ``demo``."""
    parser.add_argument("--dir", metavar="DIR", default=DEMO_DIR, help=f"where videos and run go [{DEMO_DIR}]")
    parser.add_argument("--config", metavar="FILE", default=None, help="YAML file with fields, over the preset")
    parser.add_argument("--preset", metavar="NAME", default="demo", help="demo, or tiny to see it work in a minute")


def _config_of(args: Namespace) -> tuple[RunConfig, Path]:
    """The config and the run directory that a command line asks for."""
    config = load_config(checked_preset(args.preset), args.config, args.overrides)
    if args.folder is not None:
        config.data.path = args.folder
    _make_path_absolute(config)
    if args.dir:
        return config, Path(args.dir)
    from pvnas import pipeline

    return config, pipeline.default_run_dir(config)


def _make_path_absolute(config: RunConfig) -> None:
    """A run must find its videos again from any folder; a wrong path is said before anything slow is imported."""
    if not config.data.path:
        raise UserError("which videos? name a folder with one folder of videos per class: pvnas run MY_VIDEOS")
    if "://" in config.data.path:  # a pack in an object store
        return
    for name in ("annotations", "allow_outside"):
        if getattr(config.data, name):
            setattr(config.data, name, os.path.abspath(os.path.expanduser(getattr(config.data, name))))
    path = Path(os.path.abspath(os.path.expanduser(config.data.path)))
    if not path.exists():
        raise UserError(f"no folder {shown(config.data.path)}; name a folder with one folder of videos per class")
    config.data.path = str(path)


def run_all(args: Namespace) -> None:
    """Search, train, test, report."""
    config, run_dir = _config_of(args)
    from pvnas import pipeline

    pipeline.run(config, run_dir)
    _print_outcome(run_dir)


def run_demo(args: Namespace) -> None:
    """The whole job on videos that it generates first."""
    base = Path(args.dir)
    config = load_config(checked_preset(args.preset), args.config, args.overrides)
    config.data.path = os.path.abspath(base / "videos")
    check_resumable(base / "run", config)
    from pvnas import pipeline

    generate_shapes(base / "videos", seed=0)
    pipeline.run(config, base / "run")
    _print_outcome(base / "run")


def run_search(args: Namespace) -> None:
    """Search only."""
    config, run_dir = _config_of(args)
    from pvnas import pipeline

    pipeline.search(config, run_dir)
    print(f"genotype: {run_dir / 'genotype.json'}")


def run_train(args: Namespace) -> None:
    """Training and test of a genotype's network."""
    config, run_dir = _config_of(args)
    genotype = Path(args.genotype) if args.genotype else None
    if genotype is None and not (run_dir / "genotype.json").exists():
        raise UserError(
            f"{run_dir} holds no genotype yet; name one with --genotype FILE, or search first: pvnas search"
        )
    if genotype is not None:
        from pvnas.space.genotype import Genotype

        Genotype.load(genotype)  # says what is wrong with the file before any video is read
    from pvnas import pipeline

    pipeline.train(config, run_dir, genotype)
    _print_outcome(run_dir)


def add_test(parser: ArgumentParser) -> None:
    """Arguments of ``test``."""
    parser.add_argument("target", metavar="RUN|DATA", help="run directory, or with --dir RUN its folder of videos")
    parser.add_argument("--dir", metavar="RUN", default=None, help="run directory")
    _add_compile(parser)
    parser.add_argument("--json", action="store_true", help="print results.json")


def _add_compile(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--compile", action="store_true", help="compile the network first: a minute, a C++ compiler; then faster"
    )


def run_test(args: Namespace) -> None:
    """The test over many views, with the run's own config."""
    run_dir = _run_dir(args.dir or args.target)
    config = load_config(file=run_dir / CONFIG_NAME, overrides=args.overrides)
    if args.dir:
        config.data.path = args.target
    _make_path_absolute(config)
    from pvnas import pipeline

    pipeline.test(config, run_dir, compile_it=args.compile)
    if args.json:
        print_json(_results(run_dir))
    else:
        _print_outcome(run_dir)


def add_run_dir(parser: ArgumentParser) -> None:
    """The argument of what reads a run directory."""
    parser.add_argument("run", metavar="RUN", help="run directory")


def run_report(args: Namespace) -> None:
    """Writes the page again from what the run directory holds."""
    run_dir = _run_dir(args.run)
    from pvnas.report.page import write_report

    print(write_report(run_dir))


def _run_dir(path: str) -> Path:
    run_dir = Path(path)
    if not (run_dir / CONFIG_NAME).is_file():
        raise UserError(f"{shown(path)} is no run directory (it holds no {CONFIG_NAME}); make one with: pvnas run DATA")
    return run_dir


def _results(run_dir: Path) -> dict[str, Any]:
    file = run_dir / RESULTS_NAME
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file} cannot be read; write it again with: pvnas test {run_dir}") from None
    if not isinstance(results, dict):
        raise UserError(f"{file} holds no results; write it again with: pvnas test {run_dir}")
    return results


def _print_outcome(run_dir: Path) -> None:
    results = _results(run_dir)
    k = results.get("k", 5)
    names = {
        "top1": "top-1 (%)",
        "top5": f"top-{k} (%)",
        "mean_class": "mean over classes (%)",
        "n_videos": "test videos",
        "n_failed": "videos that failed",
        "views": "views of a video",
        "params": "parameters",
        "macs_per_view": "MACs of a view",
    }
    print_table(["result", "value"], [(text, results[key]) for key, text in names.items() if key in results])
    if (run_dir / REPORT_NAME).exists():
        print(f"report: {run_dir / REPORT_NAME}")


# Prediction, costs, genotypes, digest


def add_predict(parser: ArgumentParser) -> None:
    """Arguments of ``predict``."""
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="video file")
    parser.add_argument("--dir", metavar="RUN", required=True, help="run directory with a trained network")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to print for each video [5]")
    _add_compile(parser)
    _add_json(parser)


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_predict(args: Namespace) -> None:
    """Scores of video files."""
    run_dir = _run_dir(args.dir)
    missing = [video for video in args.videos if not Path(video).is_file()]
    if missing:
        raise UserError(f"no video file {shown(missing[0])}; name files, not folders")
    if args.top < 1:
        raise UserError(f"--top must be at least 1, not {args.top}")
    from pvnas.deploy.predict import predict

    predictions = predict([Path(video) for video in args.videos], run_dir, args.top, compile_it=args.compile)
    if args.json:
        print_json(
            [{"path": str(p.path), "classes": [{"class": n, "score": s} for n, s in p.classes]} for p in predictions]
        )
        return
    rows = [
        (str(p.path), rank, name, f"{score:.3f}") for p in predictions for rank, (name, score) in _ranked(p.classes)
    ]
    print_table(["video", "rank", "class", "score"], rows)


def _ranked(classes: Sequence[tuple[str, float]]) -> list[tuple[int, tuple[str, float]]]:
    return list(enumerate(classes, start=1))


def add_cost(parser: ArgumentParser) -> None:
    """Arguments of ``cost``."""
    parser.add_argument("genotype", metavar="GENOTYPE", help="genotype file")
    parser.add_argument("--width", type=int, default=64, metavar="N", help="channels of the first cells [64]")
    parser.add_argument("--repeat", type=int, default=1, metavar="K", help="normal cells between two reductions [1]")
    parser.add_argument("--clip", default="8x224x224", metavar="TxHxW", help="frames x height x width [8x224x224]")
    parser.add_argument("--classes", type=int, default=400, metavar="N", help="classes [400]")
    parser.add_argument("--views", type=int, default=30, metavar="N", help="views of a video in the test [30]")
    parser.add_argument("--layout", default=PAPER_LAYOUT, metavar="CELLS", help=f"stack of cells [{PAPER_LAYOUT}]")
    stems = Literal["stride4", "stride2"]
    parser.add_argument("--stem", type=stems, default="stride4", metavar="NAME", help="stride4 or stride2 [stride4]")
    parser.add_argument("--latency", action="store_true", help="also measure a forward pass on this machine")
    _add_json(parser)


def run_cost(args: Namespace) -> None:
    """Parameters, MACs, activations, and milliseconds if asked."""
    clip = clip_shape(args.clip)
    if args.views < 1:
        raise UserError(f"--views must be at least 1, not {args.views}")
    from pvnas.space.cost import measure_latency, network_cost
    from pvnas.space.genotype import Genotype

    genotype = Genotype.load(args.genotype)
    shape = {"width": args.width, "repeat": args.repeat, "layout": args.layout, "stem": args.stem}
    cost = network_cost(genotype, clip=clip, classes=args.classes, **shape).over_views(args.views)
    cost |= {"classes": args.classes, **shape}
    if args.latency:
        from pvnas.fast.inference import for_inference
        from pvnas.space.network import PVNASNetwork

        network = PVNASNetwork(genotype, NetworkConfig(**shape), num_classes=args.classes)
        cost["latency"] = measure_latency(for_inference(network), clip)
    if args.json:
        print_json(cost)
        return
    rows: list[tuple[str, object]] = [
        ("parameters", cost["params"]),
        (f"MACs of a view of {args.clip}", cost["macs_per_view"]),
        (f"MACs of a video of {args.views} views", cost["macs_per_video"]),
        ("activations of a view", cost["activations"]),
    ]
    rows += [(f"{name.removesuffix('_ms')} milliseconds", value) for name, value in cost.get("latency", {}).items()]
    print_table(["cost", "value"], rows)


def add_random(parser: ArgumentParser) -> None:
    """Arguments of ``genotype random``."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same genotype [0]")
    parser.add_argument(
        "--min-convolutions", type=int, default=0, metavar="N", help="convolutions in each cell, at least (P: 4) [0]"
    )
    parser.add_argument("--out", metavar="FILE", default=None, help="write it there instead of to stdout")


def run_random(args: Namespace) -> None:
    """A genotype drawn uniformly."""
    from pvnas.space.genotype import random_genotype

    text = random_genotype(args.seed, args.min_convolutions).to_json()
    if args.out is None:
        print(text, end="")
        return
    from pvnas.runtime.files import write_atomic

    write_atomic(Path(args.out), text)
    print(f"wrote {args.out}", file=sys.stderr)


def add_genotype(parser: ArgumentParser) -> None:
    """The argument of ``genotype show``."""
    parser.add_argument("file", metavar="FILE", help="genotype file")


def run_show(args: Namespace) -> None:
    """The cells of a genotype, one line per node."""
    from pvnas.space.genotype import INPUTS, Genotype

    genotype = Genotype.load(args.file)
    rows = [
        (category, str(node), *(f"{edge.operation} of {_source(edge.source, INPUTS)}" for edge in edges))
        for category, cell in genotype.cells.items()
        for node, edges in enumerate(cell, start=INPUTS)
    ]
    print_table(["cell", "node", "first", "second"], rows)
    free = genotype.parameter_free()
    print(f"parameter-free operations: {free.pop('total')} of {len(list(genotype.edges()))} ({_pairs(free)})")


def _source(source: int, inputs: int) -> str:
    return f"{'input' if source < inputs else 'node'} {source}"


def _pairs(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def run_digest(args: Namespace) -> None:
    """The SHA-256 over everything that a run has learnt."""
    run_dir = _run_dir(args.run)
    from pvnas import pipeline

    print(pipeline.run_digest(run_dir))


# Configs


def add_config(parser: ArgumentParser) -> None:
    """The argument of ``config show``."""
    parser.add_argument("preset", metavar="PRESET", nargs="?", default=None, help=f"one of {', '.join(PRESETS)}")


def run_config(args: Namespace) -> None:
    """A preset as YAML with every field explained; without a name, the presets."""
    if args.preset is None:
        print_table(["preset", "what it is"], [(name, (make.__doc__ or "").strip()) for name, make in PRESETS.items()])
        return
    print(dump_config(load_config(args.preset), comments=True), end="")
