"""Trained networks as files for other programs: tried on real clips, and only then given their name.

Legend: N clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pvnas.config import ClipConfig
from pvnas.data.clips.network_input import frames_read, network_input
from pvnas.deploy.model import DESCRIPTION, WEIGHTS, Model
from pvnas.deploy.rank4 import FromPixels, Rank4Network
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from pvnas.version import __version__

FOLDER, ROWS = "export", "exports.json"
"""Where in a run directory exported files lie, and what is known of each of them."""
CLIPS, BATCHES = 8, (1, 3)
"""Clips that a file is tried on, at least, and how many of them at once."""
TOLERANCE = 1e-4
"""By how much scores may differ, in parts of the largest."""
INPUT, OUTPUT, METADATA = "clips", "scores", "pvnas"
ADVICE = "install what exports take: pip install 'pvnas[export]'"


@dataclass(frozen=True)
class Form:
    """As what a network is exported."""

    format: Literal["onnx", "torch"] = "onnx"
    pixels: bool = False
    """From uint8 RGB frames (N, F, H, W, 3) to probabilities; else from what the network sees, (N, T, C, H, W)."""
    int8: bool = False
    """Weights and activations of eight bits."""

    @property
    def file_name(self) -> str:
        """What such a file is called."""
        parts = "model", *(name for name in ("pixels", "int8") if getattr(self, name))
        return "-".join(parts) + {"onnx": ".onnx", "torch": ".pt2"}[self.format]


def need_packages(form: Form) -> None:
    """Raise UserError where a package is lacking that such an export takes."""
    if form.int8 and (form.format != "onnx" or form.pixels):
        raise UserError("--int8 is for onnx, and for what the network sees: leave --format and --pixels away")
    if form.format == "onnx":
        for name in ("onnx", "onnxruntime", "onnxscript"):
            try:
                __import__(name)
            except ImportError:
                raise UserError(f"{name} is not installed; {ADVICE}") from None


def export_model(
    model: Model,
    folder: Path,
    form: Form,
    out: Path,
    views_NCTHW: Tensor,
    calibration: Iterable[Tensor] = (),
    judge: Callable[[Path], dict[str, Any]] = lambda path: {},
) -> dict[str, Any]:
    """Write a file, try it on clips, give it its name, and return what is known of it.

    ``folder``: the model's; ``views_NCTHW``: uint8 clips as a test sees them, CLIPS at least; ``calibration``: more of
    them for int8, of training; ``judge``: says more of the file before it has its name, or raises. Raises UserError
    where the file says something else than the network; of int8 the difference is told.
    """
    if len(views_NCTHW) < CLIPS:
        raise UserError(f"a file is tried on {CLIPS} clips at least, and here are {len(views_NCTHW)}: name more videos")
    clip, network = model.config.clip, model.network.cpu().eval()
    rank4 = Rank4Network(network, clip.frames).eval()
    module = FromPixels(rank4, clip).eval() if form.pixels else rank4
    given = _as_given(views_NCTHW, clip, pixels=form.pixels)
    expected_NK = _expected(network, views_NCTHW, clip, pixels=form.pixels)
    about = {"version": __version__, "model": json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))}
    about |= {
        "weights_sha256": weights_digest(folder),
        "int8": form.int8,
        "input": "pixels" if form.pixels else "network input",
    }
    about |= {"shape": [None, *given.shape[1:]], "output": "probabilities" if form.pixels else "scores"}
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=out.parent) as temporary:
        path = Path(temporary, out.name)
        if form.format == "torch":
            _write_torch(module, given, path, about)
        else:
            _write_onnx(module, given, path, about)
            if form.int8:
                some = (_as_given(views, clip, pixels=form.pixels) for views in calibration)
                path = _quantised(path, some, about)
        run = _runner(path, form)
        trial = tried(run, given, expected_NK)
        if not form.int8 and (trial["largest_difference"] > TOLERANCE or trial["same_top1"] < trial["clips"]):
            raise UserError(
                f"{out}: not written: scores of the exported network differ by {trial['largest_difference']:.2g} of "
                f"the largest, and {trial['same_top1']} of {trial['clips']} clips have the same class"
            )
        trial |= judge(path)
        size = path.stat().st_size
        os.replace(path, out)
    return {"file": out.name, "format": form.format, "pixels": form.pixels, "int8": form.int8, "bytes": size} | trial


def tried(run: Any, given: Tensor, expected_NK: Tensor) -> dict[str, Any]:
    """Return how scores of clips compare with the network's own: at one clip at a time and at several."""
    scale = max(float(expected_NK.abs().max()), 1e-12)
    if not bool(expected_NK.isfinite().all()):
        raise UserError("the network's scores are not numbers; train it again")
    largest, same = 0.0, len(given)
    for batch in BATCHES:
        found_NK = torch.cat([run(part) for part in given.split(batch)])
        if not bool(found_NK.isfinite().all()):
            return {"clips": len(given), "batches": list(BATCHES), "largest_difference": math.inf, "same_top1": 0}
        largest = max(largest, float((found_NK - expected_NK).abs().max()) / scale)
        same = min(same, int((found_NK.argmax(1) == expected_NK.argmax(1)).sum()))
    return {"clips": len(given), "batches": list(BATCHES), "largest_difference": largest, "same_top1": same}


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a model's weights, which tells whether a file was exported of them."""
    return sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def _as_given(views_NCTHW: Tensor, clip: ClipConfig, *, pixels: bool) -> Tensor:
    """Return uint8 clips (N, 1 or 3, F, H, W) as a file takes them."""
    if not pixels:
        return network_input(views_NCTHW, clip).transpose(1, 2).contiguous()
    assert views_NCTHW.shape[2] == frames_read(clip)
    frames = views_NCTHW.permute(0, 2, 3, 4, 1)
    return frames.expand(*frames.shape[:4], 3).contiguous()


@torch.no_grad()
def _expected(network: nn.Module, views_NCTHW: Tensor, clip: ClipConfig, *, pixels: bool) -> Tensor:
    scores_NK: Tensor = network(network_input(views_NCTHW, clip))
    return scores_NK.softmax(1) if pixels else scores_NK


# ---- the formats


def _write_torch(module: nn.Module, given: Tensor, path: Path, about: dict[str, Any]) -> None:
    with torch.no_grad(), _quiet():
        exported = torch.export.export(module, (given[:2],), dynamic_shapes=({0: torch.export.Dim("clips")},))
        torch.export.save(exported, path, extra_files={METADATA + ".json": json.dumps(about)})


def _write_onnx(module: nn.Module, given: Tensor, path: Path, about: dict[str, Any]) -> None:
    import onnx

    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            (given[:2],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("clips")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None
        made = program.model_proto
    _describe(made, about)
    onnx.checker.check_model(made)
    onnx.save(made, path)


def _describe(made: Any, about: dict[str, Any]) -> None:
    """Write what a file is into it, and nothing of the machine that it was made on."""
    import onnx

    made.producer_name, made.producer_version = "pvnas", __version__
    for node in made.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del made.graph.metadata_props[:]
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, {METADATA: json.dumps(about)})


def _quantised(path: Path, clips: Iterator[Tensor], about: dict[str, Any]) -> Path:
    """Return the file of a network in eight bits: per channel, activations as wide as real clips make them."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Clips(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            clip = next(clips, None)
            return None if clip is None else {INPUT: clip.numpy()}

    to = path.with_name("int8-" + path.name)
    with _quiet():
        quantize_static(
            str(path),
            str(to),
            Clips(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=["Conv"],
        )
    made = onnx.load(to)
    _describe(made, about)
    onnx.save(made, to)
    return to


def _runner(path: Path, form: Form) -> Any:
    """Return what takes clips as the file does and returns its scores (N, K)."""
    if form.format == "torch":
        module = torch.export.load(path).module()
        return torch.no_grad()(module)
    return OnnxSession(path).run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters say of themselves off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


# ---- running them


class OnnxSession:
    """An exported file, run by onnxruntime on as many threads as PyTorch has."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"onnxruntime is not installed; {ADVICE}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.about = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])
        except Exception as error:  # onnxruntime has a class of its own for each
            raise UserError(
                f"{path}: is no network that pvnas export wrote ({str(error).splitlines()[0][:200]})"
            ) from None

    def run(self, given: Tensor) -> Tensor:
        """Return what the file makes of clips as it takes them."""
        [scores] = self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(given.numpy())})
        return torch.from_numpy(scores)


class OnnxNetwork(nn.Module):
    """An exported network in the place of a model's: (N, C, T, H, W) to scores before softmax, (N, K), on the CPU."""

    def __init__(self, path: Path, folder: Path, *, int8: bool = False) -> None:
        """``folder``: the model's, of whose weights the file must be, in eight bits or not. Raises UserError."""
        super().__init__()
        if not path.is_file():
            raise UserError(f"{path}: not there; write it with: pvnas export {folder}")
        self.onnx = OnnxSession(path)
        if self.onnx.about["weights_sha256"] != weights_digest(folder):
            raise UserError(f"{path} was exported of other weights; write it anew: pvnas export {folder}")
        if (self.onnx.about["input"], self.onnx.about["int8"]) != ("network input", int8):
            raise UserError(
                f"{path} is an export of another form than its name says; write it anew: pvnas export {folder}"
            )

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        return self.onnx.run(x_NCTHW.transpose(1, 2))


# ---- what a run directory knows of its files


def keep_row(run_dir: Path, row: dict[str, Any], *, is_new: bool) -> None:
    """Add what is known of a file in the run directory to what was; of a new file nothing was."""
    path = run_dir / FOLDER / ROWS
    rows = {each["file"]: each for each in read_rows(path)}
    rows[row["file"]] = ({} if is_new else rows.get(row["file"], {})) | row
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(list(rows.values()), indent=1) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return what is known of exported files; nothing where there are none."""
    try:
        return [row for row in json.loads(path.read_bytes()) if isinstance(row.get("file"), str)]
    except (OSError, ValueError, TypeError, AttributeError):
        return []
