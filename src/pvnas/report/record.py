"""Reads a run directory for the report: whatever is there, with a note on what is missing or cannot be read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvnas.errors import UserError
from pvnas.report.style import clean
from pvnas.space.genotype import CATEGORIES, EDGES, Genotype, operations_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FILE_BYTES = 64 << 20
# What a finished run has, and in which words the page says that it is not there.
EXPECTED = {
    "config.yaml": "settings",
    "genotype.json": "searched cells",
    "alphas.safetensors": "architecture parameters of every epoch",
    "metrics.jsonl": "losses and accuracies of every epoch",
    "results.json": "test result",
    "confusion.json": "confusion matrix",
    "samples/samples.json": "test clips",
    "verdicts.json": "data verdicts",
    "catalog.json": "list of the data",
    "environment.json": "machine and versions",
}


@dataclass(frozen=True)
class Sample:
    """One test clip: its frames side by side as a PNG, what it shows and what the network says."""

    path: str
    truth: str
    prediction: str
    score: float
    png: bytes

    @property
    def right(self) -> bool:
        """Whether the network names the class."""
        return self.truth == self.prediction


@dataclass
class RunRecord:
    """The contents of a run directory. What is not there is empty or None."""

    folder: Path
    config_text: str = ""
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
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    catalog: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Names of expected files that are not there."""
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
    def config(self) -> dict[str, Any]:
        """The settings as nested dictionaries; empty where they cannot be read."""
        import yaml

        try:
            settings = yaml.safe_load(self.config_text) if self.config_text else {}
        except (yaml.YAMLError, RecursionError):
            return {}
        return settings if isinstance(settings, dict) else {}

    def setting(self, name: str) -> Any:
        """Return a setting by its dotted name, or None."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def read_run(run_dir: str | Path) -> RunRecord:
    """Read a run directory, finished or not. Raises UserError when it is not one."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run directory; name the folder that `pvnas run` or `pvnas search` wrote")
    record = RunRecord(folder)
    record.missing = [name for name in EXPECTED if not (folder / name).is_file()]
    if len(record.missing) == len(EXPECTED):
        raise UserError(
            f"{folder}: holds no run (no config.yaml, no metrics.jsonl); name a folder that `pvnas run` wrote"
        )
    for name, read in _READERS.items():
        if name not in record.missing:
            _attempt(record, name, read)
    _attempt(record, "genotypes", _read_epoch_genotypes)
    return record


def _attempt(record: RunRecord, name: str, read: Any) -> None:
    """A damaged file costs its own section of the page, not the page."""
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


def _read_genotype(record: RunRecord, path: Path) -> None:
    record.genotype = Genotype.load(path)


def _read_epoch_genotypes(record: RunRecord, folder: Path) -> None:
    for path in sorted(folder.glob("epoch_*.json")):
        record.epoch_genotypes[int(path.stem.removeprefix("epoch_"))] = Genotype.load(path)


def _read_alphas(record: RunRecord, path: Path) -> None:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    by_category: dict[str, dict[int, NDArray[Any]]] = {category: {} for category in CATEGORIES}
    for name, alpha in tensors.items():
        epoch, _, category = name.partition("/")
        if category in by_category and epoch.startswith("epoch_"):
            if alpha.shape != (len(EDGES), len(operations_of(category))):
                raise ValueError(f"{clean(name)} has the shape {alpha.shape}")
            by_category[category][int(epoch.removeprefix("epoch_"))] = alpha
    found = {category: epochs for category, epochs in by_category.items() if epochs}
    common = sorted(set.intersection(*(set(epochs) for epochs in found.values()))) if found else []
    record.alpha_epochs = common
    record.alphas = {c: np.stack([epochs[e] for e in common]) for c, epochs in found.items() if common}


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


def _read_results(record: RunRecord, path: Path) -> None:
    record.results = _object(path)


def _read_confusion(record: RunRecord, path: Path) -> None:
    import numpy as np

    data = _object(path)
    matrix, classes = np.asarray(data["matrix"], dtype=np.int64), [str(name) for name in data["classes"]]
    if matrix.shape != (len(classes), len(classes)) or not classes:
        raise ValueError(f"the matrix has the shape {matrix.shape} for {len(classes)} classes")
    record.confusion, record.confusion_classes = matrix, classes


def _read_samples(record: RunRecord, path: Path) -> None:
    for entry in json.loads(_read_text(path)):
        strip = path.parent / Path(str(entry["file"])).name  # never outside the folder, whatever the list says
        png = strip.read_bytes() if strip.is_file() and strip.stat().st_size <= MAX_FILE_BYTES else b""
        if not png.startswith(b"\x89PNG\r\n\x1a\n"):
            png = b""
        score = float(entry.get("score", math.nan))
        record.samples.append(Sample(str(entry["path"]), str(entry["truth"]), str(entry["prediction"]), score, png))


def _read_verdicts(record: RunRecord, path: Path) -> None:
    data = json.loads(_read_text(path))
    rows = data.get("verdicts", []) if isinstance(data, dict) else data
    record.verdicts = [{**row, "verdict": str(row["verdict"])} for row in rows]


def _read_catalog(record: RunRecord, path: Path) -> None:
    record.catalog = _object(path)


def _read_environment(record: RunRecord, path: Path) -> None:
    record.environment = _object(path)


def _object(path: Path) -> dict[str, Any]:
    data = json.loads(_read_text(path))
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


_READERS = {
    "config.yaml": _read_config,
    "genotype.json": _read_genotype,
    "alphas.safetensors": _read_alphas,
    "metrics.jsonl": _read_metrics,
    "results.json": _read_results,
    "confusion.json": _read_confusion,
    "samples/samples.json": _read_samples,
    "verdicts.json": _read_verdicts,
    "catalog.json": _read_catalog,
    "environment.json": _read_environment,
}
