"""The verdict on one video: every frame is decoded and counted, none is kept, so that a film needs no more than a clip.

Headers lie (a truncated file still claims all its frames), so the verdict is on what decodes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from pvnas.data.check.results import KINDS, MEMORY, CheckResult, VerdictKind
from pvnas.data.video.container import FrameReader, VideoError, average_rate, open_video, reason

# Headers of good files are off by a frame or two (edit lists, dropped frames); less than this share is a lack.
COMPLETE_SHARE = 0.95
# Many writers round times to milliseconds before the container rounds them to its own ticks.
ROUNDING_SECONDS = 1e-3
DETAIL_CHARACTERS = 300
CONVERTED_SIDE = 64


def judge(file: str | Path) -> CheckResult:
    """Decode a file to its end and return the verdict, without the path (worker processes send it). Raises nothing."""
    try:
        return _judged(file)
    except VideoError as error:
        return verdict_of("", error)
    except MemoryError:  # Python's own; FFmpeg's cannot be told from damage here
        return CheckResult("", "refused", f"{MEMORY}: decoding it takes more than is allowed")
    except Exception as error:  # whatever a file makes of PyAV is that file's fault
        return CheckResult("", "unreadable", f"{type(error).__name__}: {reason(error)}"[:DETAIL_CHARACTERS])


def verdict_of(path: str, error: VideoError) -> CheckResult:
    """Return the verdict that an error means."""
    kind: VerdictKind = next((kind for kind in KINDS if kind == error.kind), "unreadable")
    return CheckResult(path, kind, error.text[:DETAIL_CHARACTERS])


def shortened(verdict: CheckResult, shortest_seconds: float) -> tuple[VerdictKind, str]:
    """Return verdict and detail of a video whose frames all decode: short for one frame, or less than that duration."""
    # A clip's window counted in frames is a sum of rounded times: a microsecond is no lack.
    if verdict.frames == 1 or verdict.seconds < shortest_seconds - 1e-6:
        return "short", f"{_frames(verdict.frames)}, {verdict.seconds:.3f} s"
    return "ok", ""


def file_stamp(file: str | Path) -> tuple[int, int]:
    """Return size in bytes and time of the last change in ns. Raises VideoError for what is no file with a content."""
    try:
        found = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError("missing", "no such file") from None
    except (OSError, ValueError) as error:
        raise VideoError("unreadable", reason(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise VideoError("refused", "it is no regular file")
    if not found.st_size:
        raise VideoError("unreadable", "the file has no bytes")
    return found.st_size, found.st_mtime_ns


def _judged(file: str | Path) -> CheckResult:
    """Return ok or partial. Raises VideoError for all others, and MemoryError."""
    file_stamp(file)
    with open_video(file) as (container, stream):
        reader, clock = FrameReader(container, stream), _Clock(float(stream.time_base or 0), average_rate(stream))
        first: Any = None
        sizes: set[tuple[int, int, int]] = set()
        for frame in reader.frames():
            if first is None:
                first = frame
                _convert(frame)
            clock.add(frame.pts)
            sizes.add(_shown(frame))
        if first is None:
            raise VideoError("empty", "no frame decodes")
        width, height, rotation = _shown(first)
        codec = stream.codec_context.name
        rate, seconds, variable = clock.reading()
        counted = max(0, stream.frames - reader.hidden)
        claimed = counted or _estimated(_claimed_seconds(container, stream), rate, clock.count)
    faults = []
    if reader.bad or clock.count < COMPLETE_SHARE * claimed:
        faults.append(f"{clock.count} of {'' if counted else 'about '}{max(claimed, clock.count)} frames decode")
    if reader.bad:
        faults.append(f"{reader.bad} packets or frames are corrupt")
    return CheckResult(
        "",
        "partial" if faults else "ok",
        "; ".join(faults),
        frames=clock.count,
        claimed=claimed,
        rate=round(rate, 4),
        variable_rate=variable,
        rotation=rotation,
        width=width,
        height=height,
        resized=len(sizes) > 1,
        codec=codec,
        seconds=round(seconds, 6),
    )


class _Clock:
    """Count, rate and duration of frames from their time stamps, as `decode_video` has them, one stamp at a time."""

    def __init__(self, base: float, rate: float) -> None:
        self.base, self.rate = base, rate
        self.count, self.first, self.last = 0, 0, 0
        self.least, self.most = 0, 0
        self.rising = base > 0

    def add(self, stamp: int | None) -> None:
        """Count a frame; its stamp is in units of `base` seconds."""
        self.count += 1
        if stamp is None:
            self.rising = False
        elif self.count == 1:
            self.first = self.last = stamp
        else:
            gap, self.last = stamp - self.last, stamp
            self.rising = self.rising and gap > 0
            self.least, self.most = (min(self.least, gap), max(self.most, gap)) if self.count > 2 else (gap, gap)

    def reading(self) -> tuple[float, float, bool]:
        """Return average frames per second, seconds, and whether the gaps differ by more than rounding."""
        if self.count < 2 or not self.rising:
            return self.rate, self.count / self.rate, False
        span = (self.last - self.first) * self.base
        rate = (self.count - 1) / span
        period = 1 / (self.rate * self.base)
        rounded = abs(period - round(period)) > 1e-6  # one frame is no whole number of ticks: gaps differ by one
        differ = (self.most - self.least - rounded) * self.base
        return rate, span + 1 / rate, differ > ROUNDING_SECONDS * (1 + 1e-6)


def _shown(frame: Any) -> tuple[int, int, int]:
    """Return width and height as shown, and the degrees, clockwise, that the stored picture is turned by for it."""
    degrees = round(-(frame.rotation or 0) / 90) % 4 * 90
    return (frame.height, frame.width, degrees) if degrees % 180 else (frame.width, frame.height, degrees)


def _convert(frame: Any) -> None:
    """Turn a frame into the RGB that training needs, scaled down. Raises VideoError where that cannot be done."""
    import av
    from av.video.reformatter import VideoReformatter

    width, height = min(frame.width, CONVERTED_SIDE), min(frame.height, CONVERTED_SIDE)
    try:
        VideoReformatter().reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BILINEAR", threads=1
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError("unreadable", f"its pictures cannot be turned into RGB ({reason(error)})") from None


def _claimed_seconds(container: Any, stream: Any) -> float:
    """Return the duration of the video in the header, 0 where there is none that is surely the video's."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    hours, _, rest = str(stream.metadata.get("DURATION", "")).partition(":")  # Matroska: 00:01:02.345000000
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        pass
    alone = len(container.streams) == 1  # sound may well be longer than the pictures
    return container.duration / 1e6 if alone and container.duration else 0.0


def _estimated(seconds: float, rate: float, frames: int) -> int:
    """Return how many frames a duration makes, 0 for none; rounded times are no claim of one frame more or less."""
    claimed = round(seconds * rate)
    return frames if abs(claimed - frames) <= 1 else claimed


def _frames(number: int) -> str:
    return f"{number} frame" if number == 1 else f"{number} frames"
