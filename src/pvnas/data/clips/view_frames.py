"""Frames of the test's views of many videos, decoded in processes beside whatever their reader does with them.

A video that cannot be read, hangs, or takes its decoder down costs its own answer alone. Nothing here imports torch: a
process that only decodes starts quickly without it. Legend: T frames, H and W pixels, C channels.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pvnas.config import ClipConfig, TestConfig
from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.check.examine import file_stamp
from pvnas.data.clips.sampling import test_indices
from pvnas.data.processes import Allowed, Failure, Tell, run_jobs, too_slow
from pvnas.data.video.decode import VideoError, reason
from pvnas.data.video.footage import Footage
from pvnas.data.video.segment import Choose

MIB = 1 << 20
MEMORY_MIB = 4096  # a video may take: frames of all views are held at once, unlike in a check

Made = TypeVar("Made")
Frames = NDArray[np.uint8]  # (T, H, W, C): the temporal views one after another


class Job(NamedTuple):
    """A video to decode."""

    number: int  # in the list that was asked for
    footage: Footage
    size: int  # bytes


def decode_views(
    videos: Sequence[Video], clip: ClipConfig, test: TestConfig, limits: Limits, frame_rate: float
) -> Generator[tuple[int, Frames | VideoError] | None, None, None]:
    """Yield the number of each video and its frames, or why it has none, as they come; None now and then.

    Paths are relative to the current folder; ``frame_rate``: of folders of pictures, per second. Of ``limits``
    the workers and the deadline hold; a single video is decoded in this process, where both would cost more than they
    save. Close the iterator to end the workers early.
    """
    bad: list[tuple[int, VideoError]] = []
    workers = min(limits.workers, len(videos)) if len(videos) > 1 else 0
    work = partial(_decode, clip=clip, test=test, limits=limits)
    jobs = readable(videos, frame_rate, bad)
    answers = run_jobs(
        work, jobs, workers, seconds_for=lambda job: limits.seconds_for(job.size), memory=MEMORY_MIB * MIB
    )
    with closing(answers):
        for answer in answers:
            yield from bad
            bad.clear()
            yield answer and (answer[0].number, _frames_of(answer[1]))
    yield from bad


def readable(videos: Sequence[Video], frame_rate: float, bad: list[tuple[int, VideoError]]) -> Iterator[Job]:
    """Yield the videos that lie there; the others are added to ``bad``."""
    for number, video in enumerate(videos):
        try:
            size, _ = file_stamp(video.path)
        except VideoError as error:
            bad.append((number, error))
        else:
            yield Job(number, Footage(Path(os.path.abspath(video.path)), video.start, video.end, frame_rate), size)


def _decode(job: Job, tell: Tell, clip: ClipConfig, test: TestConfig, limits: Limits) -> Frames | VideoError:
    """Return the frames of a video's temporal views, or why it has none. Raises nothing that a file is the cause of."""

    def on_length(seconds: float) -> None:
        tell(Allowed(limits.seconds_for(job.size, seconds)))

    choose = views_chosen(clip, test)
    return or_why(lambda: job.footage.pictures(choose, short_side=test.short_side, on_length=on_length))


def or_why(decode: Callable[[], Made]) -> Made | VideoError:
    """Return what is decoded, or why nothing is. Raises nothing that a file is the cause of."""
    try:
        return decode()
    except VideoError as error:
        return error
    except MemoryError:
        return VideoError("refused", "memory: decoding it takes more than is allowed")
    except Exception as error:  # whatever a file makes of PyAV is that file's fault
        return VideoError("unreadable", f"{type(error).__name__}: {reason(error)}")


def views_chosen(clip: ClipConfig, test: TestConfig) -> Choose:
    """Return the choice of frames of the test's temporal views, one view after another."""

    def choose(times_T: NDArray[np.float64], duration: float) -> NDArray[np.int64]:
        return test_indices(times_T, duration, clip, test.temporal_views, test.rule).ravel()

    return choose


def _frames_of(answer: Frames | VideoError | Failure) -> Frames | VideoError:
    """Return the frames of a video, or why there are none, of what has become of its decoder."""
    return failure_of(answer) if isinstance(answer, Failure) else answer


def failure_of(answer: Failure) -> VideoError:
    """Return what is said of a video whose decoder has failed."""
    if answer.kind == "timeout":
        return VideoError("timeout", too_slow(answer.seconds))
    if answer.kind == "memory":
        return VideoError("refused", f"memory: decoding it takes more than {MEMORY_MIB} MiB")
    return VideoError("unreadable", answer.text)
