"""Reads a run directory for the report: whatever is there, with a note on what is missing or cannot be read."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pvnas.errors import UserError
from pvnas.report.text import clean
from pvnas.space.genotype import CATEGORIES, EDGES, Genotype, operations_of

MAX_FILE_BYTES = 64 << 20
TESTED, AUGMENTED, PEER, EXPORTS = "tested.json", "samples/augmented.png", "peer.json", "export/exports.json"
MISTAKES = "samples/mistakes.json"


@dataclass(frozen=True)
class Sample:
    """One test clip: its frames side by side as a PNG, what it shows and what the network says."""

    path: str
    truth: str
    prediction: str
    score: float
    png: bytes
    explained: bool = False
    """Whether the last row of the strip shows where and when the network saw what it says."""

    @property
    def right(self) -> bool:
        """Whether the network names the class."""
        return self.truth == self.prediction


@dataclass
class RunRecord:
    """The contents of a run directory. What is not there is empty or None."""

    folder: Path
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    """The settings as nested dictionaries; empty where they cannot be read."""
    genotype: Genotype | None = None
    epoch_genotypes: dict[int, Genotype] = field(default_factory=dict)
    alphas: dict[str, NDArray[Any]] = field(default_factory=dict)
    """By category: (epochs, 14, operations) float32."""
    alpha_epochs: list[int] = field(default_factory=list)
    search: list[dict[str, Any]] = field(default_factory=list)
    train: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    confusion_classes: list[str] = field(default_factory=list)
    confusion: NDArray[Any] | None = None
    """(K, K) int64, rows are the truth."""
    samples: list[Sample] = field(default_factory=list)
    mistakes: list[Sample] = field(default_factory=list)
    """Of the test videos that are wrong those with the highest scores."""
    augmented: bytes = b""
    """A PNG of training clips as augmentation makes them; empty where there is none."""
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    catalog: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    tested: dict[str, Any] = field(default_factory=dict)
    """Where a network of another directory was tested on another set: ``run`` and ``data``, where these lie."""
    peer: dict[str, Any] = field(default_factory=dict)
    """Where a network to compare with was trained in place of one of a genotype: its name as ``network``, its width."""
    exports: list[dict[str, Any]] = field(default_factory=list)
    """What is known of each exported file."""
    missing: dict[str, str] = field(default_factory=dict)
    """Expected files that are not there, with what they would hold."""
    unreadable: list[str] = field(default_factory=list)
    """File and reason, for files that are there and cannot be used."""

    @property
    def name(self) -> str:
        """Name of the run: its directory's, with the folder above where it is only called "run"."""
        folder = self.folder.resolve()
        return clean(f"{folder.parent.name}/{folder.name}" if folder.name == "run" else folder.name)

    @property
    def latest_genotype(self) -> Genotype | None:
        """The genotype of the run, or while the search is running that of its last epoch."""
        if self.genotype is None and self.epoch_genotypes:
            return self.epoch_genotypes[max(self.epoch_genotypes)]
        return self.genotype

    @property
    def searched(self) -> bool:
        """Whether the cells were searched here, or will be: not those of `--genotype`, nor of a test on another set."""
        return not self.peer and bool(self.search or self.alphas or self.genotype is None)

    def setting(self, name: str) -> Any:
        """Return a setting by its dotted name, or None."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @property
    def progress(self) -> str:
        """How far search, training and test are, in words."""
        parts = []
        for name, setting, entries in (("search", "search", self.search), ("training", "train", self.train)):
            if name == "search" and not self.searched:
                continue
            done, wanted = entries[-1]["epoch"] if entries else 0, self.setting(f"{setting}.epochs")
            parts.append(f"{name} {done} of {wanted} epochs" if isinstance(wanted, int) else f"{name} {done} epochs")
        return ", ".join([*parts, self._test])

    @property
    def _test(self) -> str:
        if not self.results:
            return "not tested"
        return "no test videos" if self.results.get("n_videos") == 0 else "tested"

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of search, train and test: as the test noted them, else the sum over the epochs so far."""
        stages = (("search", self.search), ("train", self.train))
        summed = {stage: math.fsum(entry.get("seconds") or 0 for entry in entries) for stage, entries in stages}
        return {**summed, **(self.results.get("seconds") or {})}


Reader = Callable[[RunRecord, Path], None]


def read_run(run_dir: str | Path) -> RunRecord:
    """Read a run directory, finished or not. Raises UserError when it is not one."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run directory; name the folder that `pvnas run` or `pvnas search` wrote")
    record = RunRecord(folder)
    record.missing = {name: words for name, (words, _) in _FILES.items() if not (folder / name).is_file()}
    if len(record.missing) == len(_FILES):
        raise UserError(
            f"{folder}: holds no run (no config.yaml, no metrics.jsonl); name a folder that `pvnas run` wrote"
        )
    for name, (_, read) in _FILES.items():
        if name not in record.missing:
            _read(record, name, read)
    _read(record, "genotypes", _read_epoch_genotypes)
    _read(record, AUGMENTED, _field("augmented", _png))
    if (folder / MISTAKES).is_file():
        _read(record, MISTAKES, _read_mistakes)
    if (folder / EXPORTS).is_file():
        _read(record, EXPORTS, _read_exports)
    if (folder / TESTED).is_file():
        _read(record, TESTED, _field("tested", _read_object))
        record.missing = {}  # the rest is in the directory of the run
    if (folder / PEER).is_file():
        _read(record, PEER, _field("peer", _read_object))
        record.missing.pop("genotype.json", None)
    if not record.searched:
        record.missing.pop("alphas.safetensors", None)
    return record


def _read(record: RunRecord, name: str, read: Reader) -> None:
    """Read a file or folder into the record. A damaged one costs its own section of the page, not the page."""
    try:
        read(record, record.folder / name)
    except (UserError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        record.unreadable.append(f"{name}: {clean(error) or type(error).__name__}")


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
    return path.read_text(encoding="utf-8")


def _read_config(record: RunRecord, path: Path) -> None:
    record.config_text = _read_text(path)
    with suppress(yaml.YAMLError, RecursionError):
        settings = yaml.safe_load(record.config_text)
        record.config = settings if isinstance(settings, dict) else {}


def _read_object(path: Path) -> dict[str, Any]:
    data = json.loads(_read_text(path))
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def _read_epoch_genotypes(record: RunRecord, folder: Path) -> None:
    for path in sorted(folder.glob("epoch_*.json")):
        record.epoch_genotypes[int(path.stem.removeprefix("epoch_"))] = Genotype.load(path)


def _read_alphas(record: RunRecord, path: Path) -> None:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    epochs_of: dict[str, dict[int, NDArray[Any]]] = {category: {} for category in CATEGORIES}
    for name, alpha in tensors.items():
        epoch, _, category = name.partition("/")
        if category in epochs_of and epoch.startswith("epoch_"):
            if alpha.shape != (len(EDGES), len(operations_of(category))):
                raise ValueError(f"{clean(name)} has the shape {alpha.shape}")
            epochs_of[category][int(epoch.removeprefix("epoch_"))] = alpha
    searched = {category: epochs for category, epochs in epochs_of.items() if epochs}
    if searched and (common := sorted(set.intersection(*map(set, searched.values())))):
        record.alpha_epochs = common
        record.alphas = {category: np.stack([epochs[e] for e in common]) for category, epochs in searched.items()}


def _read_metrics(record: RunRecord, path: Path) -> None:
    """One JSON object per line; the last line may be torn, and a resumed epoch replaces its first account."""
    stages: dict[str, dict[int, dict[str, Any]]] = {"search": {}, "train": {}}
    bad = 0
    for line in filter(str.strip, _read_text(path).splitlines()):
        try:
            entry = json.loads(line)
            stages.get(entry["stage"], {})[int(entry["epoch"])] = entry
        except (ValueError, KeyError, TypeError, RecursionError):
            bad += 1
    record.search, record.train = ([stages[s][e] for e in sorted(stages[s])] for s in ("search", "train"))
    if bad:
        raise ValueError(f"{bad} line(s) are not metrics; the others are shown")


def _read_confusion(record: RunRecord, path: Path) -> None:
    data = _read_object(path)
    matrix, classes = np.asarray(data["matrix"], dtype=np.int64), [str(name) for name in data["classes"]]
    if matrix.shape != (len(classes), len(classes)) or not classes:
        raise ValueError(f"the matrix has the shape {matrix.shape} for {len(classes)} classes")
    record.confusion, record.confusion_classes = matrix, classes


def _read_samples(record: RunRecord, path: Path) -> None:
    record.samples = _samples(path)


def _read_mistakes(record: RunRecord, path: Path) -> None:
    record.mistakes = _samples(path)


def _samples(path: Path) -> list[Sample]:
    samples = []
    for entry in json.loads(_read_text(path)):
        strip = path.parent / Path(str(entry["file"])).name  # never outside the folder, whatever the list says
        score = float(entry.get("score", math.nan))
        samples.append(
            Sample(
                str(entry["path"]),
                str(entry["truth"]),
                str(entry["prediction"]),
                score,
                _png(strip),
                bool(entry.get("explained")),
            )
        )
    return samples


def _png(path: Path) -> bytes:
    """Return a picture, nothing where there is none or it is no PNG."""
    png = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES else b""
    return png if png.startswith(b"\x89PNG\r\n\x1a\n") else b""


def _read_verdicts(record: RunRecord, path: Path) -> None:
    data = json.loads(_read_text(path))
    rows = data.get("verdicts", []) if isinstance(data, dict) else data
    record.verdicts = [{**row, "verdict": str(row["verdict"])} for row in rows]


def _read_exports(record: RunRecord, path: Path) -> None:
    record.exports = [{**row, "file": str(row["file"])} for row in json.loads(_read_text(path))]


def _field(name: str, read: Callable[[Path], Any]) -> Reader:
    return lambda record, path: setattr(record, name, read(path))


# What a finished run has: in which words the page says that it is not there, and what reads it.
_FILES: dict[str, tuple[str, Reader]] = {
    "config.yaml": ("settings", _read_config),
    "genotype.json": ("cells", _field("genotype", Genotype.load)),
    "alphas.safetensors": ("architecture parameters of every epoch", _read_alphas),
    "metrics.jsonl": ("losses and accuracies of every epoch", _read_metrics),
    "results.json": ("test result", _field("results", _read_object)),
    "confusion.json": ("confusion matrix", _read_confusion),
    "samples/samples.json": ("test clips", _read_samples),
    "verdicts.json": ("data verdicts", _read_verdicts),
    "catalog.json": ("list of the data", _field("catalog", _read_object)),
    "environment.json": ("machine and versions", _field("environment", _read_object)),
}
