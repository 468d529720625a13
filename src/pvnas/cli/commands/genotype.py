"""``pvnas cost``, ``genotype random`` and ``genotype show``: what can be said of a genotype without any video."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Literal

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import CLIP, JSON, print_json, print_table
from pvnas.config import PAPER_LAYOUT, ClipConfig, NetworkConfig, StemKind


@command(
    "cost",
    Argument("genotype", "genotype file", metavar="GENOTYPE"),
    Argument("--width", "channels of the first cells", 64),
    Argument("--repeat", "normal cells between two reductions", 1),
    CLIP("frames x height x width", (8, 224, 224)),
    Argument("--classes", "classes", 400),
    Argument("--views", "views of a video in the test, mirrored ones too", 30, least=1),
    Argument("--layout", "stack of cells", PAPER_LAYOUT, metavar="CELLS"),
    Argument("--stem", "first layers", "stride4", StemKind),
    Argument(
        "--input", "what the network sees (clip.input)", "rgb", Literal["rgb", "motion", "both", "flow", "flow+rgb"]
    ),
    Argument("--latency", "also measure how long a view takes on this machine, in a fresh process", False),
    Argument("--batch", "views at once, for --latency", 1, least=1),
    Argument("--threads", "CPU threads, for --latency", 1, least=1),
    Argument("--device", "where to measure --latency", "cpu", Literal["cpu", "cuda"]),
    JSON,
    example="pvnas cost genotype.json --width 64 --repeat 1 --clip 8x224x224 --classes 400",
)
def cost(args: Namespace) -> None:
    """Print parameters and multiply-accumulates of a genotype's network."""
    from pvnas.space.cost import network_cost
    from pvnas.space.genotype import Genotype

    genotype = Genotype.load(args.genotype)
    shape = {"width": args.width, "repeat": args.repeat, "layout": args.layout, "stem": args.stem}
    channels = ClipConfig(input=args.input).channels
    network_config = NetworkConfig(**shape, in_channels=channels)
    costs = network_cost(genotype, network_config, clip=args.clip, classes=args.classes).over_views(args.views)
    costs |= {"classes": args.classes, **shape, "input": args.input}
    if args.latency:
        from pvnas.deploy.latency import ProcessClock, Use
        from pvnas.runtime.device import choose_device
        from pvnas.search.latency import RUNS

        device = choose_device(args.device).type
        seen = ClipConfig(input=args.input, frames=args.clip[0])
        use = Use(network_config, seen, args.clip[1:], args.classes, device, args.threads, args.batch)
        [timing] = ProcessClock(use)([genotype], RUNS)
        costs["latency"] = timing._asdict() | {"of": use.where}
    if args.json:
        print_json(costs)
        return
    rows: list[tuple[str, object]] = [
        ("parameters", costs["params"]),
        (f"MACs of a view of {'x'.join(map(str, args.clip))}", costs["macs_per_view"]),
        (f"MACs of a video of {args.views} views", costs["macs_per_video"]),
        ("activations of a view", costs["activations"]),
    ]
    if latency := costs.get("latency"):
        rows += [(f"milliseconds of {latency['of']}, median", latency["median_ms"])]
        rows += [(f"milliseconds that one of twenty exceeds, of {latency['runs']} runs", latency["p95_ms"])]
    print_table(["cost", "value"], rows)


@command(
    "genotype random",
    Argument("--seed", "the same seed gives the same genotype", 0, least=0),
    Argument("--min-convolutions", "convolutions in each cell, at least (P: 4)", 0),
    Argument("--out", "write it there instead of to stdout", None, metavar="FILE"),
    example="pvnas genotype random --seed 7 --out genotype.json",
)
def random(args: Namespace) -> None:
    """Draw a genotype at random."""
    from pvnas.space.genotype import random_genotype

    text = random_genotype(args.seed, args.min_convolutions).to_json()
    if args.out is None:
        print(text, end="")
        return
    from pvnas.runtime.files import write_atomic

    write_atomic(Path(args.out), text)
    print(f"wrote {args.out}", file=sys.stderr)


@command(
    "genotype show",
    Argument("file", "genotype file", metavar="FILE"),
    example="pvnas genotype show runs/demo/run/genotype.json",
)
def show(args: Namespace) -> None:
    """Print the cells of a genotype."""
    from pvnas.space.genotype import INPUTS, Edge, Genotype

    def words(edge: Edge) -> str:
        return f"{edge.operation} of {'input' if edge.predecessor < INPUTS else 'node'} {edge.predecessor}"

    genotype = Genotype.load(args.file)
    cells = genotype.cells.items()
    rows = [(name, str(node), *map(words, edges)) for name, cell in cells for node, edges in enumerate(cell, INPUTS)]
    print_table(["cell", "node", "first", "second"], rows)
    counts = genotype.parameter_free()
    total, by_cell = counts.pop("total"), ", ".join(f"{name} {count}" for name, count in counts.items())
    print(f"parameter-free operations: {total} of {len(list(genotype.edges()))} ({by_cell})")
