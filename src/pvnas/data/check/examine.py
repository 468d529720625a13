"""What is wrong with one video: every frame is decoded and counted, none is held: a film needs no more than a clip.

Headers lie (a truncated file still claims all its frames), so what counts is what decodes.
"""

import math
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvnas.data.check.results import CRASHED, KINDS, MEMORY, CheckResult, Verdict
from pvnas.data.processes import Allowed, Failure, Tell, more_memory, too_slow
from pvnas.data.video.decode import (
    DEFAULT_RATE,
    FrameReader,
    OnLength,
    VideoError,
    actual_rate,
    average_rate,
    claimed_size,
    open_video,
    reason,
    shown_times,
)
from pvnas.data.video.pictures import folder_stamp, picture_files, read_picture, size_of_first
from pvnas.data.video.segment import segment_of

# Headers of good files are off by a frame or two (edit lists, dropped frames); less than this share is a lack.
COMPLETE_SHARE = 0.95
# Many writers round times to milliseconds before the container rounds them to its own ticks.
ROUNDING_SECONDS = 1e-3
DETAIL_CHARACTERS = 300
CONVERTED_SIDE = 64
PICTURES = "pictures"  # the codec of a folder of them
PIXELS_OF_4K = 3840 * 2160
WHOLE = (0.0, math.inf)  # start and end of what is no segment


class Job(NamedTuple):
    """A file to examine."""

    path: str  # as in the catalog
    file: str
    size: int  # bytes
    modified_ns: int
    videos: tuple[tuple[str, float, float], ...]  # name, start and end in seconds of each that is in it
    frame_rate: float = DEFAULT_RATE  # of a folder of pictures


def examine_within_limits(
    job: Job, tell: Tell, memory: int, seconds_for: Callable[[int, float], float]
) -> list[CheckResult]:
    """Return what is found of each video of a file; refused where that takes more than ``memory`` (bytes).

    Pictures of more than 4K may take as many times the memory as they are larger.

    ``seconds_for``: the time that a video of so many bytes and seconds may take, told when its length is known.
    FFmpeg takes memory that it does not get for damage of the video, and goes on: what seems damaged is read once more
    with twice the memory. What is damaged is so again; what was short of memory gets further.
    """

    def on_length(seconds: float) -> None:
        tell(Allowed(seconds_for(job.size, seconds)))

    segments = [WHOLE, *((start, end) for _, start, end in job.videos)]
    whole, *results = examine_segments(job.file, segments, on_length, job.frame_rate)
    if whole.verdict in ("ok", "refused"):
        return results
    times = _times_4k(job.file)
    with more_memory(math.ceil(memory * max(1.0, times - 1))) as limited:
        again = examine_segments(job.file, segments, on_length, job.frame_rate)
        if not limited or again == [whole, *results] or (times > 1 and again[0].verdict == "ok"):
            return again[1:]
    return [_too_large(memory)] * len(results)


def _times_4k(file: str) -> float:
    """Return how many times larger than 4K the pictures of a file are as its header says, 0 where it does not."""
    try:
        _, height, width = claimed_size(file)
    except VideoError:
        return 0.0
    return height * width / PIXELS_OF_4K


def _too_large(memory: int) -> CheckResult:
    return CheckResult("", "refused", f"{MEMORY}: decoding it takes more than {memory >> 20} MiB")


def examine(file: str | Path, on_length: OnLength = lambda seconds: None) -> CheckResult:
    """Decode a file to its end and return what was found, without the path. Raises nothing."""
    return examine_segments(file, [WHOLE], on_length)[0]


def examine_segments(
    file: str | Path,
    segments: Sequence[tuple[float, float]],
    on_length: OnLength,
    frame_rate: float = DEFAULT_RATE,
) -> list[CheckResult]:
    """Decode a file to its end and return what was found of each segment, without the path. Raises nothing.

    ``on_length`` is told how many seconds the video is long, as its header says, and more where it goes on after that.
    """
    try:
        file_stamp(file)
        pictures = os.path.isdir(file)
        examined = _examined_pictures(file, frame_rate, on_length) if pictures else _examined(file, on_length)
        return [_of_segment(examined, start, end) for start, end in segments]
    except VideoError as error:
        result = result_of("", error)
    except MemoryError:  # Python's own; FFmpeg's cannot be told from damage here
        result = CheckResult("", "refused", f"{MEMORY}: decoding it takes more than is allowed")
    except Exception as error:  # whatever a file makes of PyAV is that file's fault
        result = CheckResult("", "unreadable", f"{type(error).__name__}: {reason(error)}"[:DETAIL_CHARACTERS])
    return [result] * len(segments)


def outcome_of(job: Job, answer: list[CheckResult] | Failure) -> list[CheckResult]:
    """Return what a worker has found of each video, or what has become of it."""
    if isinstance(answer, list):
        results = answer
    else:
        results = [_of_failure(answer)] * len(job.videos)
    # Stamped with what was seen before it was read: a file that changes meanwhile is read again next time.
    return [
        replace(result, path=name, bytes=job.size, modified_ns=job.modified_ns)
        for (name, _, _), result in zip(job.videos, results, strict=True)
    ]


def _of_failure(failure: Failure) -> CheckResult:
    if failure.kind == "timeout":
        return CheckResult("", "timeout", too_slow(failure.seconds))
    if failure.kind == "memory":
        return CheckResult("", "refused", f"{MEMORY}: reading it takes more than is allowed")
    return CheckResult("", "unreadable", f"{CRASHED}: {failure.text}")


def result_of(path: str, error: VideoError) -> CheckResult:
    """Return the result that an error means."""
    verdict: Verdict = next((kind for kind in KINDS if kind == error.kind), "unreadable")
    return CheckResult(path, verdict, error.text[:DETAIL_CHARACTERS])


def with_length(result: CheckResult, shortest_seconds: float) -> CheckResult:
    """Return the result with ok and short told apart: short are one frame, and less than that duration.

    Whatever length an earlier check asked for.
    """
    if result.verdict not in ("ok", "short"):
        return result
    # A clip's window counted in frames is a sum of rounded times: a microsecond is no lack.
    if result.frames == 1 or result.seconds < shortest_seconds - 1e-6:
        frames = "1 frame" if result.frames == 1 else f"{result.frames} frames"
        return replace(result, verdict="short", detail=f"{frames}, {result.seconds:.3f} s")
    return replace(result, verdict="ok", detail="")


def file_stamp(file: str | Path) -> tuple[int, int]:
    """Return size in bytes and time of the last change in ns: of a file, or of a folder of pictures together.

    Raises VideoError for what is no file with a content, and no such folder.
    """
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError("missing", "no such file") from None
    except (OSError, ValueError) as error:
        raise VideoError("unreadable", reason(error)) from None
    if stat.S_ISDIR(status.st_mode):
        return folder_stamp(file)
    if not stat.S_ISREG(status.st_mode):
        raise VideoError("refused", "it is no regular file")
    if not status.st_size:
        raise VideoError("unreadable", "the file has no bytes")
    return status.st_size, status.st_mtime_ns


class _Examined(NamedTuple):
    """What a decode of a whole file has shown."""

    result: CheckResult
    times_T: NDArray[np.float64]  # when each frame begins, in seconds; the first at 0
    duration: float  # seconds
    faults: list[int]  # frames before each packet or frame that is corrupt


def _of_segment(examined: _Examined, start: float, end: float) -> CheckResult:
    """Return what was found between two instants in seconds. Raises VideoError where the file has no frame there."""
    if (start, end) == WHOLE:
        return examined.result
    try:
        segment = segment_of(examined.times_T, examined.duration, start, end)
    except VideoError as error:
        return result_of("", error)
    frames, faults = len(segment.times_T), []
    corrupt = sum(segment.first <= before <= segment.first + frames for before in examined.faults)
    if corrupt:
        faults.append(f"{corrupt} packets or frames are corrupt")
    if end < math.inf and segment.duration < COMPLETE_SHARE * (end - start):
        faults.append(
            f"the video ends at {examined.duration:.6g} s, {end - examined.duration:.6g} s before the segment"
        )
    return replace(
        examined.result,
        verdict="partial" if faults else "ok",
        detail="; ".join(faults),
        frames=frames,
        claimed=frames,
        seconds=round(segment.duration, 6),
    )


def _examined(file: str | Path, on_length: OnLength) -> _Examined:
    """Return what a decode has shown, ok or partial. Raises VideoError for all others, and MemoryError."""
    with open_video(file) as (container, stream):
        reader, base = FrameReader(container, stream, on_length), float(stream.time_base or 0)
        stamps: list[int | None] = []
        corrupt: list[int] = []
        shapes: dict[tuple[int, int, int], None] = {}  # in the order of their first frames
        for frame in reader.frames():
            if not shapes:
                _convert(frame)
            corrupt += [len(stamps)] * (reader.bad - len(corrupt))
            stamps.append(frame.pts)
            shapes[_shape(frame)] = None
        if not shapes:
            raise VideoError("empty", "no frame decodes")
        codec = stream.codec_context.name
        header_rate, count = average_rate(stream), len(stamps)
        times_T = shown_times(stamps, base, header_rate)
        rate = actual_rate(times_T, header_rate)
        counted = max(0, stream.frames - reader.hidden)
        claimed = counted or _estimated(_claimed_seconds(container, stream), rate, count)
    faults = []
    if reader.bad or count < COMPLETE_SHARE * claimed:
        faults.append(f"{count} of {'' if counted else 'about '}{max(claimed, count)} frames decode")
    if reader.bad:
        faults.append(f"{reader.bad} packets or frames are corrupt")
    width, height, rotation = next(iter(shapes))
    duration = float(times_T[-1]) + 1 / rate
    result = CheckResult(
        "",
        "partial" if faults else "ok",
        "; ".join(faults),
        frames=count,
        claimed=claimed,
        rate=round(rate, 4),
        variable_rate=_varies(times_T, header_rate, base),
        rotation=rotation,
        width=width,
        height=height,
        resized=len(shapes) > 1,
        codec=codec,
        seconds=round(duration, 6),
    )
    return _Examined(result, times_T, duration, corrupt + [count] * (reader.bad - len(corrupt)))


def _examined_pictures(folder: str | Path, frame_rate: float, on_length: OnLength) -> _Examined:
    """Return what reading a folder of pictures has shown. Raises VideoError where none of them can be read."""
    files = picture_files(folder)
    count, duration = len(files), len(files) / frame_rate
    on_length(duration)
    width, height = size_of_first(files)
    bad: list[int] = []
    shapes: set[tuple[int, ...]] = set()
    errors: list[VideoError] = []
    for number, file in enumerate(files):
        try:
            shapes.add(read_picture(file).shape)
        except VideoError as error:
            bad.append(number)
            errors.append(error)
    if not shapes:
        raise VideoError(errors[0].kind, f"none of its {count} pictures can be read: {errors[0].text}")
    detail = f"{count - len(bad)} of {count} frames decode; {errors[0].text}" if errors else ""
    result = CheckResult(
        "",
        "partial" if bad else "ok",
        detail[:DETAIL_CHARACTERS],
        frames=count - len(bad),
        claimed=count,
        rate=frame_rate,
        width=width,
        height=height,
        resized=len(shapes) > 1,
        codec=PICTURES,
        seconds=round(duration, 6),
    )
    return _Examined(result, np.arange(count) / frame_rate, duration, bad)


def _varies(times_T: NDArray[np.float64], rate: float, base: float) -> bool:
    """Return whether the gaps between times, in ticks of ``base`` seconds, differ by more than rounding."""
    if len(times_T) < 3 or base <= 0:
        return False
    period = 1 / (rate * base)
    rounded = base * (abs(period - round(period)) > 1e-6)  # no whole number of ticks: gaps differ by one
    return bool(np.ptp(np.diff(times_T)) - rounded > ROUNDING_SECONDS * (1 + 1e-6))


def _estimated(seconds: float, rate: float, frames: int) -> int:
    """Return how many frames a duration makes, 0 for none; rounded times are no claim of one frame more or less."""
    claimed = round(seconds * rate)
    return frames if abs(claimed - frames) <= 1 else claimed


def _shape(frame: Any) -> tuple[int, int, int]:
    """Return width and height as shown, and the degrees, clockwise, that the stored picture is turned by for it."""
    degrees = round(-(frame.rotation or 0) / 90) % 4 * 90
    return (frame.height, frame.width, degrees) if degrees % 180 else (frame.width, frame.height, degrees)


def _convert(frame: Any) -> None:
    """Turn a frame into the RGB that training needs, scaled down. Raises VideoError where that cannot be done."""
    import av
    from av.video.reformatter import VideoReformatter

    size = {"width": min(frame.width, CONVERTED_SIDE), "height": min(frame.height, CONVERTED_SIDE)}
    try:
        VideoReformatter().reformat(frame, **size, format="rgb24", interpolation="BILINEAR", threads=1)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError("unreadable", f"its pictures cannot be turned into RGB ({reason(error)})") from None


def _claimed_seconds(container: Any, stream: Any) -> float:
    """Return the duration of the video in the header, 0 where there is none that is surely the video's."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    with suppress(ValueError):  # Matroska: 00:01:02.345000000
        hours, minutes, seconds = str(stream.metadata.get("DURATION", "")).split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    alone = len(container.streams) == 1  # sound may well be longer than the pictures
    return container.duration / 1e6 if alone and container.duration else 0.0
