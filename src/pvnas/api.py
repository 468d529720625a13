"""What the commands do, from Python: ``pvnas.run``, ``search``, ``train`` and ``test``.

Each is the function of ``pipeline`` with the videos and the settings as a person has them. Progress goes to stderr.
Called in the main thread they stop at the next step when Ctrl-C or SIGTERM asks for it, and raise ``Interrupted``; the
same call goes on from there. PyTorch's number of threads is that of the run inside, and after it what it was before.
Nothing needs an ``if __name__ == "__main__"``.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvnas.config import LOCATION_FIELDS, DataConfig, RunConfig
from pvnas.errors import UserError
from pvnas.settings import (
    AUTO,
    CONFIG_NAME,
    all_fields,
    check_config,
    checked_hours,
    differences,
    fields_of_file,
    get_field,
    load_config,
    set_field,
    shown,
)

if TYPE_CHECKING:
    from pvnas.space.genotype import Genotype

Videos = str | Path | RunConfig
"""A folder, a list or a pack of videos; or a config, which names them."""


def run(
    data: Videos,
    run_dir: str | Path | None = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
    hours: float | None = None,
) -> dict[str, Any]:
    """Search, train, test and report on videos, as ``pvnas run`` does, and return what results.json holds.

    ``data``: folder, list or pack, or a whole RunConfig; ``run_dir``: ``runs/<data>-<preset>`` unless given, and where
    a run that was interrupted goes on; ``preset``: laptop unless given; ``config``: YAML file with fields, over the
    preset; ``overrides``: fields by dotted name, over both, as ``{"train.width": 24, "device": "cuda"}``; ``hours``: in
    place of a preset, choose what to run so that it takes so long here, into ``runs/<data>-<hours>h``; preset auto is
    an hour. Raises UserError for what a person can mend, and Interrupted where it was asked to stop.
    """
    with _threads_as_before():
        settings, directory = run_of(data, run_dir, preset, config, overrides, hours)
        from pvnas import pipeline

        return pipeline.run(settings, directory)


def search(
    data: Videos,
    run_dir: str | Path | None = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> "Genotype":
    """Only search, as ``pvnas search`` does, and return the genotype; arguments and errors as of ``run``."""
    settings = config_of(data, preset, config, overrides)
    with _threads_as_before():
        from pvnas import pipeline

        return pipeline.search(settings, _directory(run_dir, settings))


def train(
    data: Videos,
    run_dir: str | Path | None = None,
    *,
    genotype: "Genotype | str | Path | None" = None,
    origin: str | Path | None = None,
    peer: str | None = None,
    macs: float | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Only train and test, as ``pvnas train`` does, and return what results.json holds.

    ``genotype``: the one to train, or its file; without it the run's own. ``origin``: folder of a trained network whose
    body the training begins with; genotype, geometry and clips are then its own. ``peer``: in its place a published
    network of ``pvnas.peers``, such as x3d-s, of its own width or as wide as has about so many ``macs`` a view. Other
    arguments and errors as of ``run``.
    """
    if genotype is not None and peer is not None:
        raise UserError("a genotype and a network to compare with: name one of them")
    if macs is not None and peer is None:
        raise UserError("macs make a network to compare with as wide as fits them: name it, such as residual or x3d-s")
    if origin is not None and (genotype is not None or peer is not None):
        raise UserError("an origin brings its own genotype and is no network to compare with: name one of them")
    settings = config_of(data, preset, config, overrides, origin)
    with _threads_as_before():
        from pvnas import pipeline

        directory = _directory(run_dir, settings, what_from(origin))
        if peer is not None:
            return pipeline.train_peer(settings, directory, peer, macs)
        return pipeline.train(settings, directory, genotype, origin)


def test(
    run_dir: str | Path,
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Test the network of a run, as ``pvnas test`` does, and return what results.json holds.

    Alone it is tested again on its run's own test videos; ``data``: where these lie now. With ``out``, a folder for
    results and page, all of ``data`` is tested as another set. Raises UserError and Interrupted.
    """
    if out is not None and data is None:
        raise UserError("another set is tested into out: name its videos, too: pvnas.test(run_dir, data, out=out)")
    settings = tested_config(run_dir, is_other_set=out is not None, overrides=overrides)
    if data is not None:
        settings.data.path = os.fspath(data)
        make_paths_absolute(settings)
    with _threads_as_before():
        from pvnas import pipeline

        if out is not None:
            return pipeline.test_on(settings, Path(run_dir), Path(out))
        return pipeline.test(settings, Path(run_dir))


def export(
    run_dir: str | Path,
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    pixels: bool = False,
    int8: bool = False,
) -> dict[str, Any]:
    """Write the trained network of a run as a file for other programs, as ``pvnas export`` does.

    ``out``: ``run_dir/export/model.onnx`` unless given; ``format``: onnx, or torch for torch.export.load; ``pixels``:
    from uint8 RGB frames (N, F, H, W, 3) to probabilities; ``int8``: weights and activations of eight bits. Return how
    its scores compare with the network's. Raises UserError where they differ, and where a package is lacking.
    """
    if format not in ("onnx", "torch"):
        raise UserError(f"format is {format!r}; must be onnx or torch")
    settings = tested_config(run_dir, is_other_set=False, overrides=None)
    with _threads_as_before():
        from pvnas import pipeline
        from pvnas.deploy.export import Form

        return pipeline.export(
            settings, Path(run_dir), Form("onnx" if format == "onnx" else "torch", pixels, int8), out
        )


def run_of(
    data: Videos | None,
    run_dir: str | Path | None = None,
    preset: str | None = None,
    file: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
    hours: float | None = None,
) -> tuple[RunConfig, Path]:
    """Return the config and the directory of a run that arguments ask for; with hours, it is planned first."""
    if hours is None and preset != AUTO:
        config = config_of(data, preset, file, overrides)
        return config, _directory(run_dir, config)
    hours = checked_hours(1.0 if hours is None else hours)
    from pvnas.runtime.distributed import place_of

    if place_of(os.environ).size > 1:
        raise UserError(
            "hours are planned by one process, which measures its own speed; run it once alone, or type the command "
            "that such a run prints as `the same again`, with --processes"
        )
    wishes = {**(fields_of_file(file) if file is not None else {}), **(overrides or {})}
    for named in (preset, wishes.pop("preset", None)):
        if named not in (None, AUTO):
            raise UserError(
                f"hours {hours:g} and preset {shown(named)}: hours choose a preset's values; leave one away"
            )
    if wishes.get("budget.width", "given") != "given":
        raise UserError("hours and budget.width fit would both choose the width; leave one away")
    if isinstance(data, RunConfig):
        raise UserError("a whole config leaves nothing to choose for hours; give the videos, and fields as overrides")
    config = config_of(data, "laptop", None, {name: wishes[name] for name in wishes if name.startswith("data.")})
    wishes |= {name: get_field(config, name) for name in LOCATION_FIELDS if name in wishes or name == "data.path"}
    directory = Path(run_dir) if run_dir is not None else default_run_dir(config, f"{hours:g}h")
    from pvnas.plan.begin import planned_config

    return planned_config(directory, hours, wishes), directory


def config_of(
    data: Videos | None,
    preset: str | None = None,
    file: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
    origin: str | Path | None = None,
) -> RunConfig:
    """Return the checked config that arguments ask for, its paths absolute. Raises UserError.

    ``origin``: folder of a trained network, from which geometry and clips come.
    """
    if isinstance(data, RunConfig):
        if preset is not None or file is not None:
            raise UserError("a whole config needs no preset and no file of fields; give the one or the others")
        config = deepcopy(data)
        for name, value in (overrides or {}).items():
            set_field(config, name, value)
        check_config(config)
    else:
        config = load_config(preset, file, overrides)
        if data is not None and (overrides or {}).get("data.path", os.fspath(data)) != os.fspath(data):
            raise UserError(f"two folders of videos, {shown(os.fspath(data))} and --data.path; name one of them")
        config.data.path = os.fspath(data) if data is not None else config.data.path
    if origin is not None:
        from pvnas.deploy.model import load_model
        from pvnas.deploy.origin import fine_tuned_config

        typed = set(overrides or {}) | (fields_of_file(file).keys() if file is not None else set())
        typed |= all_fields().keys() if isinstance(data, RunConfig) else set()
        config = fine_tuned_config(config, load_model(Path(origin)), typed)
        check_config(config)
    make_paths_absolute(config)
    return config


def tested_config(run_dir: str | Path, *, is_other_set: bool, overrides: Mapping[str, object] | None) -> RunConfig:
    """Return the config of a run; for another set, which is not listed as the run's own is, with a fresh part of data.

    For that a model alone is enough. Raises UserError.
    """
    file = Path(run_dir, CONFIG_NAME)
    if not is_other_set:
        config = load_config(file=file, overrides=overrides)
        if views := [name for name in differences(load_config(file=file), config) if name.startswith("test.")]:
            raise UserError(
                f"{run_dir} is tested by the views that its config says, and {views[0]} is another; by other views its "
                f"network is tested beside it: pvnas test DATA --dir {run_dir} --out FOLDER --{views[0]} ..."
            )
        return config
    if file.is_file():
        config = load_config(file=file)
    else:
        from pvnas.deploy.model import load_model

        config = load_model(Path(run_dir)).config
    config.data = DataConfig(frame_rate=config.data.frame_rate)
    for name, value in (overrides or {}).items():
        set_field(config, name, value)
    check_config(config)
    return config


def make_paths_absolute(config: RunConfig) -> None:
    """A run must find its videos again from any folder; a wrong path is said before anything slow is imported."""
    if not config.data.path:
        raise UserError("which videos? name a folder with one folder of videos per class: pvnas run MY_VIDEOS")
    if "://" in config.data.path:  # a pack in an object store
        return
    if not os.path.exists(os.path.abspath(os.path.expanduser(config.data.path))):
        raise UserError(f"no folder {shown(config.data.path)}; name a folder with one folder of videos per class")
    for name in ("path", "annotations", "allow_outside", "splits_of"):
        if path := getattr(config.data, name):
            setattr(config.data, name, os.path.abspath(os.path.expanduser(path)))


def default_run_dir(config: RunConfig, what: str = "") -> Path:
    """``runs/<folder of the videos>-<preset>``, or ``what`` else it is."""
    name = config.data.path.rstrip("/").rpartition("/")[2] if "://" in config.data.path else ""
    return Path("runs") / f"{name or Path(config.data.path).resolve().name or 'videos'}-{what or config.preset}"


def what_from(origin: str | Path | None) -> str:
    """What the default directory of a training is named after the videos that begins with a trained network."""
    return f"from-{Path(origin).resolve().name}" if origin is not None else ""


def _directory(run_dir: str | Path | None, config: RunConfig, what: str = "") -> Path:
    return Path(run_dir) if run_dir is not None else default_run_dir(config, what)


@contextmanager
def _threads_as_before() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
