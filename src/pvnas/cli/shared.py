"""What commands share: arguments and what is made of them; JSON for programs and short tables for people on stdout."""

import csv
import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pvnas.cli.command import Argument
from pvnas.config import DataConfig
from pvnas.errors import UserError
from pvnas.presets import PRESETS
from pvnas.runtime.progress import clean
from pvnas.settings import CONFIG_NAME, Field, all_fields, checked, checked_hours, human_number, shown

if TYPE_CHECKING:
    from torch import nn

    from pvnas.data.catalog import Video

JSON = Argument("--json", "print JSON", False)
PRESET = Argument("--preset", f"one of {', '.join(PRESETS)} [laptop]", None, metavar="NAME")
CONFIG = Argument("--config", "YAML file with fields, over the preset", None, metavar="FILE")
HOURS = Argument(
    "--hours",
    "choose all that a preset holds by the videos and this machine's speed, to be done in so long; as --preset auto, "
    "which is an hour",
    None,
    metavar="H",
    convert=checked_hours,
)
RUNTIME = Argument(
    "--runtime", "what computes: the network itself, or its export", "torch", Literal["torch", "onnx", "onnx-int8"]
)
RUN = Argument("run", "run directory", metavar="RUN")
DEADLINE = Argument(
    "--deadline", "time for one video, and as much again for each minute and each 60 MiB of it", 60.0, metavar="SECONDS"
)
THREADS = Argument("--threads", "CPU threads", 1, least=1)
MACHINE = (
    THREADS,
    Argument("--device", "where to measure", "cpu", Literal["cpu", "cuda"]),
    Argument("--precision", "of the networks", "fp32", Literal["fp32", "bf16"]),
)
LISTING = (
    Argument("--format", all_fields()["data.format"].takes, "auto", all_fields()["data.format"].kind, "NAME"),
    Argument("--split", "official split of ucf101 and hmdb51", 1),
    Argument("--annotations", "official lists that lie elsewhere", "", metavar="PATH"),
    Argument("--allow-outside", "folder that listed paths and links may lead into", "", metavar="DIR"),
    Argument("--frame-rate", "of videos that lie as folders of pictures", 25.0, metavar="FPS"),
)
VIDEOS = (Argument("folder", "folder of videos, list of videos, or a pack", metavar="DATA"), *LISTING)


def data_config(args: Namespace) -> DataConfig:
    """The part of a config that says where the videos are."""
    if args.split not in (1, 2, 3):
        raise UserError(f"--split is 1, 2 or 3, not {args.split}")
    if not 0.01 <= args.frame_rate <= 10_000:
        raise UserError(f"--frame-rate is in pictures a second, from 0.01 to 10000, not {args.frame_rate:g}")
    where = DataConfig(args.folder, args.format, args.split, args.annotations, args.allow_outside)
    return replace(where, frame_rate=args.frame_rate)


def clip_shape(text: str) -> tuple[int, int, int]:
    """Frames, height and width out of a text such as 8x224x224. UserError for any other."""
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(size.isascii() and size.isdigit() and 0 < len(size) < 6 for size in sizes):
        raise UserError(f"--clip takes frames x height x width, for example 8x224x224, not {shown(text)}")
    frames, height, width = map(int, sizes)
    return frames, height, width


CLIP = partial(Argument, "--clip", metavar="TxHxW", convert=clip_shape)


def checked_cost(text: str) -> int:
    """Return multiply-accumulates or parameters as a number: of 300000000, 0.3G or 3e8. UserError for other texts."""
    number = human_number(text)
    if number is None:
        try:
            number = round(float(text))
        except (ValueError, OverflowError):
            number = 0
    if number < 1:
        raise UserError(f"a cost is a number of at least 1, such as 0.3G or 3M, not {shown(text)}")
    return number


def checked_milliseconds(text: str) -> float:
    """Return milliseconds as a number above 0. UserError for other texts."""
    milliseconds = checked(Field("--budget.latency_ms", float, ""), text)
    assert isinstance(milliseconds, float)
    if milliseconds <= 0:
        raise UserError(f"--budget.latency_ms must be above 0, not {milliseconds:g}")
    return milliseconds


def part_of(text: str) -> tuple[int, int]:
    """Return number and parts out of a text such as 3/16. UserError for any other."""
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts) <= 100_000):
        raise UserError(f"--part takes a number of so many parts, such as 3/16, not {shown(text)}")
    return int(number), int(parts)


def run_directory(path: str, instead: str = "make one with: pvnas run DATA") -> Path:
    """The directory of a run. UserError if it is none, with what to do ``instead``."""
    run_dir = Path(path)
    if not (run_dir / CONFIG_NAME).is_file():
        raise UserError(f"{shown(path)} is no run directory (it holds no {CONFIG_NAME}); {instead}")
    return run_dir


def model_directory(path: str) -> Path:
    """The folder of a trained network: two files are all that it takes. UserError where they are not there."""
    folder = Path(path)
    lacking = next((name for name in ("model.json", "model.safetensors") if not (folder / name).is_file()), None)
    if lacking is None:
        return folder
    if (folder / "peer.json").is_file():
        raise UserError(f"{shown(path)} holds a network to compare with, which is not kept for predictions")
    if (folder / "config.yaml").is_file():
        raise UserError(
            f"the run in {shown(path)} has no trained network yet; go on with it: pvnas run DATA --dir {path}"
        )
    raise UserError(f"{shown(path)} is no run directory (it holds no {lacking}); make one with: pvnas run DATA")


def export_of(run_dir: Path, runtime: str) -> "nn.Module | None":
    """Return the export that is to compute, None for the network itself. UserError where it is not there."""
    if runtime == "torch":
        return None
    from pvnas.deploy.export import FOLDER, Form, OnnxNetwork

    form = Form(int8=runtime == "onnx-int8")
    return OnnxNetwork(run_dir / FOLDER / form.file_name, run_dir, int8=form.int8)


def classes_of(run_dir: Path) -> int:
    """Return the number of classes of a run. UserError where its files do not say."""
    try:
        return len(json.loads((run_dir / "catalog.json").read_bytes())["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{run_dir}/catalog.json does not say which classes the run has") from None


def videos_typed(words: Sequence[str]) -> list["Video"]:
    """The videos that a command line names. UserError where there are none, or the only one is not there."""
    from pvnas.deploy.inputs import find_videos, why_missing

    videos = find_videos(_paths(words))
    if not videos:
        raise UserError("stdin names no videos; give one path a line")
    if len(videos) == 1 and not os.path.exists(videos[0].path):  # before anything slow
        raise UserError(f"{videos[0].path}: {why_missing(videos[0].path)}")
    return videos


def _paths(words: Sequence[str]) -> list[str]:
    """The paths on the command line, and in place of a - those on stdin, one a line or ended by NUL."""
    paths = list[str]()
    for word in words:
        if word == "-":
            text = os.fsdecode(sys.stdin.buffer.read())
            paths += filter(None, text.split("\0") if "\0" in text else text.splitlines())
        else:
            paths.append(word)
    return paths


@contextmanager
def table_file(path: Path, headers: Sequence[bytes]) -> Iterator[int]:
    """Yield the descriptor of a csv file that can be written; what was in it stays until the first answer is known.

    ``headers``: what files of earlier answers begin with. UserError where it cannot be written, and for any other file.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"--out writes a csv file; name it so: --out {path.stem or 'answers'}.csv")
    is_new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror}); name another file") from None
    try:
        head = os.pread(descriptor, 64, 0)
        if head and not head.startswith(tuple(headers)):
            raise UserError(f"--out {path}: there is another file of this name, not of answers; name another one")
        yield descriptor
    finally:
        if is_new and not os.fstat(descriptor).st_size:
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


def write_row(path: Path, descriptor: int, row: Sequence[object]) -> None:
    """Write a row of a csv file; texts that a spreadsheet would take for formulas begin with a quotation mark."""
    from pvnas.data.check.results import inert
    from pvnas.runtime.files import write_all

    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([inert(cell) if isinstance(cell, str) else cell for cell in row])
    try:
        write_all(descriptor, line.getvalue().encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); the rows before are in it") from None


def speaks() -> bool:
    """Whether this is the process that speaks, of those that share a run."""
    from pvnas.runtime.distributed import place_of

    return place_of(os.environ).is_first


def print_json(value: Any) -> None:
    """Prints plain data as JSON."""
    print(json.dumps(value, indent=1))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; columns whose every value is a number stand to the right. Texts are shown as they are, inert."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        numbers = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(plain(value))) for value in row))
    width = None if sys.stdout.isatty() else 120
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def plain(value: object) -> str:
    """A value for a table: large integers with thin groups, other numbers as they are, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
