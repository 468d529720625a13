"""``pvnas features``: what a trained network makes of videos before its classifier, to search and compare by."""

import math
import os
from argparse import Namespace
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import DEADLINE, model_directory, table_file, videos_typed, write_row
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import StopRequest

OUR_HEADERS = (b"path,start,end,error,f0",)
DIGITS = 6


@command(
    "features",
    Argument(
        "videos", "video, folder or list (.txt, .csv) of videos; - reads paths from stdin", metavar="VIDEO", many=True
    ),
    Argument("--dir", "run directory with a trained network", metavar="RUN"),
    Argument("--out", "where the vectors go: a row for each video, or a matrix", metavar="FILE.csv|.safetensors"),
    Argument("--device", "where the network runs", "auto", Literal["auto", "cpu", "cuda"]),
    Argument("--workers", "processes that decode, beside the network", 2, least=1),
    DEADLINE,
    example="pvnas features new_videos --dir runs/my_videos-laptop --out features.csv\n"
    "pvnas features new_videos --dir runs/my_videos-laptop --out features.safetensors",
)
def features(args: Namespace) -> None:
    """Write a vector for each video: what the network has before its classifier, averaged over the test's views."""
    run_dir, out = model_directory(args.dir), Path(args.out)
    is_table = out.suffix.lower() == ".csv"
    if not is_table and out.suffix.lower() != ".safetensors":
        raise UserError(f"--out ends in .csv or .safetensors, not {out.name}")
    videos = videos_typed(args.videos)
    if not is_table:
        _check_matrix(out)
    with ExitStack() as stack:
        table = stack.enter_context(table_file(out, OUR_HEADERS)) if is_table else None
        from pvnas.data.check import Limits
        from pvnas.deploy.features import features_each, save_features
        from pvnas.deploy.model import load_model

        model = load_model(run_dir)
        progress = stack.enter_context(Progress())
        stop = stack.enter_context(StopRequest())  # so that no row is torn
        answers = features_each(model, videos, args.device, Limits(args.workers, args.deadline), stop)
        answers = stack.enter_context(closing(answers))
        found, bad, names = [], 0, [f"f{number}" for number in range(model.network.num_features)]
        begun = False
        with progress.task("features", len(videos), unit="videos", summary=len(videos) > 1) as task:
            for answer in answers:
                task.advance()
                if answer.error:
                    bad += 1
                    progress.line(f"{answer.name}: {answer.error}")
                if table is None:
                    found.append(answer)
                    continue
                if not begun:
                    os.ftruncate(table, 0)
                    write_row(out, table, ["path", "start", "end", "error", *names])
                    begun = True
                end = answer.end if math.isfinite(answer.end) else ""
                seconds = [answer.start, end] if answer.video.is_segment else ["", ""]
                row = [round(value, DIGITS) for value in answer.vector]
                write_row(out, table, [str(answer.path), *seconds, answer.error, *row])
    if table is None and found:
        save_features(out, found, model)
    if stop.requested:
        raise KeyboardInterrupt
    print(f"{out}: {len(videos) - bad} of {len(videos)} videos, {model.network.num_features} numbers each")
    if bad:
        raise UserError(f"{bad} of {len(videos)} videos cannot be read: see above; all others have their vector")


def _check_matrix(out: Path) -> None:
    """UserError where a file of vectors cannot be written, and for one that holds anything else."""
    from safetensors import SafetensorError, safe_open

    from pvnas.runtime.files import write_atomic

    if not out.exists():
        write_atomic(out, b"")  # tried before hours of work, not after them
        out.unlink()
        return
    try:
        with safe_open(out, "np") as file:
            is_ours = list(file.keys()) == ["features"] and "paths" in (file.metadata() or {})
    except (SafetensorError, OSError):
        is_ours = False
    if not is_ours:
        raise UserError(f"--out {out}: there is another file of this name, not of features; name another one")
