"""Lists of formats that are not read here: what they are called, and what to do with them."""

import re
from collections.abc import Iterable
from pathlib import Path

from pvnas.data.listing.text import first_lines

AS_CSV = "write its videos to a csv with the header path,label"
ENDINGS = {
    (".xlsx", ".xls", ".xlsm", ".ods"): "a spreadsheet; save it as csv with the header path,label",
    (".tar", ".tgz", ".tar.gz"): "a tar archive (WebDataset?); unpack it, or pack videos with: pvnas data pack",
    (".zip", ".rar", ".7z"): "an archive; unpack it",
    (".pkl", ".pickle", ".pt", ".pth", ".joblib"): f"a pickle, which is never read; {AS_CSV}",
    (".mat",): f"a file of MATLAB; {AS_CSV}",
    (".npy", ".npz", ".h5", ".hdf5"): f"a file of arrays; {AS_CSV}",
    (".parquet", ".arrow", ".feather"): f"a table of Arrow or Parquet; {AS_CSV}",
    (".jsonl", ".ndjson"): f"JSON lines; {AS_CSV}",
    (".xml",): f"XML; {AS_CSV}",
    (".yaml", ".yml"): f"YAML; {AS_CSV}",
    (".tfrecord", ".tfrecords"): f"records of TensorFlow; {AS_CSV}",
}
ACTIVITYNET = re.compile(r'"(?:database|annotations|segment|subset)"\s*:')
LISTING = re.compile(r"annot|label|meta|split|class|list|train|val|test|data", re.IGNORECASE)


def described(path: Path) -> str | None:
    """Return what a file of another format is and what to do with it, None for any other file."""
    name = path.name.lower()
    if name.endswith(".json"):
        is_activitynet = ACTIVITYNET.search(" ".join(first_lines(path, 50)))
        return f"JSON {'of the kind of ActivityNet' if is_activitynet else 'of no known list'}; {AS_CSV}"
    return next((text for endings, text in ENDINGS.items() if name.endswith(endings)), None)


def remarks_on(files: Iterable[Path]) -> dict[Path, str]:
    """Return a line for each file whose name and format say that it could list the videos; by its path."""
    likely = (path for path in sorted(files) if LISTING.search(path.stem) and not path.name.startswith("."))
    return {path: f"{path} is not read: it is {text}" for path in likely if (text := described(path))}
