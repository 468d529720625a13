"""``pvnas predict``: what a trained network sees in videos, each answer as soon as it is known."""

import json
import os
from argparse import Namespace
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import (
    DEADLINE,
    JSON,
    RUNTIME,
    export_of,
    model_directory,
    table_file,
    videos_typed,
    write_row,
)
from pvnas.cli.timelines import tell_timelines
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress, clean, shown_width
from pvnas.runtime.signals import StopRequest

if TYPE_CHECKING:
    from pvnas.data.catalog import Video
    from pvnas.deploy.predictions import Prediction

WIDEST_NAME = 60  # of a column; longer names push the rest of their line
SCORE_DIGITS = 6
OUR_HEADERS = (b"path,prediction,", b"path,start,end,prediction,")


@command(
    "predict",
    Argument(
        "videos", "video, folder or list (.txt, .csv) of videos; - reads paths from stdin", metavar="VIDEO", many=True
    ),
    Argument("--dir", "run directory with a trained network", metavar="RUN"),
    Argument("--top", "classes to print for each video", 5, least=1),
    Argument(
        "--out",
        "write a row for each video there, with the scores of all classes; with --timeline a row for each segment, or "
        "what the name's ending says",
        None,
        metavar="FILE.csv|json|srt|html",
    ),
    Argument("--timeline", "say what is seen when, in videos of any length", False),
    Argument("--window", "seconds that the network sees at once, with --timeline", None, metavar="SECONDS", kind=float),
    Argument("--stride", "seconds from one window to the next [half a window]", None, metavar="SECONDS", kind=float),
    Argument("--across-cuts", "let windows reach from one shot of a film into the next", False),
    Argument("--margin", "by which another class must be seen more clearly to end a segment", 0.1),
    Argument("--least", "score below which no class is seen", 0.0),
    Argument("--device", "where the network runs", "auto", Literal["auto", "cpu", "cuda"]),
    RUNTIME,
    Argument("--workers", "processes that decode, beside the network", 2, least=1),
    DEADLINE,
    JSON,
    example="pvnas predict clip.mp4 --dir runs/my_videos-laptop --top 3\n"
    "pvnas predict new_videos --dir runs/my_videos-laptop --out answers.csv\n"
    "pvnas predict film.mp4 --dir runs/my_videos-laptop --timeline --out film.html",
)
def predict(args: Namespace) -> None:
    """Say what is seen in videos."""
    run_dir = model_directory(args.dir)
    if args.runtime != "torch" and args.device == "cuda":
        raise UserError("exports run on the CPU here; leave --device or --runtime away")
    usual = {"window": None, "stride": None, "margin": 0.1, "least": 0.0, "across_cuts": False}
    if not args.timeline and (
        typed := [name.replace("_", "-") for name, value in usual.items() if getattr(args, name) != value]
    ):
        raise UserError(f"--{typed[0]} is of a timeline: add --timeline")
    videos = videos_typed(args.videos)
    if args.timeline:
        tell_timelines(args, run_dir, videos)
        return
    with ExitStack() as stack:
        file = stack.enter_context(table_file(Path(args.out), OUR_HEADERS)) if args.out else None
        from pvnas.data.check import Limits
        from pvnas.deploy.model import load_model
        from pvnas.deploy.predictions import predict_each

        model = load_model(run_dir)
        progress = stack.enter_context(Progress())
        places: list[Place] = [_Rows(Path(args.out), file, videos, model.classes)] if file is not None else []
        if args.json:
            places.append(stack.enter_context(closing(_Json(progress, args.top))))
        elif file is None:
            places.append(_Lines(progress, videos, model.classes, args.top))
        stop = stack.enter_context(StopRequest())  # so that no answer is torn
        answers = predict_each(
            model,
            videos,
            len(model.classes),
            args.device,
            Limits(args.workers, args.deadline),
            stop,
            export_of(run_dir, args.runtime),
        )
        reasons = _tell(stack.enter_context(closing(answers)), len(videos), progress, places)
    if stop.requested:
        raise KeyboardInterrupt
    if args.out and not args.json:
        print(f"{args.out}: {len(videos) - len(reasons)} of {len(videos)} videos")
    if reasons:
        raise UserError(_conclusion(reasons, len(videos), args.deadline))


def _tell(answers: Iterable["Prediction"], total: int, progress: Progress, places: Sequence["Place"]) -> list[str]:
    """Put each answer where it belongs as it comes, name the videos without one, and return why they have none."""
    reasons = list[str]()
    with progress.task("predicting", total, unit="videos", summary=total > 1) as task:
        for answer in answers:
            for place in places:
                place.add(answer)
            if answer.error:
                reasons.append(f"{answer.name}: {answer.error}")
                if total > 1:
                    progress.line(reasons[-1])
            task.advance()
    return reasons


def _conclusion(reasons: Sequence[str], total: int, deadline: float) -> str:
    """What is said at the end; of a single video that is all there is to say."""
    from pvnas.data.processes import MORE_TIME

    bad = len(reasons)
    text = f"{bad} of {total} videos cannot be read: see above" if total > 1 else reasons[0]
    text += "; all others have their answer" if bad < total else ""
    slow = any(": timeout: " in reason for reason in reasons)
    return text + (f"; give more time with --deadline {MORE_TIME * deadline:g}" if slow else "")


# ---- where answers go


class Place(Protocol):
    """Where answers are put as they come."""

    def add(self, answer: "Prediction") -> None:
        """Put one there."""


class _Lines:
    """A table for people, whose columns are as wide as what is known before the first answer."""

    def __init__(self, progress: Progress, videos: Sequence["Video"], classes: Sequence[str], top: int) -> None:
        self.progress, self.top = progress, top
        self.widths = (_width("video", (video.name for video in videos)), 4, _width("class", classes), 5)
        self.begun = False

    def add(self, answer: "Prediction") -> None:
        if not self.begun and answer.classes:
            self._line("video", "rank", "class", "score")
            self.progress.output("─" * (sum(self.widths) + 2 * len(self.widths) - 2))
            self.begun = True
        for rank, (name, score) in enumerate(answer.classes[: self.top], start=1):
            self._line(answer.name, str(rank), name, f"{score:.3f}")

    def _line(self, *cells: str) -> None:
        video, rank, name, score = (clean(cell) for cell in cells)
        a, b, c, d = self.widths
        self.progress.output(f"{_padded(video, a)}  {rank:>{b}}  {_padded(name, c)}  {score:>{d}}")


def _width(title: str, names: Iterable[str]) -> int:
    return min(WIDEST_NAME, max(shown_width(title), *(shown_width(clean(name)) for name in names)))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - shown_width(text))


class _Json:
    """A list of objects, whole whenever it is closed."""

    def __init__(self, progress: Progress, top: int) -> None:
        self.progress, self.top, self.text = progress, top, "[\n"

    def add(self, answer: "Prediction") -> None:
        classes = [{"class": name, "score": score} for name, score in answer.classes[: self.top]]
        row: dict[str, object] = {"path": str(answer.path)}
        if answer.video.is_segment:
            row |= {"start": answer.start, "end": answer.end if answer.end < float("inf") else None}
        row |= {"classes": classes} | ({"error": answer.error} if answer.error else {})
        self.progress.output(f"{self.text} {json.dumps(row)}", end="")
        self.text = ",\n"

    def close(self) -> None:
        self.progress.output("[]" if self.text.startswith("[") else "\n]")


class _Rows:
    """A csv file; each row is in the file before the next video is looked at."""

    def __init__(self, path: Path, descriptor: int, videos: Sequence["Video"], classes: Sequence[str]) -> None:
        self.path, self.descriptor, self.classes = path, descriptor, classes
        self.segments = any(video.is_segment for video in videos)
        self.begun = False

    def add(self, answer: "Prediction") -> None:
        """Write the row of an answer, and before the first one the titles in place of what the file held."""
        seconds = [answer.start, answer.end if answer.end < float("inf") else ""] if self.segments else []
        best = list(answer.classes[0]) if answer.classes else ["", ""]
        scores = dict(answer.classes)
        row = [str(answer.path), *seconds, *best, answer.error, *(scores.get(name, "") for name in self.classes)]
        if not self.begun:
            os.ftruncate(self.descriptor, 0)
            titles = ["path", *(["start", "end"] if self.segments else []), "prediction", "score", "error"]
            self._write([*titles, *self.classes])
            self.begun = True
        self._write([round(cell, SCORE_DIGITS) if isinstance(cell, float) else cell for cell in row])

    def _write(self, row: Sequence[object]) -> None:
        write_row(self.path, self.descriptor, row)
