"""Exports of a held run: written after a trial on its videos, and tested as its network is."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvnas.config import RunConfig
from pvnas.data.check.results import inert
from pvnas.data.clips.loader import test_batches
from pvnas.data.dataset import VideoDataset
from pvnas.deploy.export import CLIPS, FOLDER, Form, OnnxNetwork, export_model, keep_row
from pvnas.deploy.model import load_model
from pvnas.errors import UserError
from pvnas.session import Session
from pvnas.training.evaluate import score_table, score_views
from pvnas.training.results import predictions_of

CPU = torch.device("cpu")
CALIBRATION = 32
"""Training videos, two clips of each, that tell how large activations are, for an export in eight bits."""
MOST_POINTS_LOST = 2.0
"""Of validation top-1, by an export in eight bits."""


def export(session: Session, form: Form, out: Path) -> dict[str, Any]:
    """Write the trained network as a file, tried on test videos; return what is known of it."""
    model, videos = load_model(session.model_dir), session.videos
    if not videos.test:
        raise UserError("the run has no test videos; name some videos to try an export on: --videos VIDEO ...")
    if form.int8 and not (videos.train and videos.validation):
        raise UserError(
            "eight bits are tried on training and validation videos, and the run has none: leave --int8 away"
        )
    views_NCTHW = some_views(videos.test, session.config, CLIPS)
    if not form.int8:
        row = export_model(model, session.model_dir, form, out, views_NCTHW)
    else:
        calibration = some_views(videos.train, session.config, CALIBRATION).split(8)
        row = export_model(model, session.model_dir, form, out, views_NCTHW, calibration, partial(_judged, session))
    if out.parent.absolute() == (session.run_dir / FOLDER).absolute():
        keep_row(session.run_dir, row, is_new=True)
    return row


def _judged(session: Session, path: Path) -> dict[str, Any]:
    """Return validation accuracies of an export in eight bits and of the network; UserError where much is lost."""
    test = replace(session.config.test, temporal_views=1, spatial_views=1)
    config, videos = replace(session.config, test=test), session.videos.validation
    labels_V = torch.tensor([video.label for video in videos.catalog.videos], dtype=torch.int64)
    eighth, whole = (
        float(score_table(score_views(network, videos, config, CPU), labels_V, videos.catalog.classes)["top1"])
        for network in (OnnxNetwork(path, session.model_dir, int8=True), load_model(session.model_dir).network)
    )
    if eighth < whole - MOST_POINTS_LOST:
        raise UserError(
            f"not written: in eight bits {eighth:.1f} % of the validation videos are right, {whole:.1f} % by the "
            "network itself"
        )
    return {"val_top1": eighth, "val_top1_of_network": whole}


def test_export(session: Session, form: Form) -> dict[str, Any]:
    """Test an exported file as the network is tested, and return its own top-1 and how often both say the same."""
    path = session.model_dir / FOLDER / form.file_name
    network, videos = OnnxNetwork(path, session.model_dir, int8=form.int8), session.videos
    if not videos.test:
        raise UserError(f"{session.run_dir} has no test videos")
    scores_VK = score_views(network, videos.test, session.config, CPU, session.progress, session.world)
    labels_V = torch.tensor([video.label for video in videos.test.catalog.videos], dtype=torch.int64)
    classes = videos.test.catalog.classes
    table = score_table(scores_VK, labels_V, classes)
    row = {name: table[name] for name in ("top1", "top1_interval", "mean_class")}
    said = predictions_of(session.run_dir)
    names = [inert(video.name) for video in videos.test.catalog.videos]
    found = [inert(classes[int(best)]) for best in scores_VK.argmax(1)]
    same = sum(said.get(n) == f for n, f in zip(names, found, strict=True)) if said else None
    row |= {"videos": len(names), "same": same}
    session.world.first_does(lambda: keep_row(session.run_dir, {"file": path.name, **row}, is_new=False))
    return row


def some_views(videos: VideoDataset, config: RunConfig, n: int) -> Tensor:
    """Return up to 2n uint8 clips as a test sees them, of n videos evenly over the list or, of fewer, of all."""
    rows = range(0, len(videos), max(1, len(videos) // n))[:n]
    batches = test_batches(videos, config.clip, config.test, 8, workers=0, rows=rows)
    views_NCTHW = torch.cat([batch.clips_NCTHW.cpu() for batch in batches])
    return views_NCTHW[:: max(1, len(views_NCTHW) // (2 * n))][: 2 * n]
