"""A control: a plain hand-made network, trained and tested by the code and the recipe of a searched one.

    python benchmarks/control.py DATA --dir RUN --macs-of OTHER_RUN [--depth 2] [any option of `pvnas train`]
    python benchmarks/control.py DATA --dir RUN --macs 0.29e9 --preset laptop --clip.input motion

Without it nobody can tell the recipe's share from the network's. The network is that of residual_network.py; its width
is the one whose multiply-accumulates of a test view are nearest to OTHER_RUN's, or to the number given. Fields that
make a searched network (search.*, train.layout, train.width, train.head) say nothing here, and the stem only whether
every other frame is left. RUN holds what a run does, but no genotype and no model.json: control.json says what the
network is. The same command resumes it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import fields_typed, in_one_line
from pvnas import pipeline
from pvnas.api import config_of
from pvnas.config import RunConfig
from pvnas.data.clips.mirrored_views import views_of_a_video
from pvnas.errors import UserError
from pvnas.runtime.checkpoint import load_tensors, save_tensors
from pvnas.runtime.files import write_atomic
from pvnas.runtime.random import key, seed_all
from pvnas.space.cost import Cost, count_macs, count_parameters
from pvnas.space.stem import time_stride
from residual_network import ResidualNetwork, width_for

DESCRIPTION = "control.json"


def main(words: Sequence[str] | None = None) -> None:
    """Train and test the control, and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder, list or pack of videos, as `pvnas run` takes it")
    parser.add_argument("--dir", type=Path, required=True, help="run directory; the same command resumes it")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--macs-of", type=Path, help="tested run whose multiply-accumulates of a view are matched")
    size.add_argument("--macs", type=float, help="multiply-accumulates of a view, such as 0.29e9")
    parser.add_argument("--depth", type=int, choices=(1, 2), default=1, help="blocks of a stage")
    parser.add_argument("--preset")
    parser.add_argument("--config", help="YAML file with fields, over the preset")
    args, more = parser.parse_known_args(words)
    config = config_of(args.data, args.preset, args.config, fields_typed(more))
    macs = macs_of_run(args.macs_of) if args.macs_of else args.macs
    results = run_control(config, args.dir, macs=macs, depth=args.depth)
    shown = ("top1", "mean_class", "n_videos", "params", "macs_per_view", "width", "depth", "seconds")
    print(json.dumps({name: results[name] for name in shown}, indent=1))


def macs_of_run(run_dir: Path) -> float:
    """Return the multiply-accumulates of a test view of a run's network. Raises UserError for one without results."""
    try:
        return float(json.loads((run_dir / pipeline.RESULTS).read_bytes())["macs_per_view"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{run_dir} holds no results with macs_per_view; name a tested run, or type --macs N") from None


def run_control(config: RunConfig, run_dir: Path, *, macs: float, depth: int) -> dict[str, Any]:
    """Train the control of about ``macs`` multiply-accumulates a view, test it, and return what results.json holds."""
    with pipeline.open_session(config, run_dir) as session:
        path, weights = run_dir / pipeline.RESULTS, run_dir / pipeline.WEIGHTS
        network = build(config, classes=len(session.opened.catalog.classes), macs=macs, depth=depth)
        cost, shape = cost_of(network, config), {"width": network.width, "depth": depth}
        _keep(run_dir, {"network": "residual", **shape, "macs_asked": macs, "macs_per_view": cost.macs})
        if path.exists():
            session.progress.line("test: finished before; its results are kept")
            return dict(json.loads(path.read_bytes()))
        if weights.exists():
            network.load_state_dict(load_tensors(weights))
        else:
            save_tensors(weights, dict(session.train_network(network).state_dict()))
            network.load_state_dict(load_tensors(weights))
        views = cost.over_views(views_of_a_video(config.test, session.opened.catalog.classes))
        about = {name: views[name] for name in ("params", "activations", "macs_per_view", "macs_per_video", "clip")}
        about |= {"digest": pipeline.run_digest(run_dir), "control": "residual", **shape}
        about |= {"sampling": config.clip.sampling, "rule": config.test.rule, "short_videos": config.clip.short_videos}
        return session.test_network(network.to(session.device).eval(), about)


def build(config: RunConfig, *, classes: int, macs: float, depth: int) -> ResidualNetwork:
    """Return the network as its training begins: its width by ``macs``, its weights drawn by the config's seed."""
    options = {"num_classes": classes, "in_channels": config.network.in_channels}
    options |= {"time_stride": time_stride(config.stem)}
    width = width_for(macs, depth, _clip(config), **options)
    rates = {"drop_rate": config.train.dropout, "drop_path_rate": config.train.drop_path}
    with seed_all(key(config.seed, "network")):
        return ResidualNetwork(width, depth, **options, **rates)


def cost_of(network: ResidualNetwork, config: RunConfig) -> Cost:
    """Return what one test view costs."""
    return Cost(count_parameters(network), *count_macs(network, _clip(config)), _clip(config))


def _clip(config: RunConfig) -> tuple[int, int, int]:
    return config.clip.frames, config.test.crop, config.test.crop


def _keep(run_dir: Path, description: dict[str, Any]) -> None:
    """Write control.json. Raises UserError where the directory holds another network's."""
    path = run_dir / DESCRIPTION
    if path.exists() and json.loads(path.read_bytes()) != description:
        raise UserError(f"{run_dir} holds another control (see {DESCRIPTION}); type the old numbers, or another --dir")
    write_atomic(path, json.dumps(description, indent=1) + "\n")


if __name__ == "__main__":
    in_one_line(main)
