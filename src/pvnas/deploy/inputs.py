"""Which videos are meant: files, folders of any layout, lists of videos. Nothing here imports torch.

What is no video and does not exist is kept as it is: reading it says what is wrong with it, and costs no other.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pvnas.config import DataConfig
from pvnas.data.catalog import Video
from pvnas.data.listing import OFFICIAL
from pvnas.data.listing.content import Content, content_of
from pvnas.data.listing.registry import LIST_ENDINGS, ListFolder, Tree
from pvnas.data.listing.without_labels import named_videos
from pvnas.data.pack.format import INFO
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
    if os.path.isfile(path) and path.lower().endswith(LIST_ENDINGS):
        return _videos_listed(path)
    return [_video(path)]


def _videos_listed(path: str) -> list[Video]:
    """Return the videos of a list in its order, which may be an official one. Raises UserError."""
    folder = ListFolder.of(DataConfig(path))
    official = next((format for format in OFFICIAL if format.recognises(folder)), None)
    if official is None:
        return [Video(row.path, 0, "test", None, row.start, row.end) for row in named_videos(Path(path))]
    entries = official.read(folder).entries
    if not entries:
        raise UserError(f"{path} gives no video a label, and where they lie is not known; name their folder instead")
    return [Video(os.path.join(folder.root, e.path), 0, "test", None, e.start, e.end) for e in entries]


def _video(path: str) -> Video:
    return Video(path, 0, "test")


def why_missing(path: str) -> str:
    """Return why there is no file of this name, and for what is no file what to do."""
    if not (URL.match(path) or CAMERA.fullmatch(path)):
        return "missing: no such file"
    what, source = ("a camera", path) if CAMERA.fullmatch(path) else ("an address", path)
    source = f"/dev/video{path}" if path.isdigit() else source
    return f"{what} is not read, only files are; save a part: ffmpeg -i {shlex.quote(source)} -t 60 clip.mp4"


def _videos_below(folder: str) -> list[Video]:
    """Return the videos in a folder and below it: files, and folders of pictures. Raises UserError for none."""
    content = content_of(Tree(Path(folder), allow_outside=os.sep))  # what links lead to was named, too
    videos = [_video(os.path.join(folder, path) if path else folder) for path in _paths_in(content)]
    if not videos and os.path.isfile(os.path.join(folder, INFO)):
        raise UserError(f"{folder} is a pack; name the folder of videos that it was made of")
    if not videos:
        raise UserError(f"no videos in the folder {shown(folder)} or below it")
    return videos


def _paths_in(content: Content) -> Iterator[str]:
    """Yield the paths of the videos, those of a folder before those of folders in it."""
    if content.is_pictures:
        yield content.path
        return
    yield from map(content.of, content.videos)
    for inner in content.folders:
        yield from _paths_in(inner)
