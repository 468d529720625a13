"""Which videos are meant: files, folders of any layout, lists of videos. Nothing here imports torch.

What is no video and does not exist is kept as it is: reading it says what is wrong with it, and costs no other.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pvnas.data.catalog import Video
from pvnas.data.listing.registry import is_video
from pvnas.errors import UserError
from pvnas.settings import shown

Paths = str | Path | Sequence[str | Path]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
CAMERA = re.compile(r"\d{1,2}|/dev/video\d+")


def find_videos(given: Paths) -> list[Video]:
    """Return the videos of files, folders and lists, in their order; those of a folder by name.

    Raises UserError for a folder and a list without any.
    """
    paths = [given] if isinstance(given, str | Path) else list(given)
    return [video for path in paths for video in _videos_at(os.fspath(path))]


def _videos_at(path: str) -> Iterable[Video]:
    if os.path.isdir(path):
        return _videos_below(path)
    return [_video(path)]


def _video(path: str) -> Video:
    return Video(path, 0, "test")


def why_missing(path: str) -> str:
    """Return why there is no file of this name, and for what is no file what to do."""
    if not (URL.match(path) or CAMERA.fullmatch(path)):
        return "missing: no such file"
    what, source = ("an address", path) if URL.match(path) else ("a camera", f"/dev/video{path[-1]}")
    return f"{what} is not read, only files are; save a part: ffmpeg -i {shlex.quote(source)} -t 60 clip.mp4"


def _videos_below(folder: str) -> list[Video]:
    """Return the videos in a folder and below it, by path. Raises UserError where there are none."""
    videos = [_video(path) for path in _files_below(folder) if is_video(path)]
    if not videos:
        raise UserError(f"no videos in the folder {shown(folder)} or below it")
    return videos


def _files_below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(parent, name)
