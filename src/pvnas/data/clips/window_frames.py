"""Windows of many videos, decoded in processes beside whatever their reader does with them, each video once.

As ``view_frames``: a video that cannot be read, hangs, or takes its decoder down costs its own answer alone. A process
that has cut a window waits until its reader takes it, so that no more lie in memory than there are processes.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from av import VideoFrame

from pvnas.config import ClipConfig, TestConfig
from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.clips.view_frames import MEMORY_MIB, MIB, Job, failure_of, or_why, readable
from pvnas.data.clips.windows import Pace, Window, WindowCutter
from pvnas.data.processes import Allowed, Failure, Part, Tell, run_jobs
from pvnas.data.video.decode import FrameReader, Painter, VideoError, average_rate, open_video
from pvnas.data.video.footage import Footage
from pvnas.data.video.pictures import picture_files, read_picture, size_of_first

RIGHT_BEHIND = 1e-4  # seconds


def decode_windows(
    videos: Sequence[Video], clip: ClipConfig, test: TestConfig, pace: Pace, limits: Limits, frame_rate: float
) -> Generator[tuple[int, Window | float | VideoError] | None, None, None]:
    """Yield the number of each video with its windows one after another, and at the end its seconds, or what is wrong.

    None now and then; the windows of several videos come in turns. Arguments as of ``decode_views``; close the iterator
    to end the workers early.
    """
    bad: list[tuple[int, VideoError]] = []
    work = partial(_decode, clip=clip, test=test, pace=pace, limits=limits)
    jobs = readable(videos, frame_rate, bad)
    workers = max(1, min(limits.workers, len(videos)))
    answers = run_jobs(
        work, jobs, workers, seconds_for=lambda job: limits.seconds_for(job.size), memory=MEMORY_MIB * MIB
    )
    given: dict[int, int] = {}  # windows by video: a job that is tried again cuts them once more
    with closing(answers):
        for answer in answers:
            yield from bad
            bad.clear()
            if answer is None:
                yield None
                continue
            job, said = answer
            if isinstance(said, Part):
                if said.value.number >= given.get(job.number, 0):
                    given[job.number] = said.value.number + 1
                    yield job.number, said.value
            else:
                yield job.number, failure_of(said) if isinstance(said, Failure) else said
    yield from bad


def _decode(
    job: Job, tell: Tell, clip: ClipConfig, test: TestConfig, pace: Pace, limits: Limits
) -> Part | float | VideoError:
    """Tell the windows of a video and return its seconds, or why it has none. Raises nothing that a file causes."""
    cutter, painter = WindowCutter(clip, test.rule, pace), Painter(test.short_side)

    def on_length(seconds: float) -> None:
        tell(Allowed(limits.seconds_for(job.size, seconds)))

    def show(time: float, picture: Any) -> None:
        for window in cutter.add(time, picture):
            tell(Part(window))

    def decode() -> float:
        duration = _show_all(job.footage, painter, show, on_length)
        for window in cutter.finish(duration):
            tell(Part(window))
        return duration

    return or_why(decode)


def _show_pictures(footage: Footage, painter: Painter, show: Any) -> float:
    """Show the pictures of a folder one by one, in the place of one that cannot be read the one before it."""
    files = picture_files(footage.path)
    painter.fit(*size_of_first(files))
    picture, unread = None, 0
    for number, file in enumerate(files):
        try:
            picture_HWC = np.ascontiguousarray(read_picture(file))
        except VideoError:
            unread += picture is None
        else:
            picture = painter.paint(VideoFrame.from_ndarray(picture_HWC, format="rgb24"))
            for before in range(number - unread, number):  # those that could not be read before the first that can
                show(before / footage.frame_rate, picture)
            unread = 0
        if picture is not None:
            show(number / footage.frame_rate, picture)
    return len(files) / footage.frame_rate


def _show_all(footage: Footage, painter: Painter, show: Any, on_length: Any) -> float:
    """Show each frame of a video at its time and return the video's seconds. Raises VideoError.

    Where a frame has no time stamp the average rate counts on; a stamp that does not rise comes right behind the last.
    """
    if footage.is_pictures and footage.is_whole:
        return _show_pictures(footage, painter, show)
    if not footage.is_whole:  # which is read by rules of its own, and held
        shown = footage.in_order(painter.paint, painter, on_length)
        for time, picture in zip(shown.times_T.tolist(), shown.items, strict=True):
            show(time, picture)
        return shown.duration
    with open_video(footage.path) as (container, stream):
        rate, base = average_rate(stream), float(stream.time_base or 0)
        count, time, origin = 0, 0.0, math.nan  # seconds of the stamps where the video begins
        for frame in FrameReader(container, stream, on_length).frames():
            if not count:
                painter.fit(frame.width, frame.height)
            elif frame.pts is None or math.isnan(origin):
                time += 1.0 / rate
            else:
                time = max(frame.pts * base - origin, time + RIGHT_BEHIND)
            if math.isnan(origin) and frame.pts is not None:
                origin = frame.pts * base - time
            show(time, painter.paint(frame))
            count += 1
    if not count:
        raise VideoError("empty", "no frame decodes")
    return time + (time / (count - 1) if count > 1 else 1.0 / rate)
