"""The main job: search, derive, train, test, report.

Only a genotype and the run directory go from one stage to the next. Every stage skips what is finished and resumes what
is not, so the same command continues an interrupted run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pvnas import exporting
from pvnas.config import RunConfig
from pvnas.data.catalog import SPLITS
from pvnas.data.clips.mirrored_views import views_of_a_video
from pvnas.data.dataset import OpenedVideos
from pvnas.data.identity import open_whole
from pvnas.deploy.export import FOLDER, Form, need_packages
from pvnas.deploy.model import Model, load_model
from pvnas.deploy.origin import ORIGIN, keep_origin, load_origin
from pvnas.errors import UserError
from pvnas.peers import peer
from pvnas.preflight import make_run_directory
from pvnas.report.record import PEER, TESTED
from pvnas.runtime.checkpoint import load_tensors, save_tensors
from pvnas.runtime.distributed import joined_world
from pvnas.runtime.files import write_atomic
from pvnas.search.candidates import sized
from pvnas.session import GENOTYPE, RESULTS, WEIGHTS, Session, about_the_test, open_session, run_digest, session_in
from pvnas.settings import has_learnt
from pvnas.space.cost import Cost, count_macs, count_parameters
from pvnas.space.genotype import Genotype
from pvnas.training.stage import peer_network

MACS_NEAR = 0.1
"""By this share a network to compare with may miss the multiply-accumulates that were asked for without a word."""


def run(config: RunConfig, run_dir: str | Path) -> dict[str, Any]:
    """Search, derive, train, test and report; return what results.json holds."""
    _check_body(config, run_dir)
    with open_session(config, run_dir) as session:
        session.search()
        session.train()
        return session.test()


def search(config: RunConfig, run_dir: str | Path) -> Genotype:
    """Search and derive only; return the genotype."""
    _check_body(config, run_dir)
    with open_session(config, run_dir) as session:
        return session.search()


def train(
    config: RunConfig,
    run_dir: str | Path,
    genotype: Genotype | str | Path | None = None,
    origin: str | Path | None = None,
) -> dict[str, Any]:
    """Train, test and report the network of a genotype or its file, or of the one that the run directory holds.

    ``origin``: folder of a trained network, whose genotype it is and whose body the training begins with.
    """
    model = load_model(Path(origin)) if origin is not None else None
    if model is None:
        _check_body(config, run_dir)
    given = genotype if isinstance(genotype, Genotype | None) else Genotype.load(genotype)
    if model is not None and origin is not None:
        given = model.genotype.with_about(**{**model.genotype.about, "origin": Path(origin).resolve().name})
    if given is not None and config.budget.width == "fit":
        config = _fitted_before(config, given)
    path = Path(run_dir) / GENOTYPE
    if given is None and not path.exists():
        raise UserError(
            f"{run_dir} holds no genotype yet; name one with --genotype FILE, or search first: pvnas search"
        )

    def keep_given() -> None:
        if given is None:
            return
        if not path.exists():
            write_atomic(path, given.to_json())
        elif Genotype.load(path) != given:
            raise UserError(f"{path}: holds another genotype than the one given; choose another --dir")

    with open_session(config, run_dir, genotype=given) as session:
        if model is not None and origin is not None:
            taken = session.world.first_does(lambda: _keep_origin(session, model, Path(origin)))
            session.progress.line(f"train: {taken}")
        session.world.first_does(keep_given)
        session.train()
        return session.test()


def _fitted_before(config: RunConfig, genotype: Genotype) -> RunConfig:
    """Return a config with the size that was found for a genotype. UserError where none was."""
    size = genotype.about.get("fitted")
    if not isinstance(size, dict) or not all(isinstance(size.get(name), int) for name in ("width", "repeat")):
        raise UserError(
            "budget.width fit finds a width where it searches, and none was found for this genotype; name one: "
            "--budget.width given --train.width N"
        )
    return sized(config, size["width"], size["repeat"])


def _check_body(config: RunConfig, run_dir: str | Path) -> None:
    """Raise UserError where the config speaks of a trained body, and the run has none."""
    train = config.train
    if (train.freeze != "none" or train.body_lr != 1.0) and not Path(run_dir, ORIGIN).exists():
        raise UserError("train.freeze and train.body_lr are for a body that was trained: pvnas train DATA --from RUN")


def _keep_origin(session: Session, model: Model, folder: Path) -> str:
    if load_origin(session.run_dir) is None and has_learnt(session.run_dir):
        raise UserError(f"{session.run_dir} holds a training from scratch; name another --dir")
    return keep_origin(session.run_dir, model, folder)


def train_peer(config: RunConfig, run_dir: str | Path, name: str, macs: float | None = None) -> dict[str, Any]:
    """Train, test and report a network of ``pvnas.peers`` by the code and the recipe of a derived one.

    As wide as was published, or as has about so many ``macs`` of a test view. Fields that make a derived network say
    nothing here. The directory holds what that of any run does, but no genotype and no model.json: peer.json says what
    the network is. Return what results.json holds.
    """
    found = peer(name)
    _check_body(config, run_dir)
    if config.budget.any:
        raise UserError("a budget is for cells; --macs makes a network to compare with as wide as fits it")
    with open_session(config, run_dir, is_peer=True) as session:
        world, weights = session.world, session.run_dir / WEIGHTS
        classes = session.opened.catalog.classes
        network = peer_network(config, found, len(classes), macs)
        cost = Cost(count_parameters(network), *count_macs(network, config.view), config.view)
        description = {"network": name, "width": network.width, "macs_asked": macs, "macs_per_view": cost.macs}
        if macs is not None and abs(cost.macs - macs) > MACS_NEAR * macs:
            session.progress.line(
                f"note: {name} of width {network.width} has {cost.macs:,} multiply-accumulates a view, which is the "
                f"nearest to {macs:,.0f} that there is"
            )
        world.first_does(lambda: _keep_peer(session.run_dir, description))
        if world.first_does((session.run_dir / RESULTS).exists):
            return session.results_before()
        if not world.first_does(weights.exists):
            trained = session.train_network(network)
            world.first_does(lambda: save_tensors(weights, dict(trained.state_dict())))
        network.load_state_dict(world.together(lambda: load_tensors(weights)))
        views = cost.over_views(views_of_a_video(config.test, classes))
        about = {field: views[field] for field in ("params", "activations", "macs_per_view", "macs_per_video", "clip")}
        about |= {"digest": world.first_does(lambda: run_digest(session.run_dir)), "peer": name, "width": network.width}
        return session.test_network(network.to(session.device).eval(), about | about_the_test(config))


def macs_of(run_dir: Path) -> float:
    """Return the multiply-accumulates of a view of a tested run's network. Raises UserError for one without results."""
    try:
        return float(json.loads((run_dir / RESULTS).read_bytes())["macs_per_view"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{run_dir} holds no results with macs_per_view; name a tested run, or type --macs N") from None


def _keep_peer(run_dir: Path, description: dict[str, Any]) -> None:
    """Write peer.json. Raises UserError where the directory holds another network's."""
    path = run_dir / PEER
    if path.exists() and json.loads(path.read_bytes()) != description:
        raise UserError(
            f"{run_dir} holds another network (see {PEER}); type its --peer and --macs to go on, or name another --dir"
        )
    write_atomic(path, json.dumps(description, indent=1) + "\n")


def test(config: RunConfig, run_dir: str | Path) -> dict[str, Any]:
    """Test the trained network of a run again and return its results."""
    with open_session(config, run_dir, ["test"]) as session:
        return session.test(again=True)


def export(config: RunConfig, run_dir: str | Path, form: Form, out: str | Path | None = None) -> dict[str, Any]:
    """Write the trained network of a run as a file for other programs; return how it compares with the network."""
    need_packages(form)
    with open_session(config, run_dir, SPLITS if form.int8 else ["test"]) as session:
        return exporting.export(session, form, Path(out or Path(run_dir, FOLDER, form.file_name)))


def test_export(config: RunConfig, run_dir: str | Path, form: Form) -> dict[str, Any]:
    """Test an exported file of a run on the run's test videos."""
    with open_session(config, run_dir, ["test"]) as session:
        return exporting.test_export(session, form)


def test_on(config: RunConfig, run_dir: str | Path, folder: str | Path) -> dict[str, Any]:
    """Test the network of a run on all videos that the config names; results and page go into a folder of their own."""
    run_dir, folder = Path(run_dir), Path(folder)

    def begin() -> None:
        if not (folder / TESTED).is_file() and folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty, and no test of another set; name a new folder: --out FOLDER")
        make_run_directory(folder)
        tested = {"run": str(run_dir.absolute()), "data": config.data.path}
        write_atomic(folder / TESTED, json.dumps(tested, indent=1) + "\n")  # first: what is begun may be begun again

    def open_there() -> tuple[Model, OpenedVideos]:
        model = load_model(run_dir)
        if config.clip.input != model.config.clip.input:
            raise UserError(f"the network of {run_dir} sees {model.config.clip.input}; leave --clip.input away")
        return model, open_whole(config.data, model.classes, run_dir)

    with joined_world(config) as world:
        model, opened = world.together(open_there, patient=True)
        world.first_does(begin)
        with session_in(config, folder, opened, world, splits=["test"]) as session:
            world.first_does(lambda: write_atomic(folder / GENOTYPE, model.genotype.to_json()))
            session.model_dir = run_dir
            return session.test(again=True)
