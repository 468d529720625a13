"""``pvnas predict --timeline``: what is seen when, as lines, rows, JSON, subtitles or a page."""

import json
import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pvnas.cli.shared import export_of, table_file, write_row
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress, clean
from pvnas.runtime.signals import StopRequest

if TYPE_CHECKING:
    from pvnas.data.catalog import Video
    from pvnas.deploy.timeline import Timeline

DIGITS = 6
HEADER = ("path", "start", "end", "class", "score", "error")
BEGINS = {"json": '{\n "pvnas": "timeline"', "html": "<!doctype html>\n<!-- pvnas timeline -->\n"}
"""How files begin that may be written anew; subtitles tell nothing of who wrote them."""


class Place(Protocol):
    """Where timelines are put as they come."""

    def add(self, timeline: "Timeline") -> None:
        """Put one there."""

    def close(self) -> None:
        """There are no more."""


def tell_timelines(args: Namespace, run_dir: Path, videos: Sequence["Video"]) -> None:
    """Say what a trained network sees over the time of videos. Raises UserError where one cannot be read."""
    out = Path(args.out) if args.out else None
    kind = out.suffix.lower().lstrip(".") if out else ""
    if out and kind not in ("csv", "json", "srt", "html"):
        raise UserError(f"--out writes .csv, .json, .srt or .html; name it so: --out {out.stem or 'timeline'}.csv")
    if kind == "srt" and len(videos) > 1:
        raise UserError("subtitles are of one video; of several a .csv, .json or .html file tells")
    with ExitStack() as stack:
        places: list[Place] = []
        if out and kind == "csv":
            places.append(_Rows(out, stack.enter_context(table_file(out, [",".join(HEADER).encode()]))))
        elif out:
            _check_file(out, BEGINS.get(kind))
        from pvnas.data.check import Limits
        from pvnas.deploy.model import load_model
        from pvnas.deploy.timeline import Joining, pace_of, timeline_of_each

        model, joining = load_model(run_dir), Joining(args.margin, args.least)
        pace = pace_of(model, args.window, args.stride, ends_at_cuts=not args.across_cuts)
        about = {"network": str(run_dir), "window": pace.window, "stride": pace.stride}
        about |= {"margin": joining.margin, "least": joining.least}
        progress = stack.enter_context(Progress())
        if args.json or not out:
            places.append(_Json(about, progress.output) if args.json else _Lines(progress))
        if out and kind != "csv":
            makers: dict[str, Callable[[], Place]] = {
                "json": lambda: _Json(about, out=out),
                "srt": lambda: _Subtitles(out),
                "html": lambda: _Page(out, about),
            }
            places.append(makers[kind]())
        stop = stack.enter_context(StopRequest())
        export, limits = export_of(run_dir, args.runtime), Limits(args.workers, args.deadline)
        answers = stack.enter_context(
            closing(timeline_of_each(model, videos, pace, joining, args.device, limits, stop, export))
        )
        reasons, seconds = list[str](), 0.0
        with progress.task("watching", len(videos), unit="videos", summary=len(videos) > 1) as task:
            for timeline in answers:
                for place in places:
                    place.add(timeline)
                seconds += timeline.seconds
                if timeline.error:
                    reasons.append(f"{timeline.name}: {timeline.error}")
                    if len(videos) > 1:
                        progress.line(reasons[-1])
                task.advance()
        for place in places:
            # What is in a file from before is worth more than a part, or nothing.
            if (isinstance(place, _Json) and place.out is None) or (not stop.requested and len(reasons) < len(videos)):
                place.close()
    if stop.requested:
        raise KeyboardInterrupt
    if out and not args.json:
        print(f"{out}: {len(videos) - len(reasons)} of {len(videos)} videos, {seconds:.1f} s of them")
    if reasons:
        told = f"{len(reasons)} of {len(videos)} videos cannot be read: see above" if len(videos) > 1 else reasons[0]
        raise UserError(told + ("; all others have their answer" if len(reasons) < len(videos) else ""))


def _check_file(out: Path, begins: str | None) -> None:
    """UserError where a file cannot be written, and for one that does not begin so."""
    from pvnas.runtime.files import write_atomic

    if not out.exists():
        write_atomic(out, b"")  # tried before hours of work, not after them
        out.unlink()
        return
    try:
        with out.open("rb") as file:
            head = file.read(len(begins or "1"))
    except OSError as error:
        raise UserError(f"--out {out}: cannot be read ({error.strerror}); name another file") from None
    if head and (begins is None or head != begins.encode()):
        raise UserError(f"--out {out}: there is another file of this name, not of a timeline; name another one")


class _Lines:
    """A table for people."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def add(self, timeline: "Timeline") -> None:
        """Say what is seen in a video."""
        if timeline.error:
            return
        self.progress.output(f"{clean(timeline.name)}, {timeline.seconds:.1f} s")
        for start, end, name, score in timeline.segments:
            self.progress.output(f"{start:9.2f} – {end:9.2f} s  {score:.2f}  {clean(name)}")
        if not timeline.segments:
            self.progress.output("  nothing is seen clearly enough")

    def close(self) -> None:
        """All is written."""


class _Rows:
    """A csv file: a row for each segment, in the file before the next video ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor, self.begun = path, descriptor, False

    def add(self, timeline: "Timeline") -> None:
        """Write the rows of a video, and before the first one the titles in place of what the file held."""
        if not self.begun:
            os.ftruncate(self.descriptor, 0)
            write_row(self.path, self.descriptor, HEADER)
            self.begun = True
        name = str(timeline.path)
        if not timeline.segments:
            asked = [timeline.start, timeline.end] if timeline.video.is_segment else ["", ""]
            write_row(self.path, self.descriptor, [name, *asked, "", "", timeline.error])
        for start, end, label, score in timeline.segments:
            row = [name, round(start, 3), round(end, 3), label, round(score, DIGITS), ""]
            write_row(self.path, self.descriptor, row)

    def close(self) -> None:
        """All is written."""


class _Json:
    """An object with all videos: their segments, and the scores of every window; whole when it is closed."""

    def __init__(self, about: dict[str, object], say: Callable[[str], None] | None = None, out: Path | None = None):
        self.about, self.say, self.out = about, say, out
        self.videos: list[dict[str, object]] = []

    def add(self, timeline: "Timeline") -> None:
        """Keep what is seen in a video."""
        segments = [
            {"start": round(start, 3), "end": round(end, 3), "class": name, "score": round(score, DIGITS)}
            for start, end, name, score in timeline.segments
        ]
        windows = [
            [round(seen.start, 3), round(seen.end, 3), *(round(float(score), DIGITS) for score in seen.scores_K)]
            for seen in timeline.windows
        ]
        row: dict[str, object] = {"path": str(timeline.path), "seconds": round(timeline.seconds, 3)}
        if timeline.video.is_segment:
            row |= {"start": timeline.start, "end": timeline.end if timeline.end < float("inf") else None}
        row |= {"segments": segments, "classes": list(timeline.classes), "windows": windows}
        self.videos.append({**row, "error": timeline.error} if timeline.error else row)

    def close(self) -> None:
        """Write what was kept."""
        from pvnas.runtime.files import write_atomic

        rows = ",\n".join("  " + json.dumps(video) for video in self.videos)
        head = json.dumps(self.about)[1:-1]
        text = f'{BEGINS["json"]}, {head},\n "videos": [\n{rows}\n ]\n}}'
        if self.say is not None:
            self.say(text)
        if self.out is not None:
            write_atomic(self.out, text + "\n")


class _Subtitles:
    """A .srt file of one video."""

    def __init__(self, out: Path) -> None:
        self.out, self.text = out, ""

    def add(self, timeline: "Timeline") -> None:
        """Write a cue for each segment."""
        for number, (start, end, name, score) in enumerate(timeline.segments, start=1):
            self.text += f"{number}\n{_srt(start)} --> {_srt(end)}\n{clean(name)} ({score:.2f})\n\n"

    def close(self) -> None:
        """Write what was kept."""
        from pvnas.runtime.files import write_atomic

        write_atomic(self.out, self.text)


def _srt(seconds: float) -> str:
    """Seconds as subtitles write them: 00:01:02,345."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


class _Page:
    """A page with frames, scores and segments."""

    def __init__(self, out: Path, about: dict[str, object]) -> None:
        from pvnas.report.timeline import Shown

        self.out, self.about, self.count = out, about, 0
        self.videos: list[Shown] = []

    def add(self, timeline: "Timeline") -> None:
        """Keep what the page shows of a video; of more than SHOWN_VIDEOS only that they were there."""
        from pvnas.deploy.timeline import stretches
        from pvnas.report.timeline import SHOWN_VIDEOS, Shown

        self.count += 1
        if self.count > SHOWN_VIDEOS:
            return
        end = timeline.start + timeline.seconds
        seen = timeline.name, timeline.error, timeline.seconds, timeline.segments, *stretches(timeline.windows, end)
        self.videos.append(Shown(*seen, timeline.classes, timeline.pictures))

    def close(self) -> None:
        """Write what was kept."""
        from pvnas.report.timeline import timeline_page
        from pvnas.runtime.files import write_atomic

        write_atomic(self.out, timeline_page(self.videos, self.count, **self.about))
